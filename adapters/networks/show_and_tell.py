"""Show-and-Tell (Vinyals et al. 2015), as in NeuralTalk2: the picture is the first LSTM input."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmcam.adapters.networks.decoding import State
from mmcam.adapters.networks.parts import repeat_blocks


class ShowAndTell(nn.Module):
    """An LSTM whose inputs are a CNN's features, then words (eq. 10-12).

    `cnn` turns a picture into a map, and `pool` the map into a vector of length `features`. Keys of
    the state dict besides theirs: `img_proj`, `embed`, `lstm`, `out`.

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, *grid]`.
        pool: maps to vectors `[row, features]`.
        features: the length of a picture's vector.
        vocabulary: the number of tokens.
        start: the token that every caption begins with.
        embedding: the size of a word's vector.
        hidden: the size of the LSTM's state.
        layers: the number of stacked LSTMs.
    """

    def __init__(
        self,
        cnn: nn.Module,
        pool: nn.Module,
        features: int,
        vocabulary: int,
        start: int = 1,
        embedding: int = 512,
        hidden: int = 512,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.start = start
        self.cnn = cnn
        self.pool = pool
        self.img_proj = nn.Linear(features, embedding)
        self.embed = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, num_layers=layers, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(
        self, pixels: Float[Tensor, "_ 3 _ _"], tokens: Int[Tensor, "caption step"]
    ) -> Float[Tensor, "row step token"]:
        """The logits of each caption's tokens, given the picture and the preceding tokens."""
        states, _ = self.teacher_force(self.cnn(pixels), tokens)
        logits: Tensor = self.out(states)
        return logits

    def teacher_force(
        self, maps: Float[Tensor, "map channel *grid"], tokens: Int[Tensor, "caption step"]
    ) -> tuple[Float[Tensor, "row step hidden"], None]:
        """The states that `out` turns into logits, and None: the model has no attention.

        If the maps or their vectors have more rows than there are captions, the captions are
        repeated in whole blocks.
        """
        picture = self.img_proj(self.pool(maps))[:, None]
        tokens = repeat_blocks(tokens, len(picture))
        previous = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], 1)
        states, _ = self.lstm(torch.cat([picture, self.embed(previous)], 1))
        return states[:, 1:], None

    def initial_state(self, maps: Tensor) -> State:
        """The LSTM's state after the pictures, one row per picture."""
        _, state = self.lstm(self.img_proj(self.pool(maps))[:, None])
        return tuple(tensor.transpose(0, 1) for tensor in state)

    def step(self, state: State, last: Int[Tensor, " row"]) -> tuple[Tensor, State]:
        """The logits `[row, token]` of the next token after `last`, and the new state."""
        hidden, cell = (tensor.transpose(0, 1).contiguous() for tensor in state)
        states, new_state = self.lstm(self.embed(last)[:, None], (hidden, cell))
        return self.out(states[:, 0]), tuple(tensor.transpose(0, 1) for tensor in new_state)
