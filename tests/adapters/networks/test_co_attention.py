"""Co-attention: its published equations, and that neither padding nor batches change anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmcam.adapters.networks.co_attention import CoAttention
from mmcam.errors import ModelError

KINDS = ("parallel", "alternating")
QUESTIONS = torch.tensor([[3, 1, 0, 0], [5, 2, 6, 4], [1, 4, 2, 0]])
LENGTHS = torch.tensor([2, 4, 3])


def network(kind: str, cnn: nn.Module | None = None, **change: Any) -> CoAttention:
    """A tiny network in double precision; without a CNN, the pixels are the maps.

    Its weights are larger than those of a new network, so that no attention is nearly even.
    """
    torch.manual_seed(1)
    sizes = {"embedding": 4, "hidden": 5, "attention": 6, "answer_hidden": 7, **change}
    net = CoAttention(cnn or nn.Identity(), 3, 8, 9, kind=kind, **sizes).double().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(1 if name.startswith(("cnn", "out")) else 3)
    return net


def pictures(rows: int = 1) -> Tensor:
    return torch.randn(rows, 3, 2, 3, dtype=torch.float64)


def times(layer: Any, columns: Tensor) -> Tensor:
    """A layer applied to a matrix whose columns are the items, as in the paper."""
    product: Tensor = layer.weight @ columns + layer.bias[:, None]
    return product


def levels_by_hand(net: CoAttention, tokens: list[int]) -> list[Tensor]:
    """Section 3.2: Q^w, Q^p and Q^s, each of d rows and a column for each word."""
    words = torch.tanh(net.embed.weight[tokens]).T
    zero = torch.zeros_like(words[:, 0])
    phrases = []
    for t in range(len(tokens)):
        grams = []
        for size, gram in enumerate(net.grams, 1):
            first = t - size // 2 if net.centred else t
            span = range(first, first + size)
            window = [words[:, i] if 0 <= i < len(tokens) else zero for i in span]
            weight: Any = gram.weight
            products = [weight[:, :, j] @ word for j, word in enumerate(window)]
            grams.append(torch.tanh(sum(products) + gram.bias))
        phrases.append(torch.stack(grams).max(0).values)
    states, hidden = [], (zero, zero)
    cell = nn.LSTMCell(len(words), len(words)).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in net.lstm.state_dict().items()})
    for phrase in phrases:
        hidden = cell(phrase, hidden)
        states.append(hidden[0])
    return [words, torch.stack(phrases, 1), torch.stack(states, 1)]


def parallel_by_hand(layers: Any, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 3-5."""
    c = torch.tanh(q.T @ times(layers.affinity, v))
    h_v = torch.tanh(times(layers.cells, v) + times(layers.words, q) @ c)
    h_q = torch.tanh(times(layers.words, q) + times(layers.cells, v) @ c.T)
    a_v = softmax(times(layers.cell_score, h_v))
    a_q = softmax(times(layers.word_score, h_q))
    return q @ a_q, v @ a_v, a_v


def alternating_by_hand(layers: Any, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 6, three times."""
    h = torch.tanh(times(layers.words_alone.items, q))
    s = q @ softmax(times(layers.words_alone.score, h))
    h = torch.tanh(times(layers.cells.items, v) + times(layers.cells.guide, s[:, None]))
    a_v = softmax(times(layers.cells.score, h))
    cell_sum = v @ a_v
    h = torch.tanh(times(layers.words.items, q) + times(layers.words.guide, cell_sum[:, None]))
    return q @ softmax(times(layers.words.score, h)), cell_sum, a_v


def softmax(row: Tensor) -> Tensor:
    return row[0].exp() / row[0].exp().sum()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_co_attention_has_its_published_form(kind: str, centred: bool) -> None:
    """Eq. 1-7 of Lu et al. 2016, written out for one question."""
    net, maps, tokens = network(kind, centred=centred), pictures(), [3, 1, 6, 4]
    v = torch.tanh(times(net.img_proj, maps[0].flatten(1)))
    by_hand = parallel_by_hand if kind == "parallel" else alternating_by_hand
    sums, expected = [], []
    for layers, q in zip(net.attend, levels_by_hand(net, tokens), strict=True):
        word_sum, cell_sum, cell_weights = by_hand(layers, q, v)
        sums.append(word_sum + cell_sum)
        expected.append(cell_weights)
    h_w = torch.tanh(net.answer_word(sums[0]))
    h_p = torch.tanh(net.answer_phrase(torch.cat([sums[1], h_w])))
    h_s = torch.tanh(net.answer_sentence(torch.cat([sums[2], h_p])))
    logits, attention = net(maps, torch.tensor([tokens]), torch.tensor([4]))
    torch.testing.assert_close(logits[0], net.out(h_s))
    torch.testing.assert_close(attention[0].flatten(1), torch.stack(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_attends_to_the_whole_map_once(kind: str) -> None:
    logits, attention = network(kind)(pictures(3), QUESTIONS, LENGTHS)
    assert logits.shape == (3, 9)
    assert attention.shape == (3, 3, 2, 3)
    assert bool((attention > 0).all())
    torch.testing.assert_close(attention.sum((2, 3)), torch.ones(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_and_has_no_gradient(kind: str, centred: bool) -> None:
    net, maps = network(kind, centred=centred), pictures(3)
    is_word = torch.arange(7) < LENGTHS[:, None]
    padded = torch.randint(1, 8, (3, 7))
    padded[is_word] = QUESTIONS[is_word[:, :4]]
    words: list[Tensor] = []
    net.embed.register_forward_hook(lambda *call: words.append(call[-1]))
    short, long = net(maps, QUESTIONS, LENGTHS), net(maps, padded, LENGTHS)
    torch.testing.assert_close(short, long)
    (gradient,) = torch.autograd.grad(long[0].square().sum() + long[1].square().sum(), words[1])
    assert torch.equal(gradient.abs().sum(2) > 0, is_word)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_questions_equals_one_by_one(kind: str) -> None:
    net, maps = network(kind), pictures(3)
    logits, attention = net(maps, QUESTIONS, LENGTHS)
    for row, length in enumerate(LENGTHS):
        rows = slice(row, row + 1)
        alone = net(maps[rows], QUESTIONS[rows, :length], LENGTHS[rows])
        torch.testing.assert_close((logits[rows], attention[rows]), alone)


@pytest.mark.parametrize("repeated", ["cnn", "embed", "cnn embed"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_maps_or_of_words_give_blocks_of_answers(kind: str, repeated: str) -> None:
    net, maps = network(kind), pictures(3)
    logits, attention = net(maps, QUESTIONS, LENGTHS)
    for name in repeated.split():
        net.get_submodule(name).register_forward_hook(
            lambda module, args, output: torch.cat([output, output])
        )
    repeats = net(maps, QUESTIONS, LENGTHS)
    expected = (torch.cat([logits, logits]), torch.cat([attention, attention]))
    torch.testing.assert_close(repeats, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    net = network(kind)
    maps = pictures(2).requires_grad_(True)
    words = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    tokens, lengths = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([2, 3])

    def run(maps: Tensor, words: Tensor) -> Any:
        hook = net.embed.register_forward_hook(lambda *call: words)
        try:
            return net(maps, tokens, lengths)
        finally:
            hook.remove()

    assert torch.autograd.gradcheck(run, (maps, words))


@pytest.mark.parametrize("kind", KINDS)
def test_the_attention_depends_on_the_question(kind: str) -> None:
    net, maps = network(kind), pictures()
    logits, attention = net(maps.repeat(3, 1, 1, 1), QUESTIONS, LENGTHS)
    for row, other in ((0, 1), (1, 2), (2, 0)):
        assert bool((attention[row] - attention[other]).abs().amax((1, 2)).gt(1e-3).all())
        assert not torch.allclose(logits[row], logits[other])


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_are_embedded_once_and_any_cnn_will_do(kind: str) -> None:
    net = network(kind, nn.Conv2d(3, 3, 3, stride=2))
    calls: list[Any] = []
    net.embed.register_forward_hook(lambda *call: calls.append(call))
    pixels = torch.rand(3, 3, 9, 11, dtype=torch.float64)
    logits, attention = net(pixels, QUESTIONS, LENGTHS)
    assert len(calls) == 1
    assert attention.shape == (3, 3, 4, 5)
    of_maps = network(kind)(net.cnn(pixels), QUESTIONS, LENGTHS)
    torch.testing.assert_close((logits, attention), of_maps)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ModelError, match="unknown kind of co-attention 'serial'; choose parallel or alternating"
    ):
        network("serial")
