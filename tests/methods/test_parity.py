"""The same model and layer with Captum and torchcam, on images and clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.testing import assert_close

torchcam = pytest.importorskip("torchcam.methods")  # needs Python 3.11

NETS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=9), "layer4", (80, 64)),
    "vgg11": (lambda: torchvision.models.vgg11(num_classes=9), "features", (64, 64)),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=9), "features", (70, 90)),
    "r3d_18": (lambda: torchvision.models.video.r3d_18(num_classes=9), "layer3", (8, 48, 48)),
}


class Both:
    """A network that both sides explain, with its input."""

    def __init__(
        self, net: nn.Module, layer: str, size: tuple[int, ...], wrapped_evenly: Any
    ) -> None:
        self.net, self.layer = net.eval(), layer
        self.setup = wrapped_evenly(net, layer, frames=size[0] if len(size) == 3 else None)
        self.sample = self.setup.sample(*size)
        self.label = int(net(self.pixels).argmax())  # its maps are not empty

    @property
    def pixels(self) -> Tensor:
        return self.setup.pixels(self.sample)

    @property
    def module(self) -> nn.Module:
        return self.net.get_submodule(self.layer)

    def ours(self, method: str) -> Tensor:
        return self.setup.cam(self.sample, method, self.label)

    def torchcam(self, kind: type) -> Tensor:
        with kind(self.net, self.layer, input_shape=tuple(self.pixels.shape[1:])) as extractor:
            scores = self.net(self.pixels)
            (cam,) = extractor(self.label, scores, normalized=False)
        return cam[0].detach()

    def trace(self) -> tuple[Tensor, Tensor]:
        """Activation and gradient `[channel, *grid]` of the layer, by an ordinary backward."""
        kept: list[Tensor] = []
        handle = self.module.register_forward_hook(lambda *args: kept.append(args[2]))
        score = self.net(self.pixels)[0, self.label]
        handle.remove()
        (gradient,) = torch.autograd.grad(score, kept)
        return kept[0][0].detach(), gradient[0]


def assert_same_map(actual: Tensor, expected: Tensor) -> None:
    """Equal up to 1e-5 of the map's largest value, and not because both are empty."""
    scale = float(expected.abs().max())
    assert scale > 0
    assert_close(actual / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    return {name: make() for name, (make, _, _) in NETS.items()}


@pytest.fixture(params=NETS)
def both(request: pytest.FixtureRequest, nets: dict[str, nn.Module], wrapped_evenly: Any) -> Both:
    _, layer, size = NETS[request.param]
    return Both(nets[request.param], layer, size, wrapped_evenly)


def test_grad_cam_is_captums(both: Both) -> None:
    captum = LayerGradCam(both.net, both.module)
    expected = captum.attribute(both.pixels, both.label, relu_attributions=True)[0, 0]
    assert_same_map(both.ours("gradcam"), expected.detach())
    signed = captum.attribute(both.pixels, both.label)[0, 0]
    assert_same_map(both.ours("gradcam-signed"), signed.detach())


def test_plain_gradient_is_captums(both: Both) -> None:
    expected = Saliency(both.net).attribute(both.pixels.requires_grad_(), both.label, abs=False)[0]
    assert_same_map(both.ours("gradient"), expected)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_guided_gradient_is_captums_where_relus_are_modules(both: Both) -> None:
    expected = GuidedBackprop(both.net).attribute(both.pixels.requires_grad_(), both.label)[0]
    assert_same_map(both.ours("guided"), expected)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_guided_grad_cam_is_captums_but_for_its_nearest_interpolation(both: Both) -> None:
    """Captum enlarges the map by nearest neighbour by default; its factors are ours."""
    captum = GuidedGradCam(both.net, both.module)
    pixels = both.pixels.requires_grad_()
    nearest = captum.attribute(pixels, both.label)[0].detach()
    cam = both.ours("gradcam")[None, None]
    enlarged = F.interpolate(cam, pixels.shape[2:], mode="nearest")[0]
    assert_same_map(both.ours("guided") * enlarged, nearest)
    mode = {2: "bilinear", 3: "trilinear"}[cam.ndim - 2]
    linear = captum.attribute(pixels, both.label, interpolate_mode=mode)[0].detach()
    assert_same_map(both.ours("guided-gradcam"), linear)


@pytest.mark.parametrize(
    ("method", "peer"),
    [
        ("gradcam", torchcam.GradCAM),
        ("xgradcam", torchcam.XGradCAM),
        ("layercam", torchcam.LayerCAM),
    ],
)
def test_map_is_torchcams(both: Both, method: str, peer: type) -> None:
    assert_same_map(both.ours(method), both.torchcam(peer))


def test_plus_plus_is_the_papers_and_torchcams_is_not(both: Both) -> None:
    """Documented there is eq. 19, but a copy is divided: their alpha is g^2."""
    a, g = both.trace()
    total = a.sum(tuple(range(1, a.ndim)), keepdim=True)
    alpha = torch.where(g != 0, g**2 / (2 * g**2 + total * g**3), 0)  # eq. 19
    paper = torch.einsum("k,k...->...", (alpha * g.relu()).flatten(1).sum(1), a).relu()
    undivided = torch.einsum("k,k...->...", (g**2 * g.relu()).flatten(1).sum(1), a).relu()

    ours, theirs = both.ours("gradcam++"), both.torchcam(torchcam.GradCAMpp)
    assert_same_map(ours, paper)
    assert_same_map(theirs, undivided)
    assert (ours / ours.max() - theirs / theirs.max()).abs().max() > 1e-3


def small(axes: int, pool: int) -> nn.Module:
    """A network whose explained layer "0" has one cell for `pool` pixels along each axis."""
    conv, average = ((nn.Conv2d, nn.AvgPool2d), (nn.Conv3d, nn.AvgPool3d))[axes - 2]
    trunk = nn.Sequential(conv(3, 5, 3, padding=1), nn.ReLU(), average(pool))
    return nn.Sequential(trunk, conv(5, 4, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6)).double()


@pytest.mark.parametrize("size", [(12, 15), (6, 9, 12)])
@pytest.mark.parametrize(("pool", "agrees"), [(3, True), (2, False)])
def test_score_cam_is_torchcams_where_enlarging_keeps_the_extremes(
    size: tuple[int, ...], pool: int, agrees: bool, wrapped_evenly: Any
) -> None:
    """The paper enlarges a channel, then scales it to [0, 1]; torchcam the other way round.

    Enlarged by an odd factor a channel keeps its lowest and highest value, and both agree; by an
    even one no pixel lies on the middle of a cell. torchcam subtracts the score of the picture
    where the paper subtracts that of the empty one; softmax is invariant to the difference.
    """
    net = small(len(size), pool)
    size = tuple(side - side % pool for side in size)
    net(torch.zeros(1, 3, *size).double())
    both = Both(net, "0", size, wrapped_evenly)
    ours, theirs = both.ours("scorecam"), both.torchcam(torchcam.ScoreCAM)
    difference = (ours - theirs).abs().max() / theirs.max()
    assert (difference < 1e-5) == agrees
    assert difference < 0.05
