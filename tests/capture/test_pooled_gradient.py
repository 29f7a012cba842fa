"""The pooled gradient at a map that linear layers read equals the mean of the full gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mmcam import Target
from mmcam.capture.recording import GRADIENT_STRATEGIES, capture
from mmcam.errors import ScoreError
from mmcam.methods import METHODS
from mmcam.methods.plan import Plan
from tests.operators import Operators

ROWS, TOKENS, CHANNELS, CLASSES = 2, 7, 4, 3


class Linear(nn.Linear):
    """A subclass whose output is not a product with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sin()


class FixedProduct(nn.Module):
    """A dot product with a constant vector: a linear layer that is not an `nn.Linear`."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.numbers).sum(1, keepdim=True)


class TokenReader(nn.Module):
    """An encoder's tokens, the first of them a class token, and a head that reads them."""

    def __init__(self, use: Callable[[TokenReader, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.use = nn.Linear(3, CHANNELS), use
        self.keys, self.values = nn.Linear(CHANNELS, 6), nn.Linear(CHANNELS, 5, bias=False)
        self.other, self.patched = Linear(CHANNELS, 5), nn.Linear(CHANNELS, 5)
        plain = self.patched.forward
        self.patched.forward = lambda x: plain(x).cos()  # type: ignore[method-assign]
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.encoder(x)).tanh().flatten(1))


def keys_and_values(net: TokenReader, tokens: Tensor) -> Tensor:
    look = net.keys(tokens).sum(2).softmax(1)
    return look[:, None] @ net.values(tokens)


def twice(net: TokenReader, tokens: Tensor) -> Tensor:
    return net.values(tokens) * net.values(tokens).cumsum(1)


def beside_others(net: TokenReader, tokens: Tensor) -> Tensor:
    return torch.cat([net.values(tokens).exp(), tokens**2, net.other(tokens)], 2)


def written_on_before(net: TokenReader, tokens: Tensor) -> Tensor:
    return net.values(tokens.mul_(3)).exp()


def written_on_behind(net: TokenReader, tokens: Tensor) -> Tensor:
    return net.values(tokens).relu_() + F.relu(net.keys(tokens), inplace=True)[..., :5]


def through_changed_layers(net: TokenReader, tokens: Tensor) -> Tensor:
    return net.other(tokens) * net.patched(tokens)


def not_at_all(net: TokenReader, tokens: Tensor) -> Tensor:
    return tokens.exp() * tokens.cumsum(1)


USES: dict[Callable[[TokenReader, Tensor], Tensor], int] = {
    keys_and_values: 2,
    twice: 2,
    beside_others: 1,
    written_on_before: 0,
    written_on_behind: 2,
    through_changed_layers: 0,
    not_at_all: 0,
}
"""How the head reads the tokens -> the number of linear layers that read them."""


def network(use: Callable[[TokenReader, Tensor], Tensor]) -> tuple[TokenReader, Tensor]:
    torch.manual_seed(7)
    net, x = TokenReader(use).double(), torch.randn(ROWS, TOKENS, 3).double()
    net(x)
    return net, x


def patches(tokens: Tensor) -> Tensor:
    """All tokens but the first as a grid of one axis."""
    return tokens[:, 1:].movedim(-1, 1)


def mean(tokens: Tensor) -> Tensor:
    return patches(tokens).mean(2)


def identity(maps: Tensor) -> Tensor:
    return maps


def gradients(net: TokenReader, x: Tensor, strategy: str, to_grid: Any) -> tuple[list[Tensor], int]:
    with capture(net, ["encoder"], to_grid=to_grid) as (recording, check):
        output = net(x)
        check()
        scores = recording.scores(output, [[Target.logit(k) for k in range(CLASSES)]] * ROWS)
        steps = list(recording.gradients(scores, strategy=strategy, chunk=2))
        return [step["encoder"] for step in steps], len(recording.pooled.readers)


@pytest.mark.parametrize("strategy", GRADIENT_STRATEGIES)
@pytest.mark.parametrize("use", USES)
def test_is_the_mean_of_the_whole_gradient(
    use: Callable[[TokenReader, Tensor], Tensor], strategy: str
) -> None:
    net, x = network(use)
    full, full_readers = gradients(net, x, strategy, None)
    pooled, readers = gradients(net, x, strategy, {"encoder": patches})
    assert (full_readers, readers) == (0, USES[use])
    assert len(full) == len(pooled) == CLASSES
    for gradient, mean_gradient in zip(full, pooled, strict=True):
        assert gradient.shape == (ROWS, TOKENS, CHANNELS)
        assert mean_gradient.any()
        assert_close(mean_gradient, mean(gradient))


class MapReader(nn.Module):
    """A CNN's map of 4 channels, and the operations before the linear layer that reads it."""

    def __init__(self, use: Callable[[Tensor], Tensor], axes: int = 2) -> None:
        super().__init__()
        self.cnn = (nn.Conv2d if axes == 2 else nn.Conv3d)(3, CHANNELS, 1)
        self.pool = nn.MaxPool2d(2, 1) if axes == 2 else nn.MaxPool3d(2, 1)
        self.use, self.fc6, self.head = use, nn.LazyLinear(5), nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc6(self.use(self.pool(self.cnn(x)))).tanh().flatten(1))


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def as_vgg(x: Tensor) -> Tensor:
    return F.dropout(F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2, 1), (2, 3)).flatten(1), 0.5, False)


def largest(x: Tensor) -> Tensor:
    return F.adaptive_max_pool2d(F.max_pool2d(x, 2, 1, dilation=2), 2).reshape(len(x), -1)


def by_column(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, (1, 3)).contiguous().view(len(x), -1)


def channels_last(x: Tensor) -> Tensor:
    return F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 2).flatten(1)


def as_c3d(x: Tensor) -> Tensor:
    return F.max_pool3d(x, (1, 2, 2), (1, 2, 2), (0, 1, 1)).flatten(1)


def averaged_3d(x: Tensor) -> Tensor:
    return F.adaptive_max_pool3d(F.adaptive_avg_pool3d(x, (2, 3, 4)), 2).flatten(1)


VECTORS: dict[Callable[[Tensor], Tensor], int] = {
    flat: 2,
    as_vgg: 2,
    largest: 2,
    by_column: 2,
    channels_last: 2,
    as_c3d: 3,
    averaged_3d: 3,
}
"""Operations that flatten a map -> the number of axes of its grid."""

OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "rectified": lambda x: x.relu().flatten(1),
    "padded": lambda x: F.avg_pool2d(x, 3, 2, 1).flatten(1),
    "turned": lambda x: x.movedim(1, -1).flatten(1),
    "cut": lambda x: x[:, :, 1:].flatten(1),
    "rows of the map": lambda x: x,
    "rows of the map as vectors": lambda x: x.flatten(0, 2),
    "channels seen as rows": lambda x: F.max_pool2d(x.flatten(2), 2).flatten(1),
    "channels seen as time": lambda x: F.max_pool3d(x, (2, 1, 1)).flatten(1),
    "cells seen as channels": lambda x: F.max_pool2d(x.view(len(x), -1, 4, 4), 2).flatten(1),
    "samples together": lambda x: x.view(1, -1),
}
"""Operations on a map after which the linear layer is not a reader."""


def map_gradients(
    use: Callable[[Tensor], Tensor], axes: int, layers: Sequence[str], to_grid: Any, strategy: str
) -> tuple[list[dict[str, Tensor]], int]:
    torch.manual_seed(7)
    net, x = MapReader(use, axes).double(), torch.randn(ROWS, 3, *(9, 9, 9)[:axes]).double()
    net(x)
    with capture(net, layers, to_grid=to_grid) as (recording, check):
        output = net(x)
        check()
        gradients = list(recording.gradients(output.sum(0)[:, None], strategy=strategy))
        return gradients, len(recording.pooled.readers)


@pytest.mark.parametrize("strategy", GRADIENT_STRATEGIES)
@pytest.mark.parametrize("layer", ["cnn", "pool"])
@pytest.mark.parametrize("use", VECTORS)
def test_vector_of_all_cells(use: Callable[[Tensor], Tensor], layer: str, strategy: str) -> None:
    axes = VECTORS[use]
    full, _ = map_gradients(use, axes, [layer], None, strategy)
    pooled, readers = map_gradients(use, axes, [layer], {layer: identity}, strategy)
    assert readers == 1
    for gradient, mean_gradient in zip(full, pooled, strict=True):
        assert mean_gradient[layer].any()
        assert_close(mean_gradient[layer], gradient[layer].flatten(2).mean(2))


@pytest.mark.parametrize("use", OTHERS.values(), ids=OTHERS)
def test_what_is_no_vector_of_all_cells(use: Callable[[Tensor], Tensor]) -> None:
    full, _ = map_gradients(use, 2, ["pool"], None, "loop")
    pooled, readers = map_gradients(use, 2, ["pool"], {"pool": identity}, "loop")
    assert readers == 0
    for gradient, mean_gradient in zip(full, pooled, strict=True):
        assert_close(mean_gradient["pool"], gradient["pool"].flatten(2).mean(2))


def test_map_between_the_start_and_the_vector_has_its_gradient() -> None:
    full, _ = map_gradients(flat, 2, ["cnn", "pool"], None, "loop")
    pooled, readers = map_gradients(
        flat, 2, ["cnn", "pool"], dict.fromkeys(("cnn", "pool"), identity), "loop"
    )
    assert readers == 0
    for layer in ("cnn", "pool"):
        assert_close(pooled[0][layer], full[0][layer].flatten(2).mean(2))


@pytest.mark.parametrize("linear", [True, False])
def test_gradient_whose_mean_is_nothing_is_no_error(linear: bool) -> None:
    """If half the cells are evidence for a class and half against it, all weights are zero."""
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(CHANNELS)
    read = nn.Linear(4 * CHANNELS, 1, bias=False)
    with torch.no_grad():
        read.weight.copy_(signs)
    net = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 1), nn.Flatten(), read if linear else FixedProduct(signs)
    )
    with capture(net, ["0"], to_grid={"0": identity}) as (recording, check):
        output = net(torch.randn(ROWS, 3, 2, 2))
        check()
        (step,) = recording.gradients(output[:, 0][None])
    assert len(recording.pooled.readers) == linear
    assert_close(step["0"], torch.zeros(ROWS, CHANNELS))


def test_narrow_weights_are_summed_in_single_precision() -> None:
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.Flatten(), nn.Linear(4096 * CHANNELS, 1))
    with torch.no_grad():
        net[2].weight.fill_(1.0)
    with capture(net.bfloat16(), ["0"], to_grid={"0": identity}) as (recording, check):
        output = net(torch.randn(1, 3, 64, 64).bfloat16())
        check()
        (step,) = recording.gradients(output[:, 0][None])
    assert_close(step["0"], torch.ones(1, CHANNELS), rtol=0, atol=0)


def test_hooks_are_gone_and_those_of_others_see_the_start_of_the_graph() -> None:
    net, x = network(keys_and_values)
    outputs: list[Tensor] = []
    handle = net.keys.register_forward_hook(lambda *call: outputs.append(call[2]))
    gradients(net, x, "loop", {"encoder": patches})
    assert outputs[0].requires_grad
    assert list(net.keys._forward_hooks) == [handle.id]
    assert not net.values._forward_hooks


def test_a_layer_that_reads_can_be_explained_with_the_map_it_reads() -> None:
    net, x = network(keys_and_values)
    steps = []
    for to_grid in ({}, {"encoder": patches, "values": patches}):
        with capture(net, ["encoder", "values"], to_grid=to_grid) as (recording, check):
            output = net(x)
            check()
            (step,) = recording.gradients(output[:, 1][None])
            steps.append(step)
    for layer in ("encoder", "values"):
        assert_close(steps[1][layer], mean(steps[0][layer]))


def test_a_layer_that_a_score_does_not_move_is_no_fault_of_its_neighbour() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv1d(3, 4, 1), nn.Conv1d(3, 4, 1)
            self.read_one, self.read_other = nn.Linear(TOKENS, 2), nn.Linear(TOKENS, 2)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.read_one(self.one(x)), self.read_other(self.other(x))
            return torch.stack([0 * first.sum((1, 2)) + second.exp().sum((1, 2))], 1)

    torch.manual_seed(7)
    net, x = Two().double(), torch.randn(ROWS, 3, TOKENS).double()
    to_grid = dict.fromkeys(("one", "other"), lambda tensor: tensor.movedim(-1, 1))
    with capture(net, ["one", "other"], to_grid=to_grid) as (recording, check):
        output = net(x)
        check()
        (step,) = recording.gradients(output[:, 0][None])
    assert not step["one"].any()
    assert step["other"].any()


def test_score_that_depends_on_the_class_token_alone() -> None:
    net, x = network(lambda net, tokens: net.values(tokens)[:, 0])
    with pytest.raises(ScoreError, match="through its class token alone"):
        gradients(net, x, "loop", {"encoder": patches})


def test_no_product_in_every_cell() -> None:
    net, x = network(keys_and_values)
    counts = []
    for to_grid in (None, {"encoder": patches}):
        with Operators() as operators:
            gradients(net, x, "loop", to_grid)
        counts.append(operators.ran.count(("mm", ROWS * TOKENS)))
    assert counts[0] - counts[1] == 2 * CLASSES


def test_a_vectors_weights_are_read_once_for_all_scores() -> None:
    features = 11
    read = nn.Linear(36 * CHANNELS, features)
    net = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.Flatten(), read, nn.Linear(features, CLASSES))
    with capture(net, ["0"], to_grid={"0": identity}) as (recording, check):
        output = net(torch.randn(ROWS, 3, 6, 6))
        check()
        with Operators() as operators:
            steps = list(recording.gradients(output.T))
    assert len(steps) == CLASSES
    assert operators.ran.count(("sum", features)) == 1


@pytest.mark.parametrize("method", ["gradcam", "gradcam-signed", "activation", "eigencam"])
def test_methods_that_need_no_more_than_the_mean(method: str, wrapped: Callable[..., Any]) -> None:
    torch.manual_seed(7)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(2), nn.Linear(42, 5), nn.Tanh(), nn.Flatten()
    ).append(nn.Linear(20, 3))
    setup = wrapped(net.double(), "0")
    sample = setup.sample(9, 8)
    alone = setup.cam(sample, method, 1)
    (both,) = setup.explain(sample, [method, "hirescam"], 1)
    assert alone.any()
    assert_close(alone, next(e.cam for (name, *_), e in both.items() if name == method))


def test_others_need_more() -> None:
    pooled = {name for name, method in METHODS.items() if method.pooled}
    assert {"gradcam", "gradcam-signed"} < pooled
    assert not pooled & {"cam", "gradcam++", "hirescam", "layercam", "xgradcam", "gradcam-max"}
    assert Plan.of(["gradcam"], False).pooled
    assert not Plan.of(["gradcam", "layercam"], False).pooled
