"""Frozen models, gradients disabled around or inside a model, and unusual dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mmcam.errors import LayerError, MmcamError, ScoreError
from mmcam.grids import resize

METHODS = ["hirescam", "gradcam++softmax", "guided-gradcam", "scorecam", "ablationcam"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.BatchNorm2d(5)
        )
        self.head = nn.Sequential(nn.Conv2d(5, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class FrozenTrunk(Net):
    """A model that runs its trunk without gradients, as when only the head is trained."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.trunk(x)
        return self.head(x)


class Decorated(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.fixture
def plain_model(wrapped: Callable[..., Any]) -> Any:
    return wrapped(Net(), "trunk.2")


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters_change_nothing(
    method: str, plain_model: Any, wrapped: Callable[..., Any]
) -> None:
    sample = plain_model.sample(8, 8)
    frozen = wrapped(Net().requires_grad_(False), "trunk.2")
    assert_close(frozen.cam(sample, method, 1), plain_model.cam(sample, method, 1))


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_disabled_around_change_nothing(
    method: str, surrounding: Callable[[], Any], plain_model: Any
) -> None:
    sample = plain_model.sample(8, 8)
    expected = plain_model.cam(sample, method, 1)
    with surrounding():
        result = plain_model.cam(sample, method, 1)
    assert_close(result, expected)
    assert not result.requires_grad


@pytest.mark.parametrize("kind", [FrozenTrunk, Decorated])
@pytest.mark.parametrize("layers", [["trunk"], ["trunk.0"], ["trunk.0", "trunk.3", "trunk"]])
def test_gradients_disabled_inside_change_nothing(
    kind: type[Net], layers: list[str], plain_model: Any, wrapped: Callable[..., Any]
) -> None:
    sample = plain_model.sample(8, 8)
    (result,) = wrapped(kind()).explain(sample, ["hirescam", "gradcam"], 1, layers)
    (expected,) = plain_model.explain(sample, ["hirescam", "gradcam"], 1, layers)
    assert result.keys() == expected.keys()
    for key, explanation in result.items():
        assert_close(explanation.cam, expected[key].cam)


def test_gradient_at_the_pixels_of_a_frozen_trunk_is_refused(wrapped: Callable[..., Any]) -> None:
    """Without gradients in the trunk the score does not depend on the pixels, so a map is wrong."""
    wrapper = wrapped(FrozenTrunk(), "trunk")
    with pytest.raises(ScoreError, match="does not depend on layer 'pixels'"):
        wrapper.cam(wrapper.sample(8, 8), "gradient", 1)


def test_maps_hold_no_graph(plain_model: Any) -> None:
    for method in [*METHODS, "gradcam", "guided", "occlusion", "eigencam"]:
        assert not plain_model.cam(plain_model.sample(8, 8), method, 0).requires_grad, method


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "eigencam", "gradcam-signed"])
def test_dtypes(
    method: str, dtype: torch.dtype, plain_model: Any, wrapped: Callable[..., Any]
) -> None:
    """Narrow dtypes are widened before summation, so maps are float32 at least."""
    sample = plain_model.sample(8, 8)
    expected = plain_model.cam(sample, method, 1)
    result = wrapped(Net().to(dtype), "trunk.2").cam(sample, method, 1)
    assert result.dtype == torch.promote_types(dtype, torch.float32)
    scale = float(expected.abs().max())
    assert scale > 0
    assert_close(result.float() / scale, expected / scale, rtol=0, atol=0.05)


def test_large_half_precision_maps_do_not_overflow(wrapped: Callable[..., Any]) -> None:
    class LargeWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Conv2d(3, 64, 1, bias=False)
            nn.init.constant_(self.trunk.weight, 10_000.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x).mean(1).mean((1, 2))[:, None].repeat(1, 2)

    wrapper = wrapped(LargeWeights().half(), "trunk")
    result = wrapper.cam(wrapper.sample(4, 4), "xgradcam", 0)
    assert result.isfinite().all()
    assert result.any()


class NanTolerant(Net):
    """The score is finite whatever the trunk returns."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).nan_to_num(0, 0, 0))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinite_values_are_refused(value: float, wrapped: Callable[..., Any]) -> None:
    for kind, reason in [
        (
            NanTolerant,
            "layer 'trunk.2' of broken has NaN or infinite activations; check the weights",
        ),
        (Net, "NaN or infinite"),
    ]:
        net = kind()
        net.trunk[2].bias.data[1] = value
        wrapper = wrapped(net, "trunk.2", name="broken")
        with pytest.raises(MmcamError, match=reason) as error:
            wrapper.cam(wrapper.sample(8, 8), "gradcam", 0)
        assert isinstance(error.value, (LayerError, ScoreError))


def test_infinite_gradients_are_refused(wrapped: Callable[..., Any]) -> None:
    class InfiniteGradient(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).mul(0).sqrt()

    wrapper = wrapped(InfiniteGradient(), "trunk")
    with pytest.raises(LayerError, match="NaN or infinite gradients"):
        wrapper.cam(wrapper.sample(8, 8), "gradcam", 0)


class Vit(nn.Module):
    """Patches of 4 x 4 pixels and a class token; the head reads the class token alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)]
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


def test_token_layer_becomes_a_grid_without_its_class_token(wrapped: Callable[..., Any]) -> None:
    net = Vit().eval()
    wrapper = wrapped(net, "blocks.0")
    sample = wrapper.sample(12, 20)
    outputs: list[Tensor] = []
    handle = net.blocks[0].register_forward_hook(lambda *args: outputs.append(args[2]))
    score = net(wrapper.pixels(sample))[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs)
    weights = gradient[0, 1:].mean(0)
    expected = (outputs[0][0, 1:] @ weights).relu().view(3, 5).detach()
    assert expected.any()
    assert_close(wrapper.cam(sample, "gradcam", 1), expected, rtol=1e-4, atol=1e-7)


def test_gradient_at_the_class_token_alone_is_explained(wrapped: Callable[..., Any]) -> None:
    wrapper = wrapped(Vit(), "blocks.1")
    with pytest.raises(ScoreError, match="through its class token alone"):
        wrapper.cam(wrapper.sample(12, 20), "gradcam", 1)


def test_dead_layer_gives_an_empty_map_not_an_error(wrapped: Callable[..., Any]) -> None:
    net = Net()
    net.trunk.append(nn.ReLU())
    net.trunk[3].bias.data.fill_(-1e4)
    wrapper = wrapped(net, "trunk")
    for method in ("gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam", "layercam"):
        (result,) = wrapper.explain(wrapper.sample(8, 8), method, 0)
        (explanation,) = result.values()
        assert not explanation.cam.any()
        assert explanation.empty
        assert (explanation.heatmap() == 0).all()


def test_maps_inside_autocast_are_in_single_precision(wrapped: Callable[..., Any]) -> None:
    """The model may run in half precision; what comes of its activations does not."""
    setup = wrapped(Net(), "trunk")
    sample = setup.sample(8, 8)
    plain = setup.cam(sample, "gradcam-signed", 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = setup.cam(sample, "gradcam-signed", 0)
        product = setup.cam(sample, "guided-gradcam", 0)
        (maps,) = setup.explain(sample, ["gradcam", "guided", "guided-gradcam"], 0)
    cam, guided, both = (explanation.cam for explanation in maps.values())
    extent = next(iter(maps.values())).placement.extent
    assert extent
    assert_close(both, guided * resize(cam[None], (8, 8), extent).to(guided.dtype))
    assert halved.dtype == torch.promote_types(plain.dtype, torch.float32)
    assert product.dtype != torch.bfloat16
    assert_close(halved.to(plain.dtype), plain, rtol=0.1, atol=0.1 * float(plain.abs().max()))


def test_integers_before_floats_leave_the_pixels_floating(wrapped: Callable[..., Any]) -> None:
    class Quantised(Net):
        def __init__(self) -> None:
            super().__init__()
            zero = torch.zeros(3, dtype=torch.uint8)
            self._parameters = {
                "packed": nn.Parameter(zero, requires_grad=False),
                **self._parameters,
            }

    setup = wrapped(Quantised(), "trunk")
    sample = setup.sample(8, 8)
    assert setup.pixels(sample).is_floating_point()
    assert_close(setup.cam(sample, "gradcam", 0), wrapped(Net(), "trunk").cam(sample, "gradcam", 0))
