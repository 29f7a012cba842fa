"""Guided backpropagation and deconvolution for every way to write a ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import GuidedBackprop
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.capture.relu_rules import ReluRule
from mmcam.errors import MethodError
from tests.operators import Operators

LABEL = 1
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradient": lambda gradient, open_: torch.where(open_, gradient, 0),
    "guided": lambda gradient, open_: torch.where(open_ & (gradient > 0), gradient, 0),
    "deconv": lambda gradient, open_: torch.where(gradient > 0, gradient, 0),
}
"""Method -> (gradient at the output, where x > 0) -> gradient at the input."""


def discarding(change: Callable[[Tensor], Any]) -> Callable[[], Callable[[Tensor], Tensor]]:
    """An activation that works in place and whose return value is ignored."""

    def act(x: Tensor) -> Tensor:
        change(x)
        return x

    return lambda: act


REUSED, REUSED_IN_PLACE = nn.ReLU(), nn.ReLU(inplace=True)
RELUS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "nn.ReLU": nn.ReLU,
    "nn.ReLU reused": lambda: REUSED,
    "nn.ReLU in place": lambda: nn.ReLU(inplace=True),
    "nn.ReLU in place reused": lambda: REUSED_IN_PLACE,
    "F.relu": lambda: F.relu,
    "F.relu in place": lambda: lambda x: F.relu(x, inplace=True),
    "F.relu in place by position": lambda: lambda x: F.relu(x, True),
    "F.relu by name": lambda: lambda x: F.relu(input=x),
    "F.relu_": lambda: F.relu_,
    "torch.relu": lambda: torch.relu,
    "torch.relu_": lambda: torch.relu_,
    "Tensor.relu": lambda: lambda x: x.relu(),
    "Tensor.relu_": lambda: lambda x: x.relu_(),
    "F.relu in place, discarded": discarding(lambda x: F.relu(x, inplace=True)),
    "torch.relu_, discarded": discarding(torch.relu_),
    "Tensor.relu_, discarded": discarding(lambda x: x.relu_()),
    "on a view, discarded": discarding(lambda x: x[:, :].relu_()),
    "F.threshold": lambda: lambda x: F.threshold(x, 0.0, 0.0),
    "F.threshold in place on a view": discarding(lambda x: F.threshold(x[:], 0.0, 0.0, True)),
    "nn.Threshold": lambda: nn.Threshold(0, 0),
}
RELU6S: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "nn.ReLU6": nn.ReLU6,
    "nn.ReLU6 in place": lambda: nn.ReLU6(inplace=True),
    "F.relu6": lambda: F.relu6,
    "F.relu6 in place": lambda: lambda x: F.relu6(x, inplace=True),
    "F.relu6, discarded": discarding(lambda x: F.relu6(x, inplace=True)),
    "F.hardtanh": lambda: lambda x: F.hardtanh(x, 0.0, 6.0),
    "F.hardtanh by name": lambda: lambda x: F.hardtanh(x, min_val=0.0, max_val=6.0, inplace=True),
    "F.hardtanh_": lambda: lambda x: F.hardtanh_(x, 0.0, 6.0),
    "nn.Hardtanh": lambda: nn.Hardtanh(0.0, 6.0),
    "F.relu6 on a view, discarded": discarding(lambda x: F.relu6(x.view(-1), inplace=True)),
}


class Net(nn.Module):
    """Two convolutions with activations and a linear head, with fixed weights."""

    def __init__(self, make: Callable[[], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3, stride=2)
        self.fc = nn.Linear(5 * 3 * 4, 3)
        for parameter in self.parameters():
            parameter.data.mul_(15)  # beyond the ceiling of a ReLU6 too
        self.act1, self.act2 = make(), make()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.conv1(x))
        return self.fc(self.act2(self.conv2(x)).flatten(1))


def by_hand(net: Net, x: Tensor, rule: str, ceiling: float) -> Tensor:
    """The gradient of the label's score at the pixels, every step of the backward written out."""
    hand_down = RULES[rule]
    z1 = F.conv2d(x, net.conv1.weight, net.conv1.bias)
    z2 = F.conv2d(z1.clamp(0, ceiling), net.conv2.weight, net.conv2.bias, stride=2)
    gradient = net.fc.weight[LABEL].view(1, *z2.shape[1:])
    gradient = hand_down(gradient, (z2 > 0) & (z2 < ceiling))
    gradient = F.conv_transpose2d(gradient, net.conv2.weight, stride=2)
    gradient = hand_down(gradient, (z1 > 0) & (z1 < ceiling))
    return F.conv_transpose2d(gradient, net.conv1.weight)[0].detach()


class Ruled(torch.autograd.Function):
    """A ReLU with a backward rule, by a custom autograd function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rule = rule
        return x * (x > 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return RULES[ctx.rule](gradients[0], x > 0), None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", [*RELUS, *RELU6S])
def test_rule_holds_for_every_form(form: str, rule: str, wrapped: Callable[..., Any]) -> None:
    net = Net((RELUS | RELU6S)[form]).double()
    setup = wrapped(net, "conv2")
    sample = setup.sample(9, 11)
    ceiling = 6.0 if form in RELU6S else torch.inf
    expected = by_hand(net, setup.pixels(sample), rule, ceiling)
    assert expected.any()
    assert_close(setup.cam(sample, rule, LABEL), expected)


def test_the_three_rules_differ() -> None:
    net = Net(nn.ReLU).double()
    x = torch.rand(1, 3, 9, 11).double()
    maps = [by_hand(net, x, rule, 6.0) for rule in RULES] + [by_hand(net, x, "guided", torch.inf)]
    for i, cam in enumerate(maps):
        assert all(not torch.allclose(cam, earlier) for earlier in maps[:i])


def test_in_place_relu_on_a_part_of_a_tensor(wrapped: Callable[..., Any]) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x[:, :2].relu_()
            return self.fc(x.flatten(2).mean(2))

    net = Half().double()
    setup = wrapped(net, "conv")
    sample = setup.sample(6, 6)
    x = setup.pixels(sample)
    gradient = (net.fc.weight[LABEL] / 16).view(1, 4, 1, 1).expand(1, 4, 4, 4)
    half = RULES["guided"](gradient, net.conv(x) > 0)
    gradient = torch.cat([half[:, :2], gradient[:, 2:]], 1)
    expected = F.conv_transpose2d(gradient, net.conv.weight)[0].detach()
    assert_close(setup.cam(sample, "guided", LABEL), expected)


@pytest.mark.parametrize(
    "smooth",
    [nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Hardtanh],
)
def test_model_without_relus_has_no_guided_map(
    smooth: Callable[[], nn.Module], wrapped: Callable[..., Any]
) -> None:
    setup = wrapped(Net(smooth).double(), "conv2", name="smoothie")
    sample = setup.sample(9, 11)
    assert setup.cam(sample, "gradient", LABEL).any()
    for method in ("guided", "deconv", "guided-gradcam", "gradcam-guided-relu"):
        with pytest.raises(MethodError, match=r"smoothie ran none.*use 'gradient'"):
            setup.cam(sample, method, LABEL)


def test_guided_grad_cam_is_the_product(wrapped_evenly: Callable[..., Any]) -> None:
    setup = wrapped_evenly(Net(nn.ReLU).double(), "conv1")
    sample = setup.sample(9, 11)
    enlarged = F.interpolate(
        setup.cam(sample, "gradcam++", LABEL)[None, None],
        (9, 11),
        mode="bilinear",
        align_corners=False,
    )[0]
    for factor in ("guided", "deconv"):
        product = setup.cam(sample, f"{factor}-gradcam++", LABEL)
        assert product.any()
        assert_close(product, enlarged * setup.cam(sample, factor, LABEL))


def test_rules_asked_together_do_not_mix(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(Net(lambda: F.relu).double(), "conv1")
    sample = setup.sample(9, 11)
    methods = [
        *("guided", "gradcam", "deconv", "gradient", "gradcam-deconv-relu"),
        *("guided-hirescam", "gradcam-guided-relu", "deconv-gradcam", "gradcam++softmax"),
    ]
    (together,) = setup.explain(sample, methods, mmcam.Classes([LABEL, 0]))
    assert len(together) == 2 * len(methods)
    for (method, label, _), explanation in together.items():
        assert_close(explanation.cam, setup.cam(sample, method, int(label)))
    assert sum(explanation.cam.any().item() for explanation in together.values()) > len(methods)


def test_guided_gradcam_is_one_forward_and_one_backward(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(Net(nn.ReLU), "conv2")
    sample = setup.sample(9, 11)
    setup.explain(sample, ["gradcam"], LABEL)  # finds the layer's layout, once
    with Operators() as operators:
        setup.explain(sample, ["guided-gradcam"], LABEL)
    names = [name for name, _ in operators.ran]
    assert names.count("convolution") == 2
    assert names.count("convolution_backward") == 2


def test_rule_holds_inside_its_context_alone() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    above = torch.tensor([-1.0, 1.0])
    y = F.relu(x)
    relu_rule = ReluRule(y, "guided")
    for _ in range(2):
        with relu_rule.active():
            (inside,) = torch.autograd.grad(y, x, above, retain_graph=True)
        (outside,) = torch.autograd.grad(y, x, above, retain_graph=True)
        assert_close(inside, torch.tensor([0.0, 1.0]))
        assert_close(outside, above)


class Stops(torch.autograd.Function):
    """A function whose backward returns no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        return None


def test_relu_that_no_gradient_reaches() -> None:
    x = torch.ones(3, requires_grad=True)
    scores = (Stops.apply(F.relu(x)) + F.relu(-3 * x + 4)).sum()
    with ReluRule(scores, "guided").active():
        assert_close(torch.autograd.grad(scores, x)[0], torch.full((3,), -3.0))


@pytest.mark.parametrize("rule", ["guided", "deconv"])
@pytest.mark.parametrize("batched", [False, True])
def test_relus_that_hide_beside_those_that_do_not(rule: str, batched: bool) -> None:
    """Other in-place operations on a view keep their ordinary gradient."""
    x = torch.randn(5, 8, requires_grad=True)

    def run(relu_: Callable[[Tensor], Any], relu: Callable[[Tensor], Tensor]) -> Tensor:
        y = 3 * x
        y[:, 1:4] *= -2
        relu_(y[:, 2:6])
        y = y + F.pad(relu(y[:, :3]), (5, 0))
        return y @ torch.linspace(-1, 1, 24).view(8, 3)

    def by_hand_(part: Tensor) -> None:
        part.copy_(Ruled.apply(part.clone(), rule))

    scores = run(Tensor.relu_, F.relu).sum(0)
    relu_rule = ReluRule(scores, rule)
    units = torch.eye(3)
    with relu_rule.active():
        gradients = (
            torch.autograd.grad(scores, x, units, is_grads_batched=True)[0]
            if batched
            else torch.stack(
                [torch.autograd.grad(scores, x, unit, retain_graph=True)[0] for unit in units]
            )
        )
    expected = run(by_hand_, lambda part: Ruled.apply(part, rule)).sum(0)
    for gradient, score in zip(gradients, expected, strict=True):
        assert_close(gradient, torch.autograd.grad(score, x, retain_graph=True)[0])
    assert relu_rule.has_relus


class WritesOnParts(nn.Module):
    """An activation other than ReLU, in place on a view of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        x = 1 * x
        F.hardtanh(x[:, :2], -1.0, 1.0, inplace=True)
        return F.gelu(x)


def test_no_relu_is_found_where_one_might_hide(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(Net(WritesOnParts).double(), "conv1")
    sample = setup.sample(9, 11)
    for method in ("guided", "gradcam-guided-relu"):
        with pytest.raises(MethodError, match="ran none"):
            setup.cam(sample, method, LABEL)


@pytest.mark.parametrize("relu", [nn.ReLU, lambda: F.relu], ids=["module", "function"])
def test_layer_with_no_relu_behind_it(
    relu: Callable[[], Callable[[Tensor], Tensor]], wrapped: Callable[..., Any]
) -> None:
    """The rule changes nothing there and raises no error: a sheet may show such a layer too."""

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3), relu(), nn.Linear(4, 3)
            self.last = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.last(self.act(self.conv(x))).flatten(2).mean(2))

    setup = wrapped(Behind().double())
    sample = setup.sample(6, 6)
    maps = [setup.cam(sample, f"gradcam{rule}", LABEL, "last") for rule in ("", "-guided-relu")]
    assert_close(maps[0], maps[1])


def torchvision_net(name: str) -> nn.Module:
    options = {} if name == "densenet121" else {"aux_logits": False, "init_weights": False}
    return torchvision.models.get_model(name, weights=None, num_classes=5, **options).eval()


FUNCTIONAL = {
    "googlenet": ("inception5b", 64),
    "inception_v3": ("Mixed_7c", 80),
    "densenet121": ("features", 48),
}
"""Networks of torchvision that call F.relu: a layer, and the side of an input."""


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional_relus_of_torchvision_are_guided(
    name: str, wrapped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, side = FUNCTIONAL[name]
    net = torchvision_net(name)
    setup = wrapped(net, layer)
    sample = setup.sample(side, side)
    (maps,) = setup.explain(sample, ["guided", "gradient"], LABEL)
    guided, plain = (maps[method, str(LABEL), "pixels"].cam for method in ("guided", "gradient"))

    x = setup.pixels(sample).requires_grad_()
    (by_autograd,) = torch.autograd.grad(net(x)[0, LABEL], x)
    assert_close(plain / plain.abs().max(), by_autograd[0] / plain.abs().max(), rtol=0, atol=1e-4)
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: Ruled.apply(x, "guided"))
    (expected,) = torch.autograd.grad(net(x)[0, LABEL], x)
    scale = expected.abs().max()
    assert_close(guided / scale, expected[0] / scale, rtol=0, atol=1e-4)
    assert F.cosine_similarity(guided.flatten(), plain.flatten(), dim=0) < 0.9


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_captum_misses_the_functional_relus(wrapped: Callable[..., Any]) -> None:
    """Captum replaces modules, and googlenet has no ReLU modules: its map is the plain gradient."""
    layer, side = FUNCTIONAL["googlenet"]
    net = torchvision_net("googlenet")
    setup = wrapped(net, layer)
    sample = setup.sample(side, side)
    captum = GuidedBackprop(net).attribute(setup.pixels(sample).requires_grad_(), LABEL)[0]
    plain = setup.cam(sample, "gradient", LABEL)
    assert_close(captum / plain.abs().max(), plain / plain.abs().max(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "clamp",
    [
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
        lambda x: torch.clamp(x, 0.0, 6.0),
        lambda x: x.clamp(min=torch.zeros(())),
    ],
)
def test_a_clamp_at_zero_is_a_relu(clamp: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, dtype=torch.float64)
    scores = (clamp(x) * weights).sum(1)
    rule = ReluRule(scores, "guided")
    assert rule.has_relus
    with rule.active():
        (guided,) = torch.autograd.grad(scores.sum(), x)
    (plain,) = torch.autograd.grad((clamp(x) * weights.relu()).sum(), x)
    assert_close(guided, plain)


@pytest.mark.parametrize("clamp", [lambda x: x.clamp(max=1), lambda x: x.clamp(min=-1)])
def test_other_clamps_are_no_relus(clamp: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(3, 7, requires_grad=True)
    assert not ReluRule(clamp(x).sum(1), "guided").has_relus
