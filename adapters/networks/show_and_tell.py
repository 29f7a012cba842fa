"""Show-and-Tell (Vinyals et al. 2015), as in NeuralTalk2: the picture is the LSTM's first word."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmcam.adapters.networks.decoding import State
from mmcam.adapters.networks.parts import blocks, with_gradient


class ShowAndTell(nn.Module):
    """A CNN's features, then words, through one LSTM (eq. 10-12).

    `cnn` makes a map of a picture, `pool` a vector of `features` numbers of the map. Keys of the
    state dict beside theirs: `img_proj`, `embed`, `lstm`, `out`.

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, *grid]`.
        pool: maps to vectors `[row, features]`.
        features: how many numbers the LSTM is given of a picture.
        vocabulary: how many tokens there are.
        start: the token that every caption begins with.
        embedding: the size of a word's vector.
        hidden: the size of the LSTM's state.
        layers: how many LSTMs are stacked.
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
        """The logits of each caption's tokens, each given the picture and the tokens before it."""
        states, _ = self.teacher_force(self.cnn(pixels), tokens)
        logits: Tensor = self.out(states)
        return logits

    def teacher_force(
        self, maps: Float[Tensor, "map channel *grid"], tokens: Int[Tensor, "caption step"]
    ) -> tuple[Float[Tensor, "row step hidden"], None]:
        """The states that `out` makes the logits of; there is no attention.

        Where there are more maps or vectors than captions, they are whole blocks of these.
        """
        picture = self.img_proj(self.pool(maps))[:, None]
        tokens = blocks(tokens, len(picture))
        before = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], 1)
        with with_gradient():
            states, _ = self.lstm(torch.cat([picture, self.embed(before)], 1))
        return states[:, 1:], None

    def initial_state(self, maps: Tensor) -> State:
        """The LSTM's state once it has seen the pictures, a row each."""
        _, state = self.lstm(self.img_proj(self.pool(maps))[:, None])
        return tuple(part.transpose(0, 1) for part in state)

    def step(self, state: State, last: Int[Tensor, " row"]) -> tuple[Tensor, State]:
        """The logits `[row, token]` of the next token after `last`, and the new state."""
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)
        states, new = self.lstm(self.embed(last)[:, None], (hidden, cell))
        return self.out(states[:, 0]), tuple(part.transpose(0, 1) for part in new)
