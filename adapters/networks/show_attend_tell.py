"""Show, Attend and Tell (Xu et al. 2015): for each word, soft attention over the feature map."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmcam.adapters.networks.decoding import State
from mmcam.adapters.networks.parts import repeat_blocks


class ShowAttendTell(nn.Module):
    """An LSTM whose inputs are the previous word and the attended features of the picture.

    Layers in the state dict besides the CNN: `init_h`, `init_c` (f_init, section 3.1.2), `embed`
    (E), `attend_map`, `attend_state`, `attend` (f_att, eq. 4-5), `gate` (f_beta, section 4.2.1),
    `lstm` (eq. 1-3), and `out_state`, `out_context`, `out` (L_h, L_z, L_o of eq. 7).

    Args:
        cnn: turns pictures `[row, 3, height, width]` into feature maps `[row, channel, height,
            width]`; in the paper, VGG up to conv5_3, without the pooling after it.
        channels: the number of channels of the feature maps.
        vocabulary: the number of tokens.
        start: the token that every caption begins with.
        embedding: the size of a word's vector.
        hidden: the size of the LSTM's state.
        attention: the size of the hidden layer in f_att.
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
        readouts, attention = self.teacher_force(self.cnn(pixels), tokens)
        return self.out(readouts), attention

    def teacher_force(
        self, maps: Float[Tensor, "row channel height width"], tokens: Int[Tensor, "caption step"]
    ) -> tuple[Float[Tensor, "row step embedding"], Float[Tensor, "row step height width"]]:
        """The vectors that `out` turns into logits, and the attention at each step.

        If there are more maps than captions, all captions are repeated, block by block.
        """
        tokens = repeat_blocks(tokens, len(maps))
        previous = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], 1)
        state = self.initial_state(maps)
        readouts, alphas = [], []
        for last in previous.T:
            readout, state, alpha = self._step(state, last)
            readouts.append(readout)
            alphas.append(alpha)
        return torch.stack(readouts, 1), torch.stack(alphas, 1).unflatten(2, maps.shape[2:])

    def initial_state(self, maps: Float[Tensor, "row channel height width"]) -> State:
        """The LSTM's state before the first word, and two tensors that no step changes.

        They are the annotation vectors (a_i) and the part of f_att that depends on them alone.
        """
        annotations = maps.flatten(2).transpose(1, 2)
        mean = annotations.mean(1)
        return (
            self.init_h(mean).tanh(),
            self.init_c(mean).tanh(),
            annotations,
            self.attend_map(annotations),
        )

    def step(self, state: State, last: Int[Tensor, " row"]) -> tuple[Tensor, State]:
        """The logits `[row, token]` of the next token after `last`, and the new state."""
        readout, state, _ = self._step(state, last)
        return self.out(readout), state

    def _step(self, state: State, last: Tensor) -> tuple[Tensor, State, Tensor]:
        """The input of `out` for the token after `last`, the new state, and the attention."""
        hidden, cell, annotations, keys = state
        scores = self.attend((keys + self.attend_state(hidden)[:, None]).tanh())[..., 0]
        alpha = scores.softmax(1)
        context = self.gate(hidden).sigmoid() * (alpha[..., None] * annotations).sum(1)
        word = self.embed(last)
        hidden, cell = self.lstm(torch.cat([word, context], 1), (hidden, cell))
        readout = (word + self.out_state(hidden) + self.out_context(context)).tanh()
        return readout, (hidden, cell, annotations, keys), alpha
