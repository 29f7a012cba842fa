"""Captioners as people write them, in plain torch: none of them knows mmcam."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS = ["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "runs", "two", "dogs", "run", "red"]
START, END = 1, 2
WIDTH = 8


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, WIDTH, 3, padding=1)
    )


class CnnLstm(nn.Module):
    """The pooled picture is the first input of the LSTM, the words are the others."""

    def __init__(self, tokens: int = len(WORDS)) -> None:
        super().__init__()
        self.cnn = cnn()
        self.drop = nn.Dropout(0.5)
        self.embed = nn.Embedding(tokens, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, tokens)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        picture = self.cnn(pixels).relu().mean((2, 3))[:, None]
        states, _ = self.lstm(torch.cat([picture, self.embed(tokens)], 1))
        logits: Tensor = self.out(self.drop(states[:, 1:]))
        return logits

    def initial_state(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        _, state = self.lstm(self.cnn(pixels).relu().mean((2, 3))[:, None])
        return state[0].transpose(0, 1), state[1].transpose(0, 1)

    def step(self, state: tuple[Tensor, ...], last: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)
        states, (hidden, cell) = self.lstm(self.embed(last)[:, None], (hidden, cell))
        return self.out(self.drop(states[:, 0])), (hidden.transpose(0, 1), cell.transpose(0, 1))


class CnnAttention(nn.Module):
    """An LSTM cell that attends to the cells of the map at each step."""

    def __init__(self, tokens: int = len(WORDS)) -> None:
        super().__init__()
        self.cnn = cnn()
        self.embed = nn.Embedding(tokens, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.cell = nn.LSTMCell(2 * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, tokens)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.cnn(pixels)
        cells = maps.flatten(2).transpose(1, 2)
        hidden = cell = cells.mean(1)
        logits, attention = [], []
        for word in self.embed(tokens).unbind(1):
            weights = (cells @ self.query(hidden)[..., None])[..., 0].softmax(1)
            context = (weights[..., None] * cells).sum(1)
            hidden, cell = self.cell(torch.cat([word, context], 1), (hidden, cell))
            logits.append(self.out(hidden))
            attention.append(weights.view(-1, *maps.shape[2:]))
        return torch.stack(logits, 1), torch.stack(attention, 1)


class PatchTransformer(nn.Module):
    """Patches, encoded and decoded by transformer layers; it has no cache and 12 positions."""

    def __init__(self, tokens: int = len(WORDS), causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
        self.embed = nn.Embedding(tokens, WIDTH)
        self.positions = nn.Parameter(torch.randn(12, WIDTH))
        layer = nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.out = nn.Linear(WIDTH, tokens)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        patches = self.encoder(self.patches(pixels).flatten(2).transpose(1, 2))
        steps = tokens.shape[1]
        if steps > len(self.positions):
            raise IndexError(f"{steps} tokens for {len(self.positions)} positions")
        mask = nn.Transformer.generate_square_subsequent_mask(steps) if self.causal else None
        words = self.embed(tokens) + self.positions[:steps]
        logits: Tensor = self.out(self.decoder(words, patches, tgt_mask=mask))
        return logits


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that pictures and words change the words that follow."""
    torch.manual_seed(seed)
    for name, parameter in net.named_parameters():
        std = 0.3 if "coder" in name else 2.0 if "embed" in name else 0.7
        parameter.data.normal_(std=std)
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    return net
