"""Hierarchical co-attention (Lu et al. 2016): question and picture attend to each other.

Equations and sections are those of "Hierarchical Question-Image Co-Attention for Visual Question
Answering", NIPS 2016.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmcam.adapters.networks.parts import repeat_blocks
from mmcam.errors import ModelError

GRAMS = (1, 2, 3)
"""The lengths of the n-grams of the phrase level, in words (section 3.2)."""


class CoAttention(nn.Module):
    """A question as words, phrases and a sentence, with co-attention to the picture at each level.

    Keys of the state dict besides the CNN's: `img_proj`, `embed`, `grams` (W_c^s, eq. 1), `lstm`,
    `attend` (eq. 3-6, one for each level), `answer_word`, `answer_phrase`, `answer_sentence` and
    `out` (W_w, W_p, W_s and W_h of eq. 7). Details that the paper leaves open follow the
    authors' code: tanh after the word vectors and after the picture's projection, a bias in every
    layer.

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, height, width]`; ResNet's
            last maps or VGG's last pooling in the paper, 14 x 14 cells for 448 x 448 pixels.
        channels: the number of channels of the maps.
        vocabulary: the number of words in the vocabulary of questions.
        answers: the number of answers.
        embedding: the size d of the vectors of cells, words, phrases and sentences.
        hidden: the size of the layers h^w and h^p before the answers (eq. 7).
        attention: the size k of the layers that combine question and picture.
        kind: "parallel" (both attend at once) or "alternating" (one after the other).
        answer_hidden: the size of the layer h^s before the answers (eq. 7).
        centred: whether an n-gram is centred on its word, as in the authors' code (bigrams and
            trigrams start at the word before), instead of starting at its word (eq. 1).

    Raises:
        ModelError: `kind` is unknown.
    """

    def __init__(
        self,
        cnn: nn.Module,
        channels: int,
        vocabulary: int,
        answers: int,
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
        kind: str = "parallel",
        answer_hidden: int = 1024,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ModelError(f"unknown kind of co-attention '{kind}'; choose {' or '.join(KINDS)}")
        self.centred = centred
        self.cnn = cnn
        self.img_proj = nn.Linear(channels, embedding)
        self.embed = nn.Embedding(vocabulary, embedding)
        self.grams = nn.ModuleList(nn.Conv1d(embedding, embedding, size) for size in GRAMS)
        self.lstm = nn.LSTM(embedding, embedding, batch_first=True)
        self.attend = nn.ModuleList(KINDS[kind](embedding, attention) for _ in range(3))
        self.answer_word = nn.Linear(embedding, hidden)
        self.answer_phrase = nn.Linear(embedding + hidden, hidden)
        self.answer_sentence = nn.Linear(embedding + hidden, answer_hidden)
        self.out = nn.Linear(answer_hidden, answers)

    def forward(
        self,
        pixels: Float[Tensor, "_ 3 _ _"],
        tokens: Int[Tensor, "question word"],
        lengths: Int[Tensor, " question"],
    ) -> tuple[Float[Tensor, "row answer"], Float[Tensor, "row level height width"]]:
        """The logits of all answers, and the attention of each level (each sums to 1).

        The levels are word, phrase and sentence. If the maps or the embedded words have more rows
        than there are questions, the questions are repeated in whole blocks. Tokens beyond a
        question's length (at least 1) have no effect.
        """
        maps = self.cnn(pixels)
        cells = self.img_proj(maps.flatten(2).transpose(1, 2)).tanh()
        levels, padding = self.encode_question(tokens, lengths)
        rows = max(len(cells), len(padding))
        cells, padding = repeat_blocks(cells, rows), repeat_blocks(padding, rows)
        attended, attention = [], []
        for attend, words in zip(self.attend, levels, strict=True):
            word_sum, cell_sum, cell_weights = attend(repeat_blocks(words, rows), cells, padding)
            attended.append(word_sum + cell_sum)
            attention.append(cell_weights)
        return self.classify(*attended), torch.stack(attention, 1).unflatten(2, maps.shape[2:])

    def encode_question(
        self, tokens: Int[Tensor, "question word"], lengths: Int[Tensor, " question"]
    ) -> tuple[list[Float[Tensor, "row word embedding"]], Bool[Tensor, "row word"]]:
        """The vectors of words, phrases and sentence at each word, and a mask, true at padding.

        (Section 3.2, eq. 1-2.) All vectors at padding are 0.
        """
        words = self.embed(tokens)
        lengths = repeat_blocks(lengths, len(words))
        padding = torch.arange(words.shape[1], device=lengths.device) >= lengths[:, None]
        words = words.tanh().masked_fill(padding[..., None], 0)
        phrases = self.encode_phrases(words).masked_fill(padding[..., None], 0)
        packed = pack_padded_sequence(
            phrases, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = self.lstm(packed)
        sentence, _ = pad_packed_sequence(states, batch_first=True, total_length=words.shape[1])
        return [words, phrases, sentence], padding

    def encode_phrases(
        self, words: Float[Tensor, "row word embedding"]
    ) -> Float[Tensor, "row word embedding"]:
        """The maximum over the n-grams at each word, separately for each feature (eq. 1-2)."""
        grams = []
        for size, gram in zip(GRAMS, self.grams, strict=True):
            before = size // 2 if self.centred else 0
            grams.append(gram(F.pad(words.transpose(1, 2), (before, size - 1 - before))))
        return torch.stack(grams).amax(0).tanh().transpose(1, 2)

    def classify(
        self,
        word: Float[Tensor, "row embedding"],
        phrase: Float[Tensor, "row embedding"],
        sentence: Float[Tensor, "row embedding"],
    ) -> Float[Tensor, "row answer"]:
        """The logits of all answers, from each level's attended words plus cells (eq. 7)."""
        hidden = self.answer_word(word).tanh()
        hidden = self.answer_phrase(torch.cat([phrase, hidden], 1)).tanh()
        hidden = self.answer_sentence(torch.cat([sentence, hidden], 1)).tanh()
        logits: Tensor = self.out(hidden)
        return logits


class Parallel(nn.Module):
    """Words and cells attend to each other at once (eq. 3-5).

    Keys: `affinity` (W_b), `words` (W_q), `cells` (W_v), `word_score` (w_hq), `cell_score` (w_hv).
    """

    def __init__(self, embedding: int, attention: int) -> None:
        super().__init__()
        self.affinity = nn.Linear(embedding, embedding)
        self.words = nn.Linear(embedding, attention)
        self.cells = nn.Linear(embedding, attention)
        self.word_score = nn.Linear(attention, 1)
        self.cell_score = nn.Linear(attention, 1)

    def forward(
        self,
        words: Float[Tensor, "row word embedding"],
        cells: Float[Tensor, "row cell embedding"],
        padding: Bool[Tensor, "row word"],
    ) -> tuple[
        Float[Tensor, "row embedding"], Float[Tensor, "row embedding"], Float[Tensor, "row cell"]
    ]:
        """The attended words, the attended cells, and the attention over the cells.

        Words at padding must be 0, so that their affinity is 0 and they do not affect the cells.
        """
        affinity = (words @ self.affinity(cells).mT).tanh()
        word_keys, cell_keys = self.words(words), self.cells(cells)
        word_scores = self.word_score((word_keys + affinity @ cell_keys).tanh())
        cell_scores = self.cell_score((cell_keys + affinity.mT @ word_keys).tanh())
        word_weights = word_scores[..., 0].masked_fill(padding, -math.inf).softmax(1)
        cell_weights = cell_scores[..., 0].softmax(1)
        return _weighted_sum(word_weights, words), _weighted_sum(cell_weights, cells), cell_weights


class Alternating(nn.Module):
    """Attention to words alone, to cells given the words, to words given the cells (eq. 6).

    Keys: `words_alone`, `cells` and `words`, each with its own W_x, W_g and w_hx.
    """

    def __init__(self, embedding: int, attention: int) -> None:
        super().__init__()
        self.words_alone = Guided(embedding, attention, guided=False)
        self.cells = Guided(embedding, attention)
        self.words = Guided(embedding, attention)

    def forward(
        self,
        words: Float[Tensor, "row word embedding"],
        cells: Float[Tensor, "row cell embedding"],
        padding: Bool[Tensor, "row word"],
    ) -> tuple[
        Float[Tensor, "row embedding"], Float[Tensor, "row embedding"], Float[Tensor, "row cell"]
    ]:
        """The attended words, the attended cells, and the attention over the cells."""
        word_weights = self.words_alone(words).masked_fill(padding, -math.inf).softmax(1)
        cell_weights = self.cells(cells, _weighted_sum(word_weights, words)).softmax(1)
        cell_sum = _weighted_sum(cell_weights, cells)
        word_weights = self.words(words, cell_sum).masked_fill(padding, -math.inf).softmax(1)
        return _weighted_sum(word_weights, words), cell_sum, cell_weights


class Guided(nn.Module):
    """The scores of the operation A(X; g) of eq. 6, before the softmax.

    Keys: `items` (W_x), `guide` (W_g; absent if g is 0) and `score` (w_hx).
    """

    def __init__(self, embedding: int, attention: int, guided: bool = True) -> None:
        super().__init__()
        self.items = nn.Linear(embedding, attention)
        self.guide = nn.Linear(embedding, attention) if guided else None
        self.score = nn.Linear(attention, 1)

    def forward(
        self,
        items: Float[Tensor, "row item embedding"],
        guide: Float[Tensor, "row embedding"] | None = None,
    ) -> Float[Tensor, "row item"]:
        """The score of each item, given the guide, if any."""
        keys = self.items(items)
        if self.guide is not None:
            keys = keys + self.guide(guide)[:, None]
        scores: Tensor = self.score(keys.tanh())[..., 0]
        return scores


KINDS: dict[str, type[Parallel] | type[Alternating]] = {
    "parallel": Parallel,
    "alternating": Alternating,
}


def _weighted_sum(weights: Tensor, items: Tensor) -> Tensor:
    """The weighted sum of words or cells (eq. 5)."""
    return (weights[..., None] * items).sum(1)
