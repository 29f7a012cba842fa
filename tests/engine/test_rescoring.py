"""Scores with changed activations and inputs, against one pass for each change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.capture.layers import map_tensor
from mmcam.capture.model_state import untouched
from mmcam.engine.rescoring import Rescorer
from mmcam.errors import MethodError, ScoreError
from mmcam.types import Adapter, Inputs, Sample, Target
from tests.adapters.tiny_generative import BLIP_VQA, VILT, case_of, folder
from tests.adapters.tiny_models import EVERY

CHANNELS, WORDS = 20, 3  # more channels than fit in a batch of 16


class Joined(nn.Module):
    """A network of a picture and a question; `join` says how the two meet."""

    def __init__(self, join: Callable[[Joined, Tensor, Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, CHANNELS, 3, stride=2)
        self.embed = nn.Embedding(9, CHANNELS)
        self.join = join
        self.head = nn.Linear(features, 4)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        joined = self.join(self, self.trunk(pixels).tanh(), self.embed(tokens))
        logits: Tensor = self.head(joined)
        return logits


def concatenated(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    return torch.cat([maps.mean((2, 3)), words.mean(1)], 1)


def multiplied(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    return maps.mean((2, 3)) * words.mean(1)


def one_sequence(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    tokens = torch.cat([words, maps.flatten(2).transpose(1, 2)], 1)
    return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(1)


def rows_of_the_question(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    """The rows of the question decide, so that more rows of maps are mixed without an error."""
    cells = maps.flatten(2).transpose(1, 2).reshape(len(words), -1, CHANNELS)
    return cells.mean(1) * words.mean(1)


def mixed_rows(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    """As many rows as maps, of which each depends on all."""
    return (maps + maps.mean(0)).mean((2, 3)) * words.mean(1)


def a_single_row(net: Joined, maps: Tensor, words: Tensor) -> Tensor:
    if len(maps) != 1 or len(words) != 1:
        raise ValueError("this network takes one input at a time")
    return maps.mean((2, 3)) * words.mean(1)


JOINS = {
    concatenated: 2 * CHANNELS,
    multiplied: CHANNELS,
    one_sequence: CHANNELS,
    rows_of_the_question: CHANNELS,
    mixed_rows: CHANNELS,
    a_single_row: CHANNELS,
}

joins = pytest.mark.parametrize("join", JOINS, ids=lambda join: join.__name__)


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def joined(join: Any) -> Adapter:
    net = Joined(join, JOINS[join])
    prepare = Preprocess(mean=(0,) * 3, std=(1,) * 3)
    return mmcam.wrap(net, prepare, layer="trunk", question=lambda text: torch.tensor([1, 2, 3]))


def rescorer(adapter: Adapter, pixels: np.ndarray, task: Any) -> tuple[Rescorer, Target]:
    with untouched(adapter.model), torch.no_grad():
        inputs = adapter.prepare([Sample(pixels=pixels)], task)
        ((target, *_), *_) = adapter.targets(adapter.forward(inputs.copied()), task)
    return Rescorer(adapter=adapter, inputs=inputs.row(0)), target


def single_passes(
    rescorer: Rescorer, target: Target, layer: str, cells: Sequence[Tensor]
) -> Tensor:
    """The score of one pass for each mask of the layer's entries to set to zero."""
    scores = []
    for mask in cells:

        def hook(module: nn.Module, args: Any, output: Any, mask: Tensor = mask) -> Any:
            return map_tensor(output, lambda tensor: tensor.masked_fill(mask, 0))

        handle = rescorer.adapter.model.get_submodule(layer).register_forward_hook(hook)
        with untouched(rescorer.adapter.model), torch.no_grad():
            scores.append(target.score(rescorer.adapter.forward(rescorer.inputs.copied())))
        handle.remove()
    return torch.cat(scores).float()


def cells_of(adapter: Adapter, inputs: Inputs, layer: str) -> list[Tensor]:
    """For each channel, the entries of the layer's output that its cells depend on."""
    outputs: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        map_tensor(output, lambda tensor: outputs.append(tensor.detach()) or tensor)

    handle = adapter.model.get_submodule(layer).register_forward_hook(hook)
    with untouched(adapter.model), torch.no_grad():
        adapter.forward(inputs.copied())
    handle.remove()
    output = outputs[0].double().requires_grad_()
    grid = adapter.grid(layer, output, inputs)[0]
    return [
        torch.autograd.grad(channel.sum(), output, retain_graph=True)[0] != 0 for channel in grid
    ]


def compare(rescorer: Rescorer, target: Target, layer: str) -> None:
    """Compare the scores of ablated channels with single passes."""
    if rescorer.adapter.layouts is not None:
        rescorer.adapter.layouts.prove(rescorer.adapter, rescorer.inputs, [layer])
    cells = cells_of(rescorer.adapter, rescorer.inputs, layer)
    expected = single_passes(rescorer, target, layer, cells)
    assert expected.std() > 0
    actual = rescorer.ablated_scores(layer, len(cells), target)
    scale = float((expected - expected.mean()).abs().max())
    assert_close(actual, expected, rtol=1e-4, atol=0.01 * scale)


@joins
def test_ablated_channels_of_a_network_of_two_inputs(join: Any) -> None:
    scorer, target = rescorer(joined(join), noise(9, 11), mmcam.Answers("what is it?", ["2"]))
    compare(scorer, target, "trunk")


@pytest.mark.parametrize(
    "join",
    [concatenated, multiplied, one_sequence, a_single_row],
    ids=lambda join: join.__name__,
)
def test_perturbed_pictures_of_a_network_of_two_inputs(join: Any) -> None:
    scorer, target = rescorer(joined(join), noise(9, 11), mmcam.Answers("what is it?", ["2"]))
    perturbed = torch.rand(19, 3, 9, 11)
    expected = torch.cat([scorer.scores(row[None], target) for row in perturbed])
    assert_close(scorer.scores(perturbed, target), expected)


@pytest.mark.parametrize("method", ["ablationcam", "scorecam", "occlusion", "guided-ablationcam"])
def test_a_second_input_of_one_row_does(method: str) -> None:
    """A user's `pack` may add an input that it does not repeat for more rows."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Joined(concatenated, 2 * CHANNELS)

        def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
            logits: Tensor = self.net(*inputs)
            return logits.relu()

    net, tokens = Packed(), torch.tensor([[1, 2, 3]])
    cams = [
        mmcam.explain(
            mmcam.wrap(net, Preprocess(), layer="net.trunk", pack=pack),
            noise(9, 11),
            mmcam.Classes([2]),
            method=method,
        )[0].cam
        for pack in (
            lambda pixels: (pixels, tokens),
            lambda pixels: (pixels, tokens.expand(len(pixels), -1)),
        )
    ]
    assert_close(cams[0], cams[1], rtol=1e-4, atol=1e-5)


SEVERAL_INPUTS_OR_ROWS = ("timm-pit_ti_224", "hf-pvt_v2", "pytorchvideo-slowfast_r50")


@pytest.mark.parametrize("name", SEVERAL_INPUTS_OR_ROWS)
def test_ablated_channels_of_classifiers(name: str) -> None:
    tiny = next(tiny for tiny in EVERY if str(tiny) == name)
    adapter = tiny.build()
    pixels = noise(*tiny.space)
    task = (mmcam.Classes if len(tiny.space) == 2 else mmcam.Actions)([0])
    layer = mmcam.explain(adapter, pixels, task, method="gradcam")[0].layer
    scorer, target = rescorer(adapter, pixels, task)
    compare(scorer, target, layer)


@pytest.mark.parametrize(
    "case",
    [case_of(name) for name in ("blip", "instructblip", "qwen2_vl", "git")] + [BLIP_VQA, VILT],
    ids=str,
)
def test_ablated_channels_near_the_pixels_of_transformers(case: Any) -> None:
    adapter = mmcam.load(f"hf:{folder(case)}")
    adapter.model.eval()
    is_captioner = case not in (BLIP_VQA, VILT)
    task = (
        mmcam.Caption("a brown dog runs")
        if is_captioner
        else mmcam.Answers("what color is the dog?", ["brown"] if case is BLIP_VQA else ["0"])
    )
    scorer, target = rescorer(adapter, noise(*case.size), task)
    compare(scorer, target, case.layer)


def test_a_grid_of_combined_cells_has_no_channels_to_ablate() -> None:
    def halved(layer: str, tensor: Tensor, space: Sequence[int]) -> Tensor:
        return nn.functional.avg_pool2d(tensor, 2)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = mmcam.wrap(net, Preprocess(), layer="0", grid=halved)
    with pytest.warns(UserWarning, match="it has 4 x 4 cells where tracing finds 8 x 8"):
        assert mmcam.explain(model, noise(8, 8), mmcam.Classes([0]))[0].cam.shape == (4, 4)
    with pytest.raises(MethodError, match=r"layer '0' combines several entries.*choose another"):
        mmcam.explain(model, noise(8, 8), mmcam.Classes([0]), method="ablationcam")


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_a_score_that_fails_only_during_rescoring_is_a_score_error(method: str) -> None:
    def score(logits: Tensor) -> Tensor:
        if not logits.requires_grad:
            raise ValueError("no graph")
        return logits[:, 0]

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = mmcam.wrap(net, Preprocess(), layer="0")
    with pytest.raises(
        ScoreError, match=r"score of 'own' .*\(ValueError: no graph\); fix Target.s"
    ):
        mmcam.explain(model, noise(8, 8), Target(label="own", score=score), method=method)


def test_a_score_that_fails_in_an_evaluation_is_a_score_error() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    scorer, _ = rescorer(mmcam.wrap(net, Preprocess()), noise(8, 8), mmcam.Classes([0]))
    mean = Target(label="own", score=lambda logits: logits.mean())
    with pytest.raises(ScoreError, match=r"score of 'own' is a Tensor of shape \(\)"):
        scorer.probabilities([noise(8, 8)], [mean], mmcam.Classes([0]), "")
