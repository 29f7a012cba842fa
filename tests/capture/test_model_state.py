"""The model is left as it was found, whatever the request and whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmcam
from mmcam.capture.model_state import untouched
from mmcam.methods import METHODS
from tests.snapshots import assert_as_found, snapshot

PRODUCTS = ["guided-gradcam", "deconv-gradcam", "guided-scorecam", "deconv-ablationcam"]


class Bomb(torch.autograd.Function):
    """Passes on what it gets, and fails in the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise KeyError("backward")


class Net(nn.Module):
    """Pooling behind the explained layer `trunk`, batch norm, dropout, noise, ReLUs all over."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        self.head = nn.ModuleDict({"norm": nn.BatchNorm1d(6), "fc": nn.Linear(6, 4)})
        self.fail = ""

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        torch.rand(1)  # moves the random state
        if self.fail == "forward":
            raise KeyError("forward")
        if self.fail == "backward":
            x = Bomb.apply(x)
        pooled = F.relu(F.dropout(x, 0.3, self.training)).flatten(2).mean(2)
        return self.head["fc"](self.head["norm"](pooled))


def lived_in() -> Net:
    """A network in the middle of its training: mixed modes and flags, gradients, hooks."""
    net = Net()
    net(torch.rand(4, 3, 8, 8)).sum().backward()
    net.train()
    net.trunk[1].eval()
    net.head["fc"].eval()
    net.trunk[0].weight.requires_grad_(False)
    net.head["fc"].bias.grad = None
    net.register_forward_hook(lambda *args: None)
    net.trunk.register_forward_pre_hook(lambda *args: None)
    net.trunk[0].register_full_backward_hook(lambda *args: None)
    return net


def test_the_snapshot_sees_what_other_tools_leave_behind() -> None:
    """Modes, gradients, statistics, hooks, flags, random state: each is noticed."""
    leftovers: list[Callable[[Net], Any]] = [
        lambda net: net.eval(),
        lambda net: net.head["fc"](torch.rand(2, 6)).sum().backward(),
        lambda net: net.trunk[1].running_mean.mul_(1),
        lambda net: net.head.register_forward_hook(print),
        lambda net: net.requires_grad_(True),
        lambda net: net.zero_grad(),
        lambda net: torch.rand(1),
    ]
    for leave in leftovers:
        net = lived_in()
        before = snapshot(net)
        leave(net)
        with pytest.raises(AssertionError):
            assert_as_found(net, before)


@pytest.mark.parametrize("method", [*METHODS, *PRODUCTS])
def test_every_method_leaves_the_model_as_found(method: str, wrapped: Callable[..., Any]) -> None:
    net = lived_in()
    setup = wrapped(net, "trunk")
    sample = setup.sample(8, 9)
    if method == "cam":  # batch norm and ReLU behind the trunk let the gradient vary
        net.forward = lambda x: net.head["fc"](net.trunk(x).flatten(2).mean(2))
    task: Any = mmcam.Classes([0, 2])
    if method == "attention":  # a property of the target, not of the network
        looks = torch.rand(1, 2, 2)
        task = [replace(mmcam.Target.logit(i), attention=lambda output: looks) for i in (0, 2)]
    before = snapshot(net)
    (maps,) = setup.explain(sample, method, task)
    assert len(maps) == 2
    assert_as_found(net, before)


def test_default_layer_search_leaves_the_model_as_found(wrapped: Callable[..., Any]) -> None:
    net = lived_in()
    setup = wrapped(net)
    before = snapshot(net)
    setup.cam(setup.sample(8, 9), "gradcam", 1)
    assert_as_found(net, before)


def fails_forward(net: Net) -> Any:
    net.fail = "forward"
    return 0


def fails_backward(net: Net) -> Any:
    net.fail = "backward"
    return 0


def fails_in_the_users_hook(net: Net) -> Any:
    def hook(*args: Any) -> None:
        raise KeyError("hook")

    net.head["norm"].register_forward_hook(hook)
    return 0


def fails_in_the_score(net: Net) -> Any:
    def score(logits: Tensor) -> Tensor:
        raise KeyError("score")

    return mmcam.Target(label="bad", score=score)


@pytest.mark.parametrize(
    "failure", [fails_forward, fails_backward, fails_in_the_users_hook, fails_in_the_score]
)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++softmax", "guided-gradcam", "gradient"])
def test_failure_half_way_leaves_the_model_as_found(
    failure: Callable[[Net], Any], method: str, wrapped: Callable[..., Any]
) -> None:
    net = lived_in()
    task = failure(net)
    setup = wrapped(net, "trunk")
    sample = setup.sample(8, 9)
    before = snapshot(net)
    with pytest.raises(mmcam.MmcamError) as info:
        setup.cam(sample, method, task)
    assert isinstance(info.value.__cause__, KeyError)
    assert_as_found(net, before)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "occlusion"])
def test_failure_while_scoring_again_leaves_the_model_as_found(
    method: str, wrapped: Callable[..., Any]
) -> None:
    net = lived_in()
    runs = [0]

    def fail_later(*args: Any) -> None:
        runs[0] += 1
        if runs[0] > 2:
            raise KeyError("third run")

    net.head["fc"].register_forward_hook(fail_later)
    setup = wrapped(net, "trunk")
    sample = setup.sample(8, 9)
    before = snapshot(net)
    with pytest.raises(mmcam.MmcamError, match="third run") as info:
        setup.cam(sample, method, 0)
    assert isinstance(info.value.__cause__, KeyError)
    assert_as_found(net, before)


@pytest.mark.parametrize("layer", ["trunk.9", "head.fc", "trunk#4"])
def test_refused_layer_leaves_the_model_as_found(layer: str, wrapped: Callable[..., Any]) -> None:
    net = lived_in()
    setup = wrapped(net, layer)
    sample = setup.sample(8, 9)
    before = snapshot(net)
    with pytest.raises(mmcam.MmcamError):
        setup.cam(sample, "gradcam", 0)
    assert_as_found(net, before)


def test_surrounding_modes_are_restored(wrapped: Callable[..., Any]) -> None:
    net = lived_in()
    setup = wrapped(net, "trunk")
    sample = setup.sample(8, 9)
    for surrounding in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with surrounding():
            before = snapshot(net)
            setup.cam(sample, "guided-gradcam", 0)
            assert_as_found(net, before)


def test_untouched_is_evaluation_without_trainable_parameters_inside() -> None:
    net = lived_in()
    before = snapshot(net)
    with torch.no_grad(), untouched(net):
        assert torch.is_grad_enabled()
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
    assert_as_found(net, before)


def test_module_with_a_train_method_of_its_own_is_in_evaluation_mode() -> None:
    class Stubborn(Net):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)

    net = Stubborn()
    net.train()
    with untouched(net):
        assert not net.training
        assert not net.trunk[3].training
    assert net.training


def test_same_answer_in_training_and_in_evaluation(wrapped: Callable[..., Any]) -> None:
    net = lived_in()
    setup = wrapped(net, "trunk")
    sample = setup.sample(8, 9)
    training = setup.cam(sample, "gradcam", 3)
    net.eval()
    assert torch.equal(setup.cam(sample, "gradcam", 3), training)


class Recurrent(nn.Module):
    """A row of cells per step; two layers share a weight, and a buffer scales the logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 4, 3)
        self.again = nn.Conv2d(4, 4, 1)
        self.tied = nn.Conv2d(4, 4, 1)
        self.tied.weight = self.again.weight
        self.rows = nn.GRU(4, 5, batch_first=True)
        self.fc = nn.Linear(5, 4)
        self.register_buffer("scale", torch.full((1,), 9.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tied(self.again(self.trunk(x)).relu())
        states, _ = self.rows(x.flatten(2).transpose(1, 2))
        logits: Tensor = self.fc(states[:, -1]) * self.scale
        return logits


@pytest.mark.parametrize("method", ["gradcam-signed", "gradient", "occlusion"])
@pytest.mark.parametrize("layer", [None, "trunk"])
def test_model_made_under_inference_mode(
    method: str, layer: str | None, wrapped: Callable[..., Any]
) -> None:
    plain = wrapped(Recurrent(), layer)
    sample = plain.sample(6, 7)
    expected = plain.cam(sample, method, 1)
    with torch.inference_mode():
        net = Recurrent()
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert expected.any()
    assert torch.equal(wrapped(net, layer).cam(sample, method, 1), expected)
    assert net.training
    current = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert current.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert current[name] is tensor
        assert tensor.is_inference()
        assert tensor.requires_grad == (name != "scale")
    assert all(
        own is kept for own, kept in zip(net.rows.parameters(), net.rows._flat_weights, strict=True)
    )


def test_replacements_of_inference_tensors_share_their_memory() -> None:
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last))
    weight = net[0].weight
    with untouched(net):
        assert net[0].weight.data_ptr() == weight.data_ptr()
        assert net[0].weight.stride() == weight.stride()
        assert not net[0].weight.is_inference()
        assert isinstance(net[0].weight, nn.Parameter)
    assert net[0].weight is weight


def test_all_else_is_restored_if_one_parameter_cannot_be() -> None:
    net = lived_in()
    modes = [module.training for module in net.modules()]
    flags = [parameter.requires_grad for parameter in net.parameters()]
    bias = net.trunk[1].bias
    with (
        pytest.raises(
            mmcam.errors.ModelError, match=r"1 of .* the state of Net .* floating"
        ) as info,
        untouched(net),
    ):
        bias.data = bias.data.to(torch.int8)  # integers cannot require gradients
    assert "load the model anew" in str(info.value)
    assert [module.training for module in net.modules()] == modes
    restored = [parameter.requires_grad for parameter in net.parameters()]
    assert restored == [
        flag and p is not bias for flag, p in zip(flags, net.parameters(), strict=True)
    ]
