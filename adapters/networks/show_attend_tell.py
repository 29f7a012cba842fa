"""Show, Attend and Tell (Xu et al. 2015) with soft attention over the grid for each word."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmcam.adapters.networks.decoding import State
from mmcam.adapters.networks.parts import repeat_blocks


class ShowAttendTell(nn.Module):
    """An LSTM whose input is the previous word and the attended part of the picture.

    Keys of the state dict beside the CNN's: `init_h`, `init_c` (f_init, section 3.1.2), `embed`
    (E), `attend_map`, `attend_state`, `attend` (f_att, eq. 4-5), `gate` (f_beta, section 4.2.1),
    `lstm` (eq. 1-3), and `out_state`, `out_context`, `out` (L_h, L_z, L_o of eq. 7).

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, height, width]`; VGG's
            conv5_3 before its last pooling in the paper.
        channels: the number of channels of the maps.
        vocabulary: the number of tokens.
        start: the token that every caption begins with.
        embedding: the size of a word's vector.
        hidden: the size of the LSTM's state.
        attention: the size of the layer in f_att.
    """

    def __init__(
        self,
        cnn: nn.Module,
        channels: int,
        vocabulary: int,
        start: int = 1,
        embedding: int = 512,
        hidden: int = 512,
        attention: int = 512,
    ) -> None:
        super().__init__()
        self.start = start
        self.cnn = cnn
        self.init_h = nn.Linear(channels, hidden)
        self.init_c = nn.Linear(channels, hidden)
        self.embed = nn.Embedding(vocabulary, embedding)
        self.attend_map = nn.Linear(channels, attention)
        self.attend_state = nn.Linear(hidden, attention)
        self.attend = nn.Linear(attention, 1)
        self.gate = nn.Linear(hidden, 1)
        self.lstm = nn.LSTMCell(embedding + channels, hidden)
        self.out_state = nn.Linear(hidden, embedding)
        self.out_context = nn.Linear(channels, embedding)
        self.out = nn.Linear(embedding, vocabulary)

    def forward(
        self, pixels: Float[Tensor, "_ 3 _ _"], tokens: Int[Tensor, "caption step"]
    ) -> tuple[Float[Tensor, "row step token"], Float[Tensor, "row step height width"]]:
        """The logits of each caption's tokens, and the attention at each step (alpha)."""
        states, attention = self.teacher_force(self.cnn(pixels), tokens)
        return self.out(states), attention

    def teacher_force(
        self, maps: Float[Tensor, "row channel height width"], tokens: Int[Tensor, "caption step"]
    ) -> tuple[Float[Tensor, "row step embedding"], Float[Tensor, "row step height width"]]:
        """The states that `out` turns into logits, and the attention at each step.

        Maps with more rows than captions repeat these in whole blocks.
        """
        tokens = repeat_blocks(tokens, len(maps))
        previous = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], 1)
        memory = self.initial_state(maps)
        states, alphas = [], []
        for last in previous.T:
            state, memory, alpha = self._step(memory, last)
            states.append(state)
            alphas.append(alpha)
        return torch.stack(states, 1), torch.stack(alphas, 1).unflatten(2, maps.shape[2:])

    def initial_state(self, maps: Float[Tensor, "row channel height width"]) -> State:
        """The LSTM's state before the first word, and the inputs of f_att from the maps."""
        cells = maps.flatten(2).transpose(1, 2)
        mean = cells.mean(1)
        return (
            self.init_h(mean).tanh(),
            self.init_c(mean).tanh(),
            cells,
            self.attend_map(cells),
        )

    def step(self, state: State, last: Int[Tensor, " row"]) -> tuple[Tensor, State]:
        """The logits `[row, token]` of the next token after `last`, and the new state."""
        states, state, _ = self._step(state, last)
        return self.out(states), state

    def _step(self, state: State, last: Tensor) -> tuple[Tensor, State, Tensor]:
        hidden, cell, cells, keys = state
        scores = self.attend((keys + self.attend_state(hidden)[:, None]).tanh())[..., 0]
        alpha = scores.softmax(1)
        context = self.gate(hidden).sigmoid() * (alpha[..., None] * cells).sum(1)
        word = self.embed(last)
        hidden, cell = self.lstm(torch.cat([word, context], 1), (hidden, cell))
        states = (word + self.out_state(hidden) + self.out_context(context)).tanh()
        return states, (hidden, cell, cells, keys), alpha
