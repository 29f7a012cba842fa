"""Identities between maps, scores and weights on whole networks, without a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam import Target


class PooledNet(nn.Module):
    """Convolutions, global average pooling, one linear layer, over images or clips."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
        self.trunk = nn.Sequential(conv(3, 6, 3), nn.ReLU(), conv(6, 5, 3, stride=2))
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.trunk(x).flatten(2).mean(2))


NETS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "pooled 2D": (lambda: PooledNet(2), "trunk", (19, 14)),
    "pooled 3D": (lambda: PooledNet(3), "trunk", (7, 13, 10)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=7), "layer4", (70, 50)),
    "r3d_18": (lambda: torchvision.models.video.r3d_18(num_classes=7), "layer4", (8, 32, 32)),
}
"""Networks that end in pooling and one linear layer `fc`; the layer before; an input's size."""


class Ready:
    """One of the nets, its input, and what it computes."""

    def __init__(self, name: str, wrapped: Callable[..., Any]) -> None:
        make, self.layer, size = NETS[name]
        self.net = make().double().eval()
        frames = size[0] if len(size) == 3 else None
        self.setup = wrapped(self.net, self.layer, frames=frames)
        self.sample = self.setup.sample(*size)
        trunk = dict(self.net.named_modules())[self.layer]
        with torch.no_grad():
            kept = []
            handle = trunk.register_forward_hook(lambda *args: kept.append(args[2]))
            self.logits = self.net(self.setup.pixels(self.sample))[0]
            handle.remove()
        self.activation = kept[0][0]

    def cam(self, method: str, task: Any, **options: Any) -> Tensor:
        return self.setup.cam(self.sample, method, task, **options)


@pytest.fixture(params=NETS)
def ready(request: pytest.FixtureRequest, wrapped: Callable[..., Any]) -> Ready:
    return Ready(request.param, wrapped)


def test_cam_is_the_map_of_the_classifier_weights(ready: Ready) -> None:
    expected = torch.einsum("c,c...->...", ready.net.fc.weight[2], ready.activation)
    assert_close(ready.cam("cam", 2), expected.detach())


def test_grad_cam_is_cam_divided_by_the_number_of_cells(ready: Ready) -> None:
    expected = torch.einsum("c,c...->...", ready.net.fc.weight[2], ready.activation).detach()
    cells = expected.numel()
    assert_close(ready.cam("gradcam-signed", 2) * cells, expected)
    assert_close(ready.cam("gradcam", 2) * cells, expected.relu())


def test_hires_cam_is_grad_cam_behind_pooling(ready: Ready) -> None:
    assert_close(ready.cam("hirescam", 1), ready.cam("gradcam", 1))


def test_signed_map_adds_up_to_the_score_without_its_bias(ready: Ready) -> None:
    total = ready.cam("gradcam-signed", 3).sum()
    assert_close(total, (ready.logits[3] - ready.net.fc.bias[3]).detach())


def test_counterfactual_is_the_map_of_the_negated_score(ready: Ready) -> None:
    negated = Target(label="not 2", score=lambda logits: -logits[:, 2])
    expected = ready.cam("gradcam", negated)
    counterfactual = ready.cam("gradcam", 2, counterfactual=True)
    assert_close(counterfactual, expected)
    assert_close(counterfactual, (-ready.cam("gradcam-signed", 2)).relu())


def test_counterfactual_keeps_the_score(ready: Ready) -> None:
    (maps,) = ready.setup.explain(ready.sample, "gradcam", 2, counterfactual=True)
    explanation = maps["gradcam", "2", ready.layer]
    assert explanation.score == pytest.approx(ready.logits[2].item())
    assert explanation.probability == pytest.approx(ready.logits.softmax(0)[2].item())
    assert explanation.counterfactual


def test_signed_maps_of_targets_add_up_to_that_of_their_sum(ready: Ready) -> None:
    total = Target(label="sum", score=lambda logits: logits.sum(1))
    every = mmcam.Classes(range(len(ready.logits)))
    (parts,) = ready.setup.explain(ready.sample, "gradcam-signed", every)
    assert len(parts) == len(ready.logits)
    assert_close(sum(part.cam for part in parts.values()), ready.cam("gradcam-signed", total))


def test_contrast_is_the_difference_of_two_maps(ready: Ready) -> None:
    contrast = Target(label="0 over 1", score=lambda logits: logits[:, 0] - logits[:, 1])
    expected = ready.cam("gradcam-signed", 0) - ready.cam("gradcam-signed", 1)
    assert_close(ready.cam("gradcam-signed", contrast), expected)


def test_gradient_times_activation_adds_up_behind_relu_layers(
    wrapped: Callable[..., Any],
) -> None:
    """A head of ReLUs without biases is homogeneous, so the products sum to the score (Euler)."""
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    head = nn.Sequential(
        nn.Conv2d(6, 5, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4)
    )
    net = nn.Sequential(trunk, head).double()
    setup = wrapped(net, "0")
    sample = setup.sample(10, 10)
    score = net(setup.pixels(sample))[0, 1] - head[3].bias[1]
    assert_close(setup.cam(sample, "gradcam-signed", 1).shape, torch.Size([8, 8]))
    activation = trunk(setup.pixels(sample)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(head(activation)[0, 1], activation)
    assert_close((gradient * activation).sum(), score)
    expected = (gradient * activation).sum(1).relu()[0].detach()
    assert_close(setup.cam(sample, "hirescam", 1), expected)


def test_softmax_plus_plus_of_a_network_is_eq_10(wrapped: Callable[..., Any]) -> None:
    """Derivatives of the probability along each cell, here by central differences."""
    trunk = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Softplus())
    head = nn.Sequential(nn.Flatten(), nn.Linear(27, 5), nn.ReLU(), nn.Linear(5, 4))
    net = nn.Sequential(trunk, head).double()
    setup = wrapped(net, "0")
    sample = setup.sample(5, 5)
    a = trunk(setup.pixels(sample)).detach()
    step = 1e-2
    moves = step * torch.eye(27).double().view(27, 3, 3, 3)

    with torch.no_grad():
        y = {n: head(a + n * moves).softmax(1)[:, 1] for n in (-2, -1, 0, 1, 2)}
    d1 = (y[1] - y[-1]) / (2 * step)
    d2 = (y[1] - 2 * y[0] + y[-1]) / step**2
    d3 = (y[2] - 2 * y[1] + 2 * y[-1] - y[-2]) / (2 * step**3)
    alpha = d2 / (2 * d2 + a.sum((0, 2, 3)).repeat_interleave(9) * d3)
    weights = (alpha * d1.relu()).view(3, 9).sum(1)
    expected = torch.einsum("k,khw->hw", weights, a[0]).relu() / y[0][0]
    assert expected.any()
    assert_close(setup.cam(sample, "gradcam++softmax", 1), expected, rtol=1e-3, atol=1e-6)


def test_own_targets_and_task_give_the_same_map(wrapped: Callable[..., Any]) -> None:
    setup = wrapped(PooledNet(2).double(), "trunk")
    sample = setup.sample(12, 12)
    by_task = setup.cam(sample, "gradcam", mmcam.Classes(["2"]))
    assert_close(setup.cam(sample, "gradcam", Target.logit(2)), by_task)
    assert_close(setup.cam(sample, "gradcam", [Target.logit(2)]), by_task)
