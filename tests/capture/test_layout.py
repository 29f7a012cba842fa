"""Layouts of layers' outputs, followed and checked by lighting one patch of the input."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.capture.layout import Layout
from mmcam.capture.proof import follow_layers
from mmcam.errors import LayerError
from mmcam.types import Sample

PATCH = 4


def adapter_of(network: nn.Module, size: tuple[int, int], **options: Any) -> Any:
    prepare = Preprocess(resize=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    return mmcam.wrap(network, prepare=prepare, **options)


def inputs_of(adapter: Any, size: tuple[int, int], batch: int = 1) -> Any:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(batch)]
    return adapter.prepare([Sample(pixels=picture) for picture in pictures], mmcam.Classes())


def proof_of(network: nn.Module, size: tuple[int, int], layer: str) -> Layout | LayerError:
    adapter = adapter_of(network, size)
    return follow_layers(adapter, inputs_of(adapter, size), [layer])[layer]


def grid_of(network: nn.Module, size: tuple[int, int], layer: str) -> tuple[int, ...]:
    proof = proof_of(network, size, layer)
    assert isinstance(proof, Layout), proof
    return proof.grid


class Pooled(nn.Module):
    """A head behind any trunk: the mean over all but the channels, which have a linear layer."""

    def __init__(self, channels: int, *trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).flatten(2).mean(2))


class Tokens(nn.Module):
    """Patches as tokens through torch's own encoder, behind some class tokens."""

    def __init__(self, *, batch_first: bool, leading: int = 0, patch: int = 8) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.patches = nn.Conv2d(3, 16, patch, patch)
        self.lead = nn.Parameter(torch.randn(1, leading, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.lead.expand(len(x), -1, -1), tokens], 1)
        if not self.batch_first:
            return self.head(self.encoder(tokens.transpose(0, 1)).mean(0))
        return self.head(self.encoder(tokens).mean(1))


class Columns(nn.Module):
    """A CNN, then an LSTM over its columns, as readers of text lines are built."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.lstm = nn.LSTM(24, 9, batch_first=True)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.cnn(x).permute(0, 3, 1, 2).flatten(2))
        return self.head(states.mean(1))


@pytest.mark.parametrize("channels", [8, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(64, 250), (32, 320)])
def test_a_spectrogram_with_one_axis_pooled(channels: int, height: int, width: int) -> None:
    pools = [nn.MaxPool2d((2, 1)), nn.MaxPool2d((2, 1))]
    network = Pooled(channels, nn.Conv2d(3, channels, 3, padding=1), *pools)
    assert grid_of(network, (height, width), "trunk") == (height // 4, width)


@pytest.mark.parametrize("leading", [0, 1, 2, 5])
@pytest.mark.parametrize("batch_first", [True, False])
def test_tokens_behind_leading_ones_in_either_order(batch_first: bool, leading: int) -> None:
    network = Tokens(batch_first=batch_first, leading=leading)
    for layer in ("encoder", "encoder.layers.0", "encoder.layers.0.self_attn"):
        assert grid_of(network, (32, 48), layer) == (4, 6)


def test_tokens_of_which_the_number_fits_another_grid() -> None:
    # 5 x 18 patches and one token are 91, and 7 x 13 too.
    assert grid_of(Tokens(batch_first=True, leading=1, patch=16), (90, 300), "encoder") == (5, 18)


def test_the_default_layer_comes_before_an_lstm() -> None:
    adapter = adapter_of(Columns(), (12, 36))
    maps = mmcam.explain(adapter, np.zeros((12, 36, 3), np.uint8), mmcam.Classes([0]))
    assert adapter.layers == ["cnn"]
    assert maps[0].cam.shape == (3, 9)


def test_the_default_layer_has_a_gradient() -> None:
    class ClassToken(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.lead.expand(len(x), -1, -1), tokens], 1)
            return self.head(self.encoder(tokens)[:, 0])

    adapter = adapter_of(ClassToken(batch_first=True, leading=1), (32, 48))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    (explanation,) = mmcam.explain(adapter, pixels, mmcam.Classes([0]), method="gradcam-signed")
    assert adapter.layers == ["encoder.layers.0"]
    assert explanation.cam.shape == (4, 6)
    assert explanation.cam.any()


def test_a_module_that_runs_twice_is_named_by_its_last_call() -> None:
    class Twice(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            relu, first, second = self.trunk
            return self.head(relu(second(relu(first(x)))).flatten(2).mean(2))

    network = Twice(6, nn.ReLU(), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3))
    adapter = adapter_of(network, (12, 16))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    (explanation,) = mmcam.explain(adapter, pixels, mmcam.Classes([0]))
    assert adapter.layers == ["trunk.0#1"]
    assert explanation.cam.shape == (8, 12)


@pytest.mark.parametrize(
    ("trunk", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1)), "1 x 1 rows and columns"),
        (nn.Sequential(nn.Flatten(1), nn.LazyLinear(48), nn.Unflatten(1, (3, 4, 4))), "no grid"),
    ],
)
def test_layers_without_a_grid_are_refused(trunk: nn.Module, message: str) -> None:
    network = Pooled(3 if "Unflatten" in str(trunk) else 6, trunk)
    network(torch.zeros(1, 3, 12, 16))
    with pytest.raises(LayerError, match=message):
        mmcam.explain(
            adapter_of(network, (12, 16)),
            np.zeros((12, 16, 3), np.uint8),
            mmcam.Classes([0]),
            layers="trunk",
        )


def test_a_refused_layer_names_the_nearest_one_with_a_grid() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.second(self.first(x))).flatten(1))

    adapter = adapter_of(Plain(), (12, 16))
    picture = np.zeros((12, 16, 3), np.uint8)
    with pytest.raises(LayerError, match=r"layer 'pool': .*explain 'second', the nearest layer"):
        mmcam.explain(adapter, picture, mmcam.Classes(), layers=["pool"])


def test_a_grid_of_the_users_comes_first() -> None:
    network = Pooled(6, nn.Conv2d(3, 6, 4, 4))
    adapter = adapter_of(network, (16, 24), grid=lambda layer, tensor, space: tensor.flip(3))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    with pytest.warns(
        UserWarning, match=r"'trunk': the given grid is used, but its entries are in"
    ):
        mine = mmcam.explain(adapter, pixels, mmcam.Classes([0]), layers="trunk")[0].cam
    followed = adapter_of(network, (16, 24))
    own = mmcam.explain(followed, pixels, mmcam.Classes([0]), layers="trunk")[0].cam
    torch.testing.assert_close(mine, own.flip(1))


def test_tokens_written_into_a_buffer() -> None:
    class Buffered(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            maps = self.trunk[0](x)
            rows = maps.new_zeros(len(maps), maps.shape[2] * maps.shape[3], maps.shape[1])
            rows[:, torch.arange(rows.shape[1]).flip(0)] = maps.flatten(2).transpose(1, 2)
            return self.head(self.trunk[1](rows).mean(1))

    network = Buffered(6, nn.Conv2d(3, 6, 4, 4), nn.Identity())
    proof = proof_of(network, (16, 24), "trunk.1")
    assert isinstance(proof, Layout)
    assert proof.grid == (4, 6)
    assert proof.cells.flatten().tolist() == list(range(23, -1, -1))


def test_a_picture_that_is_resized_and_padded_inside() -> None:
    class Padded(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            x = F.interpolate(x, size=(48, 96), mode="bilinear")
            return super().forward(F.pad(x, (0, 0, 0, 16)))

    proof = proof_of(Padded(6, nn.Conv2d(3, 6, 16, 16)), (30, 60), "trunk")
    assert isinstance(proof, Layout)
    assert proof.grid == (3, 6)  # the last row is padding alone
    edges = torch.tensor(proof.extent) * torch.tensor([[30], [60]])
    # Kernels drawn at random are a little lopsided.
    assert_close(edges, torch.tensor([[0.0, 30.0], [0.0, 60.0]]), atol=0.5, rtol=0)


Step = Callable[[Tensor], Tensor]


class Scrambled(nn.Module):
    """Patches of the picture as vectors, put into some order; `spot` is the layer to explain."""

    def __init__(self, before: Sequence[Step], steps: Sequence[Step], channels: int) -> None:
        super().__init__()
        self.before, self.steps = before, steps
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH)
        self.spot = nn.Identity()
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        for step in self.before:
            x = step(x)
        x = self.patches(x)
        for step in self.steps:
            x = step(x)
        x = self.spot(x)
        return x.sum() / batch * self.scale.expand(batch, 3)


@st.composite
def scrambles(draw: st.DrawFn) -> tuple[list[Step], list[Step], tuple[int, int]]:
    """Steps on the picture, steps on its map, and how many patches it has."""
    rows, columns = draw(st.integers(1, 3)) * 2, draw(st.integers(1, 3)) * 2
    before: list[Step] = []
    swapped = draw(st.booleans())
    if swapped:
        before.append(lambda x: x.transpose(2, 3))
    if draw(st.booleans()):
        before.append(lambda x: x.flip(3))
    if draw(st.booleans()):
        before.append(lambda x: x.roll(PATCH, 2))
    height, width = (columns, rows) if swapped else (rows, columns)
    kind = draw(st.sampled_from(["map", "last", "tokens", "windows", "sequence", "units"]))
    order = draw(st.permutations(range(height * width)))
    leading = draw(st.integers(0, 3))
    steps: list[Step] = []
    if kind == "last":
        steps.append(lambda x: x.permute(0, 2, 3, 1))
    elif kind == "windows":  # as Swin has them: 2 x 2 in the batch axis

        def windows(x: Tensor) -> Tensor:
            batch, channels = x.shape[:2]
            x = x.view(batch, channels, height // 2, 2, width // 2, 2)
            return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, channels)

        steps.append(windows)
    elif kind == "units":  # as Hiera has them: by the place in a unit first

        def units(x: Tensor) -> Tensor:
            batch, channels = x.shape[:2]
            x = x.view(batch, channels, height // 2, 2, width // 2, 2)
            return x.permute(0, 3, 5, 2, 4, 1).reshape(batch, -1, channels)

        steps.append(units)
    elif kind in ("tokens", "sequence"):

        def tokens(x: Tensor) -> Tensor:
            x = x.flatten(2)[:, :, list(order)].transpose(1, 2)
            return torch.cat([x.new_ones(len(x), leading, x.shape[2]), x], 1)

        steps.append(tokens)
        if kind == "sequence":
            steps.append(lambda x: x.transpose(0, 1))
    return before, steps, (rows, columns)


def check_scramble(
    before: list[Step], steps: list[Step], patches: tuple[int, int], channels: int, seed: int
) -> None:
    """Changing one patch of one sample must change its own cell of its own grid, and no other."""
    torch.manual_seed(seed)
    size = (patches[0] * PATCH, patches[1] * PATCH)
    network = Scrambled(before, steps, channels)
    adapter = adapter_of(network, size)
    inputs = inputs_of(adapter, size, batch=2)
    adapter.layouts.prove(adapter, inputs, ["spot"])
    outputs: list[Tensor] = []
    network.spot.register_forward_hook(lambda *call: outputs.append(call[-1]))
    random = np.random.default_rng(seed)
    sample, row, column = (
        random.integers(2),
        random.integers(patches[0]),
        random.integers(patches[1]),
    )
    changed = inputs.pixels.clone()
    patch = (slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH))
    changed[sample, :, patch[0], patch[1]] += torch.rand(3, PATCH, PATCH)
    with torch.no_grad():
        network(inputs.pixels)
        network(changed)
    first, second = (adapter.grid("spot", output, inputs) for output in outputs)
    assert first.shape == (2, channels, *patches)
    expected = torch.zeros(2, *patches, dtype=torch.bool)
    expected[sample, row, column] = True
    assert torch.equal((first != second).any(1), expected)


@given(scrambles(), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_made_up_layouts_are_followed(
    scramble: tuple[list[Step], list[Step], tuple[int, int]], channels: int, seed: int
) -> None:
    check_scramble(*scramble, channels, seed)


@pytest.mark.slow
@given(scrambles(), st.integers(2, 6), st.integers(0, 100_000))
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_thousand_made_up_layouts_are_followed(
    scramble: tuple[list[Step], list[Step], tuple[int, int]], channels: int, seed: int
) -> None:
    check_scramble(*scramble, channels, seed)


def test_a_pass_that_cannot_be_traced_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    adapter = adapter_of(network, (8, 8))
    inputs = inputs_of(adapter, (8, 8))
    tries = []

    def fail(*arguments: Any) -> Any:
        tries.append(arguments)
        raise RuntimeError("not traceable")

    monkeypatch.setattr("mmcam.capture.proof.follow_layers", fail)
    for _ in range(2):
        adapter.layouts.prove(adapter, inputs, ["0"])
        assert not adapter.layouts.knows("0", inputs)
    assert len(tries) == 1


def given_grid(network: nn.Module, layer: str, **options: Any) -> mmcam.Explanation:
    """The explanation with a grid function that agrees with the traced layout, or does not."""
    adapter = adapter_of(network, (16, 24), **options)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return mmcam.explain(adapter, pixels, mmcam.Classes([0]), layers=layer)[0]


def test_a_given_grid_that_agrees_is_used_without_a_warning() -> None:
    network = Pooled(6, nn.Conv2d(3, 6, 3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explanation = given_grid(network, "trunk", grid=lambda layer, tensor, space: tensor)
    assert explanation.cam.shape == (4, 6)
    assert explanation.placement.extent == ()


def test_a_given_grid_for_a_layer_without_places_is_used_after_a_warning() -> None:
    network = Pooled(6, nn.Conv2d(3, 6, 4, 4), nn.AdaptiveAvgPool2d(1))

    def one_cell(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        return tensor

    with pytest.warns(
        UserWarning, match=r"'trunk.1': .* tracing .* found none: its entries lie in"
    ):
        explanation = given_grid(network, "trunk.1", grid=one_cell)
    assert explanation.cam.shape == (1, 1)
    assert explanation.placement.extent == ()
