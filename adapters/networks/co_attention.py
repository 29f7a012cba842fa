"""Hierarchical co-attention (Lu et al. 2016): question and picture say where to look in each other.

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

from mmcam.adapters.networks.parts import blocks, with_gradient
from mmcam.errors import ModelError

GRAMS = (1, 2, 3)
"""How many words there are in the n-grams of the phrase level (section 3.2)."""


class CoAttention(nn.Module):
    """A question read as words, phrases and a sentence, each level co-attending with the picture.

    Keys of the state dict beside the CNN's: `img_proj`, `embed`, `grams` (W_c^s, eq. 1), `lstm`,
    `attend` (eq. 3-6, one for each level), `answer_word`, `answer_phrase`, `answer_sentence` and
    `out` (W_w, W_p, W_s and W_h of eq. 7). Where the paper is silent, it is as in the authors'
    code: tanh behind the word vectors and behind the picture's projection, a bias in every layer.

    Args:
        cnn: pictures `[row, 3, height, width]` to maps `[row, channel, height, width]`; ResNet's
            last maps or VGG's last pooling, 14 x 14 cells of a picture of 448 x 448, in the paper.
        channels: how many channels the maps have.
        vocabulary: how many words a question may have.
        answers: how many answers there are.
        embedding: the size d of a cell's, word's, phrase's and sentence's vector alike.
        hidden: the size of the layers h^w and h^p before the answers (eq. 7).
        attention: the size k of the layers in which question and picture meet.
        kind: "parallel" (both look at once) or "alternating" (one after the other).
        answer_hidden: the size of the layer h^s before the answers (eq. 7).
        centred: whether an n-gram lies around its word, as in the authors' code (the word before
            it and it; those and the word behind), and does not begin with its word (eq. 1).

    Raises:
        ModelError: there is no such kind.
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
            raise ModelError(f"Co-attention has no kind '{kind}'; choose {' or '.join(KINDS)}")
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
        """The logits of all answers, and where word, phrase and sentence look (each sums to 1).

        Where there are more maps, or embedded words, than questions, they are whole blocks of
        these. Tokens beyond a question's length (at least 1) take no part.
        """
        maps = self.cnn(pixels)
        cells = self.img_proj(maps.flatten(2).transpose(1, 2)).tanh()
        levels, padding = self.read(tokens, lengths)
        rows = max(len(cells), len(padding))
        cells, padding = blocks(cells, rows), blocks(padding, rows)
        attended, looks = [], []
        for attend, items in zip(self.attend, levels, strict=True):
            heard, seen, look = attend(blocks(items, rows), cells, padding)
            attended.append(heard + seen)
            looks.append(look)
        return self.answer(*attended), torch.stack(looks, 1).unflatten(2, maps.shape[2:])

    def read(
        self, tokens: Int[Tensor, "question word"], lengths: Int[Tensor, " question"]
    ) -> tuple[list[Float[Tensor, "row word embedding"]], Bool[Tensor, "row word"]]:
        """Words, phrases and sentence as vectors at each word, and which words are padding.

        (Section 3.2, eq. 1-2.) All vectors of padding are 0.
        """
        words = self.embed(tokens)
        lengths = blocks(lengths, len(words))
        padding = torch.arange(words.shape[1], device=lengths.device) >= lengths[:, None]
        words = words.tanh().masked_fill(padding[..., None], 0)
        phrases = self.phrases(words).masked_fill(padding[..., None], 0)
        packed = pack_padded_sequence(
            phrases, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        with with_gradient():
            states, _ = self.lstm(packed)
        sentence, _ = pad_packed_sequence(states, batch_first=True, total_length=words.shape[1])
        return [words, phrases, sentence], padding

    def phrases(
        self, words: Float[Tensor, "row word embedding"]
    ) -> Float[Tensor, "row word embedding"]:
        """The strongest n-gram at each word, for each feature alone (eq. 1-2)."""
        found = []
        for size, gram in zip(GRAMS, self.grams, strict=True):
            before = size // 2 if self.centred else 0
            found.append(gram(F.pad(words.transpose(1, 2), (before, size - 1 - before))))
        return torch.stack(found).amax(0).tanh().transpose(1, 2)

    def answer(
        self,
        word: Float[Tensor, "row embedding"],
        phrase: Float[Tensor, "row embedding"],
        sentence: Float[Tensor, "row embedding"],
    ) -> Float[Tensor, "row answer"]:
        """The logits of what each level attended to, words and cells summed (eq. 7)."""
        hidden = self.answer_word(word).tanh()
        hidden = self.answer_phrase(torch.cat([phrase, hidden], 1)).tanh()
        hidden = self.answer_sentence(torch.cat([sentence, hidden], 1)).tanh()
        logits: Tensor = self.out(hidden)
        return logits


class Parallel(nn.Module):
    """Words and cells look at each other at once (eq. 3-5).

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
        """The words and the cells attended to, and the attention on the cells.

        Words of padding have to be 0: so is their affinity then, and no cell hears them.
        """
        affinity = (words @ self.affinity(cells).mT).tanh()
        word_keys, cell_keys = self.words(words), self.cells(cells)
        word_scores = self.word_score((word_keys + affinity @ cell_keys).tanh())
        cell_scores = self.cell_score((cell_keys + affinity.mT @ word_keys).tanh())
        heard = word_scores[..., 0].masked_fill(padding, -math.inf).softmax(1)
        look = cell_scores[..., 0].softmax(1)
        return _sum(heard, words), _sum(look, cells), look


class Alternating(nn.Module):
    """Words alone, then cells given these, then words given those (eq. 6).

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
        """The words and the cells attended to, and the attention on the cells."""
        heard = self.words_alone(words).masked_fill(padding, -math.inf).softmax(1)
        look = self.cells(cells, _sum(heard, words)).softmax(1)
        seen = _sum(look, cells)
        heard = self.words(words, seen).masked_fill(padding, -math.inf).softmax(1)
        return _sum(heard, words), seen, look


class Guided(nn.Module):
    """The scores of the operation A(X; g) of eq. 6, before the softmax.

    Keys: `items` (W_x), `guide` (W_g; absent where g is 0) and `score` (w_hx).
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
        """How much the guide, or nobody, asks for each item."""
        keys = self.items(items)
        if self.guide is not None:
            keys = keys + self.guide(guide)[:, None]
        scores: Tensor = self.score(keys.tanh())[..., 0]
        return scores


KINDS: dict[str, type[Parallel] | type[Alternating]] = {
    "parallel": Parallel,
    "alternating": Alternating,
}


def _sum(weights: Tensor, items: Tensor) -> Tensor:
    """The weighted sum of words or cells (eq. 5)."""
    return (weights[..., None] * items).sum(1)
