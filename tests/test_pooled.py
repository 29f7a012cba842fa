"""The mean gradient at a map that linear layers read: as the whole gradient's mean, for less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mmcam import Target
from mmcam.capture import WAYS, capture
from mmcam.errors import ScoreError
from mmcam.plan import METHODS, Plan
from tests.operators import Operators

ROWS, TOKENS, CHANNELS, CLASSES = 2, 7, 4, 3


class Linear(nn.Linear):
    """One that gives something else than a product with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sin()


class Reading(nn.Module):
    """An encoder's tokens, the first of them a class token, and what a head makes of them."""

    def __init__(self, use: Callable[[Reading, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.use = nn.Linear(3, CHANNELS), use
        self.keys, self.values = nn.Linear(CHANNELS, 6), nn.Linear(CHANNELS, 5, bias=False)
        self.other, self.patched = Linear(CHANNELS, 5), nn.Linear(CHANNELS, 5)
        plain = self.patched.forward
        self.patched.forward = lambda x: plain(x).cos()  # type: ignore[method-assign]
        self.head = nn.LazyLinear(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.encoder(x)).tanh().flatten(1))


def keys_and_values(net: Reading, tokens: Tensor) -> Tensor:
    look = net.keys(tokens).sum(2).softmax(1)
    return look[:, None] @ net.values(tokens)


def twice(net: Reading, tokens: Tensor) -> Tensor:
    return net.values(tokens) * net.values(tokens).cumsum(1)


def beside_others(net: Reading, tokens: Tensor) -> Tensor:
    return torch.cat([net.values(tokens).exp(), tokens**2, net.other(tokens)], 2)


def written_on_before(net: Reading, tokens: Tensor) -> Tensor:
    return net.values(tokens.mul_(3)).exp()


def written_on_behind(net: Reading, tokens: Tensor) -> Tensor:
    return net.values(tokens).relu_() + F.relu(net.keys(tokens), inplace=True)[..., :5]


def through_changed_layers(net: Reading, tokens: Tensor) -> Tensor:
    return net.other(tokens) * net.patched(tokens)


def not_at_all(net: Reading, tokens: Tensor) -> Tensor:
    return tokens.exp() * tokens.cumsum(1)


USES: dict[Callable[[Reading, Tensor], Tensor], int] = {
    keys_and_values: 2,
    twice: 2,
    beside_others: 1,
    written_on_before: 0,
    written_on_behind: 2,
    through_changed_layers: 0,
    not_at_all: 0,
}
"""What is done with the tokens -> how many linear layers read them."""


def made(use: Callable[[Reading, Tensor], Tensor]) -> tuple[Reading, Tensor]:
    torch.manual_seed(7)
    net, x = Reading(use).double(), torch.randn(ROWS, TOKENS, 3).double()
    net(x)
    return net, x


def patches(tokens: Tensor) -> Tensor:
    """The mean over all tokens but the first."""
    return tokens[:, 1:].mean(1)


def gradients(net: Reading, x: Tensor, way: str, pools: Any) -> tuple[list[Tensor], int]:
    copies = CLASSES if way == "fan-out" else 1
    with capture(net, ["encoder"], copies=copies, pools=pools) as (recording, check):
        output = net(x)
        check()
        scores = recording.scores(output, [[Target.logit(k) for k in range(CLASSES)]] * ROWS)
        found = list(recording.gradients(scores, way=way, chunk=2))
        return [step["encoder"] for step in found], len(recording.pooled.readers)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", USES)
def test_is_the_mean_of_the_whole_gradient(
    use: Callable[[Reading, Tensor], Tensor], way: str
) -> None:
    net, x = made(use)
    whole, none = gradients(net, x, way, None)
    pooled, readers = gradients(net, x, way, {"encoder": patches})
    assert (none, readers) == (0, USES[use])
    assert len(whole) == len(pooled) == CLASSES
    for one, other in zip(whole, pooled, strict=True):
        assert one.shape == (ROWS, TOKENS, CHANNELS)
        assert other.any()
        assert_close(other, patches(one))


def test_hooks_are_gone_and_those_of_others_see_the_start_of_the_graph() -> None:
    net, x = made(keys_and_values)
    seen: list[Tensor] = []
    own = net.keys.register_forward_hook(lambda *call: seen.append(call[2]))
    gradients(net, x, "loop", {"encoder": patches})
    assert seen[0].requires_grad
    assert list(net.keys._forward_hooks) == [own.id]
    assert not net.values._forward_hooks


def test_a_layer_that_reads_can_be_explained_with_the_map_it_reads() -> None:
    net, x = made(keys_and_values)
    found = []
    for pools in ({}, {"encoder": patches, "values": patches}):
        with capture(net, ["encoder", "values"], pools=pools) as (recording, check):
            output = net(x)
            check()
            (step,) = recording.gradients(output[:, 1][None])
            found.append(step)
    for layer in ("encoder", "values"):
        assert_close(found[1][layer], patches(found[0][layer]))


def test_a_layer_that_a_score_does_not_move_is_no_fault_of_its_neighbour() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv1d(3, 4, 1), nn.Conv1d(3, 4, 1)
            self.read_one, self.read_other = nn.Linear(TOKENS, 2), nn.Linear(TOKENS, 2)

        def forward(self, x: Tensor) -> Tensor:
            one, other = self.read_one(self.one(x)), self.read_other(self.other(x))
            return torch.stack([0 * one.sum((1, 2)) + other.exp().sum((1, 2))], 1)

    torch.manual_seed(7)
    net, x = Two().double(), torch.randn(ROWS, 3, TOKENS).double()
    pools = dict.fromkeys(("one", "other"), lambda tensor: tensor.mean(1))
    with capture(net, ["one", "other"], pools=pools) as (recording, check):
        output = net(x)
        check()
        (step,) = recording.gradients(output[:, 0][None])
    assert not step["one"].any()
    assert step["other"].any()


def test_score_that_depends_on_the_class_token_alone() -> None:
    net, x = made(lambda net, tokens: net.values(tokens)[:, 0])
    with pytest.raises(ScoreError, match="through its class token alone"):
        gradients(net, x, "loop", {"encoder": patches})


def test_no_product_in_every_cell() -> None:
    net, x = made(keys_and_values)
    counts = []
    for pools in (None, {"encoder": patches}):
        with Operators() as operators:
            gradients(net, x, "loop", pools)
        counts.append(operators.ran.count(("mm", ROWS * TOKENS)))
    assert counts[0] - counts[1] == 2 * CLASSES


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
