"""Maps by scoring again, against straightforward loops over a tiny network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.errors import MethodError
from mmcam.methods.perturbation import ablation_cam, occlusion, score_cam

LABEL = 2


class Tokens(nn.Module):
    """Patches as tokens behind a class token, mixed by one linear layer; a class-token head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, 5))
        self.block = nn.Linear(5, 5)
        self.mix = nn.Linear(7, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.block(torch.cat([self.first.expand(len(x), -1, -1), tokens], 1))
        return self.head(self.mix(tokens.tanh().transpose(1, 2))[..., 0].tanh())


def convolutions(axes: int) -> nn.Module:
    conv = (nn.Conv2d, nn.Conv3d)[axes - 2]
    pool = (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 2]
    trunk = nn.Sequential(conv(3, 5, 3, stride=2), nn.ReLU())
    return nn.Sequential(trunk, conv(5, 6, 2), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(6, 4))


NETS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "2D": (lambda: convolutions(2), "0", (9, 8)),
    "3D": (lambda: convolutions(3), "0", (5, 9, 8)),
    "tokens": (Tokens, "block", (8, 12)),
}


class Case:
    """A network with its input, and what the plain loops need of it."""

    def __init__(self, name: str, wrapped: Callable[..., Any]) -> None:
        make, self.layer, size = NETS[name]
        self.net = make().double()
        self.setup = wrapped(self.net, self.layer, frames=size[0] if len(size) == 3 else None)
        self.sample = self.setup.sample(*size)
        self.pixels = self.setup.pixels(self.sample)
        self.tokens = name == "tokens"

    def score(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return self.net(pixels)[:, LABEL]

    def run(self, change: Callable[[Tensor], Tensor] = lambda output: output) -> Any:
        """The layer's output after `change`, and the score with it."""
        kept: list[Tensor] = []

        def hook(*args: Any) -> Tensor:
            kept.append(change(args[2].detach().clone()))
            return kept[0]

        handle = self.net.get_submodule(self.layer).register_forward_hook(hook)
        score = self.score(self.pixels)[0]
        handle.remove()
        return kept[0], score

    @property
    def activation(self) -> Tensor:
        """`[channel, *grid]`."""
        output = self.run()[0][0]
        return output[1:].T.reshape(5, 2, 3) if self.tokens else output

    def ours(self, method: str) -> Tensor:
        return self.setup.cam(self.sample, method, LABEL)


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest, wrapped_evenly: Callable[..., Any]) -> Case:
    return Case(request.param, wrapped_evenly)


def test_ablation_cam_is_a_loop_over_silenced_channels(case: Case) -> None:
    score = case.run()[1]
    cam = 0
    for k, channel in enumerate(case.activation):

        def silence(output: Tensor, k: int = k) -> Tensor:
            if case.tokens:
                output[:, 1:, k] = 0  # the class token is no cell of the grid
            else:
                output[:, k] = 0
            return output

        cam = cam + (score - case.run(silence)[1]) / abs(score) * channel
    assert cam.relu().any()
    assert_close(case.ours("ablationcam"), cam.relu(), rtol=1e-4, atol=1e-5)


def test_score_cam_is_a_loop_over_masked_inputs(case: Case) -> None:
    space = case.pixels.shape[2:]
    mode = {2: "bilinear", 3: "trilinear"}[len(space)]
    empty = case.score(torch.zeros_like(case.pixels))[0]
    rises = []
    for channel in case.activation:
        mask = F.interpolate(channel[None, None], space, mode=mode, align_corners=False)
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        rises.append(case.score(case.pixels * mask)[0] - empty)
    weights = torch.stack(rises).softmax(0)
    expected = torch.einsum("k,k...->...", weights, case.activation).relu()
    assert expected.any()
    assert_close(case.ours("scorecam"), expected, rtol=1e-4, atol=1e-6)


def test_occlusion_is_a_loop_over_covered_cells(case: Case) -> None:
    """3 x 3 cells are covered at a time; a cell's value is the mean drop of its patches."""
    space = case.pixels.shape[2:]
    cells = [*(min(4, t) for t in space[:-2]), *(min(14, side) for side in space[-2:])]
    reach = [0] * (len(cells) - 2) + [1, 1]
    bounds = [
        [round(i * side / n) for i in range(n + 1)] for side, n in zip(space, cells, strict=True)
    ]
    uncovered = case.score(case.pixels)[0]
    drops: dict[tuple[int, ...], list[Tensor]] = {}
    for middle in itertools.product(*map(range, cells)):
        around = [
            range(max(i - r, 0), min(i + r + 1, n))
            for i, r, n in zip(middle, reach, cells, strict=True)
        ]
        covered = case.pixels.clone()
        region = [slice(b[r.start], b[r.stop]) for b, r in zip(bounds, around, strict=True)]
        covered[(slice(None), slice(None), *region)] = 0
        drop = uncovered - case.score(covered)[0]
        for cell in itertools.product(*around):
            drops.setdefault(cell, []).append(drop)
    actual = case.ours("occlusion")
    assert actual.shape == tuple(cells)
    assert actual.any()
    for cell, values in drops.items():
        assert float(actual[cell]) == pytest.approx(float(sum(values)) / len(values), abs=1e-6)


def test_guided_products_of_rescored_maps(case: Case) -> None:
    if case.tokens:
        with pytest.raises(MethodError, match="ran none"):
            case.ours("guided-scorecam")
        return
    cam, guided = case.ours("scorecam"), case.ours("guided")
    mode = {2: "bilinear", 3: "trilinear"}[cam.ndim]
    enlarged = F.interpolate(cam[None, None], guided.shape[1:], mode=mode, align_corners=False)
    assert_close(case.ours("guided-scorecam"), enlarged[0] * guided)


def test_methods_asked_together_do_not_disturb_each_other(case: Case) -> None:
    """Scoring again runs the model again, and must not replace what the first run recorded."""
    methods = ["scorecam", "gradcam", "occlusion", "ablationcam", "eigencam"]
    (together,) = case.setup.explain(case.sample, methods, mmcam.Classes([0, LABEL]))
    assert len(together) == 2 * len(methods)
    for (method, label, _), explanation in together.items():
        assert_close(explanation.cam, case.setup.cam(case.sample, method, int(label)))


def blob(place: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """A score that one small region of the input alone decides."""
    region = tuple(slice(start, start + 2) for start in place)
    return lambda pixels: pixels[(slice(None), slice(None), *region)].flatten(1).sum(1)


@pytest.mark.parametrize(
    ("space", "place"),
    [
        ((42,), (30,)),
        ((28, 28), (4, 20)),
        ((30, 45), (22, 3)),
        ((4, 28, 28), (0, 12, 24)),
        ((8, 28, 14), (6, 2, 8)),
    ],
)
def test_occlusion_peaks_on_the_blob_that_decides(
    space: tuple[int, ...], place: tuple[int, ...]
) -> None:
    cam = occlusion(torch.rand(3, *space) + 0.5, blob(place), reach=0)
    peak = torch.unravel_index(cam.argmax(), cam.shape)
    for i, side, cells, start in zip(peak, space, cam.shape, place, strict=True):
        assert start - 1 < (float(i) + 0.5) * side / cells < start + 3
    assert (cam == 0).float().mean() > 0.9


def test_occlusion_of_a_signal_covers_its_single_axis() -> None:
    """Three cells of two samples are covered at a time, two at either end."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten()).double()
    signal = torch.randn(1, 2, 28, dtype=torch.float64)

    def score(rows: Tensor) -> Tensor:
        return net(rows)[:, LABEL].detach()

    drops = []
    for cell in range(14):
        covered = signal.clone()
        covered[..., max(2 * cell - 2, 0) : 2 * cell + 4] = 0
        drops.append(score(signal) - score(covered))
    expected = [torch.cat(drops[max(cell - 1, 0) : cell + 2]).mean() for cell in range(14)]
    actual = mmcam.cams(net, signal, LABEL, method="occlusion")
    assert_close(actual[0], torch.stack(expected), rtol=1e-4, atol=1e-6, check_dtype=False)


def test_occlusion_is_signed() -> None:
    cam = occlusion(torch.ones(3, 8, 8), lambda pixels: -blob((2, 2))(pixels))
    assert cam.min() < 0
    assert cam.max() == 0


def test_occlusion_takes_cells_reach_and_fill() -> None:
    pixels = torch.rand(3, 6, 6)

    def total(rows: Tensor) -> Tensor:
        return rows.flatten(1).sum(1)

    actual = occlusion(pixels, total, cells=(2, 3), reach=0, fill=0.25)
    expected = (pixels - 0.25).view(3, 2, 3, 3, 2).sum((0, 2, 4))
    assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_ablation_cam_of_a_negative_score_is_not_turned_over() -> None:
    """Losing the first channel lowers the score, so it speaks for the label whatever its sign."""
    channels = torch.eye(2).view(2, 1, 2)
    for score in (3.0, -3.0):
        ablated = torch.tensor([score - 1, score + 1])
        actual = ablation_cam(channels, score, ablated)
        assert_close(actual, torch.tensor([[1 / 3, 0]]))


def test_ablation_cam_of_a_zero_score_is_finite() -> None:
    actual = ablation_cam(torch.eye(2).view(2, 1, 2), 0.0, torch.tensor([-1.0, 1]))
    assert_close(actual, torch.tensor([[1.0, 0]]))


def test_score_cam_of_constant_channels_is_finite() -> None:
    channels = torch.tensor([[[2.0, 2.0]], [[0.0, 0.0]], [[0.0, 1.0]]])
    actual = score_cam(channels, torch.rand(3, 2, 4), lambda rows: rows.flatten(1).sum(1))
    assert actual.isfinite().all()
    assert actual.any()


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "occlusion"])
def test_model_that_changes_its_input_in_place(method: str, wrapped: Callable[..., Any]) -> None:
    class Net(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.net, self.in_place = convolutions(2), in_place

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.sub_(0.5).mul_(2) if self.in_place else (x - 0.5) * 2)

    clean, careless = Net(in_place=False), Net(in_place=True)
    careless.load_state_dict(clean.state_dict())
    sample = wrapped(clean).sample(12, 12)
    expected = wrapped(clean, "net.0").cam(sample, method, LABEL)
    assert_close(wrapped(careless, "net.0").cam(sample, method, LABEL), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "occlusion"])
def test_number_types(method: str, dtype: torch.dtype, wrapped: Callable[..., Any]) -> None:
    net = convolutions(2)
    sample = wrapped(net).sample(12, 12)
    expected = wrapped(net, "0").cam(sample, method, LABEL)
    actual = wrapped(net.to(dtype), "0").cam(sample, method, LABEL).to(expected.dtype)
    assert F.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.9


def test_counterfactual_occlusion_is_negated(case: Case) -> None:
    negated = case.setup.cam(case.sample, "occlusion", LABEL, counterfactual=True)
    assert_close(negated, -case.ours("occlusion"))
