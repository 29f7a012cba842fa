"""One forward recorded at any layers, and gradients of many scores, on awkward networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.utils import ModelOutput

import mmcam
from mmcam import Target
from mmcam.capture.layers import resolve
from mmcam.capture.recording import GRADIENT_STRATEGIES, capture
from mmcam.errors import LabelError, LayerError, ModelError, ScoreError


class Net(nn.Module):
    """Three stages and a head that is not linear, so that gradients vary over the grid."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)])
        self.act = nn.ReLU(inplace=in_place)
        self.head = nn.Sequential(nn.Conv2d(4, 5, 2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
        self.aux = nn.Conv2d(3, 4, 3)

    def trunk(self, x: Tensor) -> Tensor:
        for layer in (self.stem, *self.blocks):
            x = self.act(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def network(make: Callable[..., Net] = Net, **options: Any) -> Net:
    torch.manual_seed(5)
    net = make(**options).double()
    net(torch.zeros(1, 3, 9, 8).double())
    return net


def trace(net: nn.Module, x: Tensor, layer: str, label: int) -> tuple[Tensor, Tensor]:
    """Activation and gradient `[channel, *grid]` by an ordinary hook that keeps a copy."""
    kept: list[Tensor] = []

    def hook(*args: Any) -> Tensor:
        kept.append(args[2])
        return args[2].clone()

    handle = net.get_submodule(layer).register_forward_hook(hook)
    score = net(x)[0, label]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    return kept[0][0].detach(), gradient[0]


def hires(net: nn.Module, x: Tensor, layer: str, label: int = 0) -> Tensor:
    """A map to which every value of activation and gradient counts."""
    activation, gradient = trace(net, x, layer, label)
    return (activation * gradient).sum(0).relu()


@pytest.mark.parametrize(
    ("patterns", "layers"),
    [
        (["act"], ["act"]),
        (["head", "stem"], ["stem", "head"]),
        (["blocks.*"], ["blocks.0", "blocks.1"]),
        (["blocks.1", "blocks.*", "blocks.1"], ["blocks.0", "blocks.1"]),
        (["*"], ["stem", "blocks", "act", "head", "aux"]),
        (["h*d.*"], ["head.0", "head.1", "head.2", "head.3"]),
        (["*.0"], ["blocks.0", "head.0"]),
        (["act#2", "stem"], ["stem", "act#2"]),
    ],
)
def test_patterns_name_layers_in_the_models_order(patterns: list[str], layers: list[str]) -> None:
    assert resolve(network(), patterns) == layers


@pytest.mark.parametrize(
    "pattern", ["layer5", "block.1", "blocks.7", "head#x", "stem.", "st?m", ""]
)
def test_unknown_layer_is_named_with_its_nearest(pattern: str) -> None:
    with pytest.raises(LayerError) as error:
        resolve(network(), [pattern], "mynet")
    assert str(error.value).startswith(f"mynet has no layer '{pattern}'; nearest: ")
    assert str(error.value).endswith("`mmcam list layers --model MODEL` lists them")
    if pattern == "blocks.7":
        assert "nearest: blocks" in str(error.value)


def test_several_layers_from_one_forward_equal_one_by_one(wrapped: Callable[..., Any]) -> None:
    net = network()
    setup = wrapped(net)
    sample = setup.sample(9, 8)
    layers = ["stem", "blocks.*", "head.0"]
    setup.explain(sample, "hirescam", 0, layers)  # finds their layouts, once
    runs = []
    handle = net.register_forward_hook(lambda *args: runs.append(1))
    (together,) = setup.explain(sample, "hirescam", mmcam.Classes([0, 2]), layers)
    handle.remove()
    assert len(runs) == 1
    assert len(together) == 8
    for (_, label, layer), explanation in together.items():
        assert_close(explanation.cam, setup.cam(sample, "hirescam", int(label), layer))
        assert_close(explanation.cam, hires(net, setup.pixels(sample), layer, int(label)))


def gradients(
    net: nn.Module,
    x: Tensor,
    layers: Sequence[str],
    targets: Sequence[Sequence[Target]],
    strategy: str,
) -> list[dict[str, Tensor]]:
    with capture(net, layers) as (recording, check):
        output = net(x)
        check()
        scores = recording.scores(output, targets)
        return list(recording.gradients(scores, strategy=strategy, chunk=2))


@pytest.mark.parametrize("strategy", GRADIENT_STRATEGIES)
def test_the_strategies_for_many_gradients_agree(strategy: str) -> None:
    net, x = network(), torch.rand(2, 3, 9, 8).double()
    targets = [[Target.logit(k) for k in (2, 0, 1)]] * 2
    steps = gradients(net, x, ["stem", "blocks.1"], targets, strategy)
    assert len(steps) == 3
    for slot, label in enumerate((2, 0, 1)):
        for layer in ("stem", "blocks.1"):
            for row in range(2):
                expected = trace(net, x[row : row + 1], layer, label)[1]
                assert_close(steps[slot][layer][row], expected)


@pytest.mark.parametrize("strategy", GRADIENT_STRATEGIES)
def test_samples_may_have_targets_of_their_own_number(strategy: str) -> None:
    net, x = network(), torch.rand(2, 3, 9, 8).double()
    targets = [[Target.logit(1)], [Target.logit(k) for k in (0, 2, 1)]]
    steps = gradients(net, x, ["stem"], targets, strategy)
    assert_close(steps[0]["stem"][0], trace(net, x[:1], "stem", 1)[1])
    for slot, label in enumerate((0, 2, 1)):
        assert_close(steps[slot]["stem"][1], trace(net, x[1:], "stem", label)[1])
    assert not steps[1]["stem"][0].any()


def test_activation_is_one_row_a_sample() -> None:
    net, x = network(), torch.rand(2, 3, 9, 8).double()
    with capture(net, ["stem"]) as (recording, check):
        net(x)
        check()
    assert_close(recording.activation("stem"), net.stem(x).detach())


def test_batch_equals_single_runs(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(network(), "stem")
    samples = [setup.sample(9, 8, seed=seed) for seed in range(3)]
    label_rows = [[0], [2, 1, 0], [1, 2]]
    adapter = setup.adapter
    batch = [[Target.logit(k) for k in row] for row in label_rows]
    adapter.targets = lambda output, task: batch  # as an adapter of captions would
    methods = ["gradcam", "gradcam++softmax", "hirescam", "guided-layercam", "ablationcam"]
    results = setup.explain(samples, methods, mmcam.Classes())
    del adapter.targets
    for sample, row, labels in zip(samples, results, label_rows, strict=True):
        assert [label for method, label, _ in row if method == "gradcam"] == list(map(str, labels))
        for (method, label, _), explanation in row.items():
            (alone,) = setup.explain(sample, method, int(label))
            single = alone[method, label, "stem"]
            assert_close(explanation.cam, single.cam)
            assert explanation.score == pytest.approx(single.score)
            assert explanation.probability == pytest.approx(single.probability)


def test_top_classes_are_each_samples_own(wrapped: Callable[..., Any]) -> None:
    net = network()
    setup = wrapped(net, "stem")
    samples = [setup.sample(9, 8, seed=seed) for seed in range(4)]
    results = setup.explain(samples, "gradcam", mmcam.Classes(top=2))
    tops = net(setup.pixels(*samples)).topk(2).indices.tolist()
    assert [[int(label) for _, label, _ in row] for row in results] == tops
    with pytest.raises(LabelError, match="3 classes"):
        setup.explain(samples, "gradcam", mmcam.Classes(top=4))


@pytest.mark.parametrize("layer", ["stem", "blocks.0", "act#0", "act#2"])
def test_in_place_relu_behind_the_layer_does_not_reach_back(
    layer: str, wrapped: Callable[..., Any]
) -> None:
    clean, in_place = network(), network(in_place=True)
    sample = wrapped(clean).sample(9, 8)
    expected = wrapped(clean, layer).cam(sample, "hirescam", 1)
    assert expected.any()
    assert_close(wrapped(in_place, layer).cam(sample, "hirescam", 1), expected)
    if layer == "stem":
        assert_close(expected, hires(clean, wrapped(clean).pixels(sample), layer, 1))


class Pair(NamedTuple):
    pooled: Tensor
    maps: Tensor


@dataclass
class Output(ModelOutput):
    pooled: Tensor | None = None
    maps: Tensor | None = None


SHELLS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda x: (x, "size"), lambda out: out[0]),
    "second of a tuple": (lambda x: (x.mean((2, 3)), None, x), lambda out: out[2]),
    "list": (lambda x: [x.shape, x], lambda out: out[1]),
    "nested": (lambda x: (("no", x), 3), lambda out: out[0][1]),
    "namedtuple": (lambda x: Pair(x.mean((2, 3)), x), lambda out: out.maps),
    "dict": (lambda x: {"pooled": x.mean((2, 3)), "maps": x}, lambda out: out["maps"]),
    "numbered dict": (lambda x: {0: x}, lambda out: out[0]),
    "ordered": (lambda x: OrderedDict(maps=x), lambda out: out["maps"]),
    "ModelOutput": (lambda x: Output(pooled=x.mean((2, 3)), maps=x), lambda out: out.maps),
}


class Shell(nn.Module):
    def __init__(self, inner: nn.Module, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.pack = inner, pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.inner(x))


class Packed(Net):
    """The stem hands its map on inside something else."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        pack, self.unpack = SHELLS[kind]
        self.stem = Shell(self.stem, pack)

    def trunk(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        assert type(out) is type(self.stem.pack(torch.zeros(1, 1, 1, 1)))
        return self.act(self.blocks[0](self.unpack(out)))


@pytest.mark.parametrize("kind", SHELLS)
def test_map_inside_another_output_is_found(kind: str, wrapped: Callable[..., Any]) -> None:
    net = network(Packed, kind=kind)
    setup = wrapped(net, "stem")
    sample = setup.sample(9, 8)
    expected = hires(net, setup.pixels(sample), "stem.inner")
    assert expected.any()
    assert_close(setup.cam(sample, "hirescam", 0), expected)


def test_module_that_runs_often_must_be_named_by_its_call(wrapped: Callable[..., Any]) -> None:
    net = network()
    setup = wrapped(net)
    sample = setup.sample(9, 8)
    with pytest.raises(LayerError, match=r"'act' ran 3 times in one forward.*'act#2' is the last"):
        setup.cam(sample, "gradcam", 0, "act")
    with pytest.raises(LayerError, match="'act' ran 3 times in the forward, so there is no call 3"):
        setup.cam(sample, "gradcam", 0, "act#3")
    (maps,) = setup.explain(sample, "hirescam", 0, ["act#0", "act#1", "act#2"])
    x = setup.pixels(sample)
    for call, behind in [(0, net.blocks[0]), (1, net.blocks[1]), (2, net.head[0])]:
        kept: list[Tensor] = []
        handle = behind.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        score = net(x)[0, 0]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept)
        expected = (gradient * kept[0]).sum(1).relu()[0].detach()
        assert_close(maps["hirescam", "0", f"act#{call}"].cam, expected)


def test_layer_that_does_not_run_is_said_so(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(network(), "aux")
    with pytest.raises(LayerError, match="layer 'aux' did not run in the forward"):
        setup.cam(setup.sample(9, 8), "gradcam", 0)


@pytest.mark.parametrize("layer", ["head.2", "head.3", "head"])
def test_layer_without_a_grid_is_refused(layer: str, wrapped: Callable[..., Any]) -> None:
    setup = wrapped(network(), layer)
    with pytest.raises(LayerError, match=f"layer '{layer}' returns a Tensor of shape .*no grid"):
        setup.cam(setup.sample(9, 8), "gradcam", 0)


def test_score_that_does_not_depend_on_the_layer_is_refused(wrapped: Callable[..., Any]) -> None:
    class Beside(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.aux(x)
            return super().forward(x)

    setup = wrapped(network(Beside))
    sample = setup.sample(9, 8)
    for layers in (["aux"], ["stem", "aux"]):
        with pytest.raises(ScoreError, match="score does not depend on layer 'aux'"):
            setup.explain(sample, "gradcam", 0, layers)
    constant = Target(label="constant", score=lambda logits: logits.detach()[:, 0])
    with pytest.raises(ScoreError, match="score does not depend on layer 'stem'"):
        setup.cam(sample, "gradcam", constant, "stem")


@pytest.mark.parametrize("task", [[], "dog", ["dog"], None])
def test_task_that_asks_nothing_is_refused(task: Any, wrapped: Callable[..., Any]) -> None:
    setup = wrapped(network(), "stem")
    with pytest.raises(mmcam.MmcamError, match="Classes"):
        setup.cam(setup.sample(9, 8), "gradcam", task)


def test_a_method_that_ignores_the_score_has_no_counterfactual(wrapped) -> None:
    setup = wrapped(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)), layer="0")
    with pytest.raises(mmcam.MmcamError, match=r"'eigencam' does not depend on the score"):
        mmcam.explain(
            setup.adapter,
            setup.sample(6, 6),
            mmcam.Classes([0]),
            method="eigencam",
            counterfactual=True,
        )


class _Unbatched(torch.autograd.Function):
    """An operation whose backward pass cannot run for several gradients at once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (2.0 if float(gradient.sum()) == float(gradient.sum()) else 0.0)


def test_scores_without_a_batched_backward_pass_have_one_pass_each() -> None:
    net, x = network(), torch.rand(2, 3, 9, 8).double()
    handle = net.blocks[1].register_forward_hook(lambda m, args, y: _Unbatched.apply(y))
    targets = [[Target.logit(k) for k in (2, 0, 1)]] * 2
    try:
        with pytest.raises(ModelError, match="backward pass failed"):
            gradients(net, x, ["stem"], targets, "batched")
        found = gradients(net, x, ["stem"], targets, "auto")
        expected = gradients(net, x, ["stem"], targets, "loop")
    finally:
        handle.remove()
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert_close(one["stem"], other["stem"])
