"""Where the cells of a layer lie on the input: against the gradient of made-up networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.capture.proof import ProvenLayouts
from mmcam.types import Sample


def extent_of(network: nn.Module, size: tuple[int, ...], layer: str) -> Tensor:
    """For each axis, the first and last edge of the layer's cells, in pixels of the input."""
    frames = size[0] if len(size) == 3 else None
    plain = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, frames=frames)
    adapter = mmcam.wrap(network, plain)
    sample = Sample(pixels=np.zeros((*size, 3), np.uint8))
    inputs = adapter.prepare([sample], mmcam.Classes())
    layouts = ProvenLayouts()
    layouts.prove(adapter, inputs, [layer])
    extent = layouts.extent(layer, inputs)
    assert extent, layouts.proofs
    return torch.tensor(extent) * torch.tensor(size)[:, None]


def centres(edges: Tensor, cells: int) -> Tensor:
    first, last = edges
    return first + (torch.arange(cells) + 0.5) * (last - first) / cells


class Headed(nn.Module):
    """A trunk of any number of axes, with a head that pools all cells."""

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).flatten(2).mean(2))


def seen(trunk: nn.Module, size: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor]:
    """The cells along an axis whose whole window lies in the input, and where they look.

    That is the mean place of the squared gradient at the pixels, in expectation over the kernels'
    signs.
    """
    x = torch.zeros(1, 3, *size, dtype=torch.float64, requires_grad=True)
    output = nn.Sequential(*[square(module) for module in trunk])(x)[0, 0]
    middle = [n // 2 for n in output.shape]
    rows = []
    for number in range(output.shape[axis]):
        index = (*middle[:axis], number, *middle[axis + 1 :])
        (gradient,) = torch.autograd.grad(output[index], x, retain_graph=True)
        rows.append(gradient[0].sum(0).movedim(axis, 0).flatten(1).sum(1))
    along = torch.stack(rows)
    total = along.sum(1)
    numbers = (total > 0.999 * total.max()).nonzero().flatten()
    pixels = torch.arange(along.shape[1]) + 0.5
    return numbers, ((along * pixels).sum(1) / total)[numbers].float()


def square(module: nn.Module) -> nn.Module:
    """A convolution with squared weights, whose gradient is the expected squared gradient."""
    if not isinstance(module, nn.Conv2d):
        return module
    twin = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        bias=False,
    ).double()
    # All channels alike: the focus is the mean over channels.
    energy = module.weight.detach().double().square().mean((0, 1), keepdim=True)
    twin.weight.data = energy.expand_as(module.weight).clone()
    return twin


@st.composite
def stacks(draw: st.DrawFn) -> tuple[nn.Sequential, int]:
    """A few convolutions and poolings, with kernels that are lopsided; and the channels."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layers: list[nn.Module] = []
    channels, stride = 3, 1
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.integers(1, 4))
        step = draw(st.integers(1, 2)) if stride < 8 else 1
        before = draw(st.integers(0, kernel // 2))
        stride *= step
        if draw(st.integers(0, 3)) == 0:
            layers.append(nn.AvgPool2d(kernel, step, before))
        else:
            layers.append(nn.Conv2d(channels, 2, kernel, step, before, draw(st.integers(1, 2))))
            channels = 2
    return nn.Sequential(*layers), channels


@given(stack=stacks(), size=st.tuples(st.integers(48, 64), st.integers(48, 64)))
@settings(max_examples=40)
def test_cells_lie_at_the_mean_of_the_squared_gradient(
    stack: tuple[nn.Sequential, int], size: tuple[int, int]
) -> None:
    trunk, channels = stack
    network = Headed(trunk, channels)
    edges = extent_of(network, size, "trunk")
    grid = trunk(torch.zeros(1, 3, *size)).shape[2:]
    for axis in (0, 1):
        numbers, places = seen(trunk, size, axis)
        assert_close(centres(edges[axis], grid[axis])[numbers], places, atol=0.3, rtol=0)


def test_a_padded_and_strided_stem_starts_at_the_first_pixel() -> None:
    """The cells of ResNet's stages are centred at their top left pixel (torchvision 0.19)."""
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 7, 2, 3, bias=False),
        nn.MaxPool2d(3, 2, 1),
        *(nn.Conv2d(4, 4, 3, 2, 1, bias=False) for _ in range(3)),
    )
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    edges = extent_of(Headed(trunk, 4), (224, 160), "trunk")
    assert_close(edges, torch.tensor([[0.5 - 16, 0.5 + 208], [0.5 - 16, 0.5 + 144]]))


def test_trained_kernels_can_undo_the_shift_of_the_padding() -> None:
    """A kernel that reads its last column looks where the column lies."""
    conv = nn.Conv2d(3, 4, 3, 2, 1)
    nn.init.zeros_(conv.weight)
    conv.weight.data[:, :, 2, 1] = 1
    edges = extent_of(Headed(nn.Sequential(conv), 4), (32, 32), "trunk")
    assert_close(edges, torch.tensor([[0.5, 32.5], [-0.5, 31.5]]))


def test_branches_whose_kernels_look_beside_each_other() -> None:
    """The cells lie at the mean over the channels, which are still one grid."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
            nn.init.zeros_(self.wide.weight)
            self.wide.weight.data[:, :, 1, 0] = 1

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.narrow(x), self.wide(x)], 1)

    edges = extent_of(Headed(Branches(), 8), (12, 16), "trunk")
    assert_close(edges, torch.tensor([[0.0, 12.0], [-0.5, 15.5]]))


def test_cells_of_a_clip_along_time() -> None:
    conv = nn.Conv3d(3, 4, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
    nn.init.ones_(conv.weight)
    edges = extent_of(Headed(nn.Sequential(conv), 4), (8, 6, 6), "trunk")
    assert_close(edges, torch.tensor([[-0.5, 7.5], [0.0, 6.0], [0.0, 6.0]]))


def test_a_transposed_convolution() -> None:
    """Cells of an enlarged map lie where their own window lies, also without padding."""
    up = nn.ConvTranspose2d(3, 4, 4, stride=2)
    nn.init.ones_(up.weight)
    edges = extent_of(Headed(nn.Sequential(up), 4), (12, 16), "trunk")
    # 26 rows, half a pixel each, of which the first is centred one half pixel above the input.
    assert_close(edges, torch.tensor([[-0.5, 12.5], [-0.5, 16.5]]))


def test_a_dilated_pooling() -> None:
    edges = extent_of(Headed(nn.Sequential(nn.MaxPool2d(3, 1, 0, 2)), 3), (12, 16), "trunk")
    assert_close(edges, torch.tensor([[2.0, 10.0], [2.0, 14.0]]))


def test_an_axis_with_one_cell_covers_the_whole_input() -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d((1, None)))
    edges = extent_of(Headed(trunk, 4), (12, 16), "trunk")
    assert_close(edges[0], torch.tensor([0.0, 12.0]))


def test_maps_and_products_lie_where_the_cells_look(wrapped: Any) -> None:
    """One bright pixel under one cell: the peak of every map at the layer lies on it."""
    conv = nn.Conv2d(3, 1, 3, stride=4, padding=1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.weight.data[0, :, 0, 0] = 1  # reads the pixel up and left of the window's middle
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    nn.init.ones_(network[4].weight)
    setup = wrapped(network, "1")
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[11, 19] = 255  # 4 * 3 - 1 and 4 * 5 - 1
    methods = ["gradcam", "layercam", "scorecam", "guided-gradcam"]
    (maps,) = setup.explain(Sample(pixels=pixels), methods, 0)
    for (method, _, _), explanation in maps.items():
        peak = explanation.peak()
        assert max(abs(peak.x - 19.5), abs(peak.y - 11.5)) <= 0.5, method
        assert bool(explanation.placement.extent) == (method != "guided-gradcam")
