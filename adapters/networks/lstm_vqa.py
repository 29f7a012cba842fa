"""The VQA network of Lu et al. 2015: deeper LSTM question, normalised CNN image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmcam.adapters.networks.parts import repeat_blocks


class LstmVqa(nn.Module):
    """A question's LSTM states times a picture's features, then a classifier over the answers.

    (Antol et al. 2015, section 4, "deeper LSTM Q + norm I".) Keys of the state dict besides the
    CNN's: `img_proj`, `embed`, `lstm`, `q_proj`, `fc1` (if there is an `answer_hidden`), `fc2`.

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, *grid]`.
        pool: maps to vectors `[row, features]`; fc7 of VGG as published.
        features: the length of a picture's vector.
        vocabulary: the number of words in the vocabulary of questions.
        answers: the number of answers.
        embedding: the size of a word's vector.
        hidden: the size of each LSTM's state.
        layers: the number of stacked LSTMs; two as published.
        common: the size of the common space of picture and question.
        answer_hidden: the size of the layer before the answers; None: no such layer.
        normalised: whether the features are divided by their L2 norm, as published.
    """

    def __init__(
        self,
        cnn: nn.Module,
        pool: nn.Module,
        features: int,
        vocabulary: int,
        answers: int,
        embedding: int = 300,
        hidden: int = 512,
        layers: int = 2,
        common: int = 1024,
        answer_hidden: int | None = 1000,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.cnn = cnn
        self.pool = pool
        self.normalised = normalised
        self.img_proj = nn.Linear(features, common)
        self.embed = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.q_proj = nn.Linear(2 * layers * hidden, common)
        self.fc1 = nn.Linear(common, answer_hidden) if answer_hidden else None
        self.fc2 = nn.Linear(answer_hidden or common, answers)

    def forward(
        self,
        pixels: Float[Tensor, "_ 3 _ _"],
        tokens: Int[Tensor, "question word"],
        lengths: Int[Tensor, " question"],
    ) -> Float[Tensor, "row answer"]:
        """The logits of all answers.

        If the maps or the embedded words have more rows than there are questions, the questions
        are repeated in whole blocks.
        """
        return self.classify(self.pool(self.cnn(pixels)), self.encode_question(tokens, lengths))

    def classify(
        self, features: Float[Tensor, "vector _"], question: Float[Tensor, "question common"]
    ) -> Float[Tensor, "row answer"]:
        """The logits of all answers, from a picture's features and the vector of a question."""
        if self.normalised:
            features = F.normalize(features)
        picture = self.img_proj(features).tanh()
        rows = max(len(picture), len(question))
        joint = repeat_blocks(picture, rows) * repeat_blocks(question, rows)
        if self.fc1 is not None:
            joint = self.fc1(joint).tanh()
        logits: Tensor = self.fc2(joint)
        return logits

    def encode_question(
        self, tokens: Int[Tensor, "question word"], lengths: Int[Tensor, " question"]
    ) -> Float[Tensor, "row common"]:
        """The question's vector, from the last hidden and cell states, layer by layer."""
        words = self.embed(tokens).tanh()
        lengths = repeat_blocks(lengths, len(words)).cpu()
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, cell) = self.lstm(packed)
        states = torch.stack([hidden, cell], 1).flatten(0, 1)  # h0, c0, h1, c1
        vector: Tensor = self.q_proj(states.transpose(0, 1).flatten(1)).tanh()
        return vector
