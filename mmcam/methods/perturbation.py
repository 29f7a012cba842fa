"""Maps from the scores of perturbed inputs or activations: Score-CAM, Ablation-CAM, occlusion.

Each is a pure function of the input or the activation, and of the model's scores: one number for
each perturbed version. No gradient is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.grids import resize
from mmcam.methods.cams import weighted_sum
from mmcam.types import Extent

ScoreRows = Callable[[Float[Tensor, "n channel *grid"]], Float[Tensor, " n"]]


class Rescoring(NamedTuple):
    """The model's scores of perturbed versions of one sample for one target.

    `pixels` is the sample's input, and `extent` where the layer's cells lie on it. `score` returns
    the scores of perturbed inputs, `ablated_scores` those of the unchanged input with each channel
    of the layer set to zero in turn.
    """

    pixels: Float[Tensor, "colour *space"]
    extent: Extent
    score: ScoreRows
    ablated_scores: Callable[[], Float[Tensor, " channel"]]


def score_cam(
    activation: Float[Tensor, "channel *grid"],
    pixels: Float[Tensor, "colour *space"],
    score: ScoreRows,
    extent: Extent = (),
    chunk: int = 32,
) -> Float[Tensor, "*grid"]:
    """Score-CAM: channels weighted by the score of the input masked by the channel.

    Each channel, upsampled and min-max scaled to [0, 1], is multiplied with the input. The increase
    of a channel is the score of this masked input minus the score of an empty input (zeros after
    preprocessing). The weights are the softmax of the increases over channels (Wang et al. 2020,
    eq. 5-7 and algorithm 1), and the map is the ReLU of the weighted sum. The mask of a constant
    channel is 0 everywhere. `extent` is where the cells lie on the input; `chunk` channels are
    scored at a time.
    """
    baseline = score(torch.zeros_like(pixels)[None])
    increases = []
    for channels in activation.split(chunk):
        masks = resize(channels, pixels.shape[1:], extent)
        flat = masks.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        width = torch.where(high > low, high - low, 1)
        shape = (-1, *[1] * (masks.ndim - 1))
        masks = ((masks - low.view(shape)) / width.view(shape)).to(pixels.dtype)
        increases.append(score(pixels[None] * masks[:, None]) - baseline)
    weights = torch.cat(increases).softmax(0).to(activation.dtype)
    return weighted_sum(activation[None], weights[None])[0].relu()


def ablation_cam(
    activation: Float[Tensor, "channel *grid"],
    score: float,
    ablated: Float[Tensor, " channel"],
) -> Float[Tensor, "*grid"]:
    """Ablation-CAM: channels weighted by the relative drop of the score when they are set to zero.

    w_k = (y - y_k) / y (Desai and Ramaswamy 2020, eq. 3), where `score` is y and `ablated` holds
    each y_k; the map is the ReLU of the weighted sum. A negative y would change the sign of
    the map, so the function divides by the absolute value of y, or by 1 if y is 0.
    """
    weights = (score - ablated) / (abs(score) or 1.0)
    return weighted_sum(activation[None], weights.to(activation.dtype)[None])[0].relu()


def occlusion(
    pixels: Float[Tensor, "colour *space"],
    score: ScoreRows,
    *,
    cells: tuple[int, ...] | None = None,
    reach: int = 1,
    fill: float = 0.0,
) -> Float[Tensor, "*grid"]:
    """The drop of the score when a patch is covered.

    Zeiler and Fergus 2014; Grad-CAM, IJCV 2020, section 5.3.

    The input is divided into `cells`; each patch covers one cell and `reach` cells around it in
    space, and a cell's value is the mean drop over the patches that cover it. The map is signed:
    it is negative where covering a cell raises the score.

    Args:
        pixels: one input after preprocessing.
        score: the scores of a batch of covered inputs.
        cells: cells along each axis; by default at most 14 in height and width (or along the single
            axis of a signal), and 4 in time.
        reach: how many neighbouring cells on each side, in space, a patch also covers.
        fill: the value of covered pixels; 0 is the mean colour after the usual normalisation.
    """
    space = pixels.shape[1:]
    if cells is None:
        cells = (*(min(4, t) for t in space[:-2]), *(min(14, side) for side in space[-2:]))
    edges = [
        [round(i * side / count) for i in range(count + 1)]
        for side, count in zip(space, cells, strict=True)
    ]
    reaches = [0] * (len(cells) - 2) + [reach] * min(len(cells), 2)
    uncovered = score(pixels[None])
    drops = pixels.new_zeros(cells, dtype=uncovered.dtype)
    counts = torch.zeros_like(drops)
    centres = list(itertools.product(*(range(count) for count in cells)))
    for start in range(0, len(centres), 32):
        patches = [_patch(centre, reaches, cells) for centre in centres[start : start + 32]]
        covered = pixels.repeat(len(patches), *[1] * pixels.ndim)
        for row, patch in enumerate(patches):
            # From a range of cells to a range of pixels, along each axis.
            region = tuple(slice(e[p.start], e[p.stop]) for e, p in zip(edges, patch, strict=True))
            covered[row][(slice(None), *region)] = fill
        for patch, value in zip(patches, score(covered), strict=True):
            drops[patch] += uncovered[0] - value
            counts[patch] += 1
    return drops / counts


def _patch(
    centre: tuple[int, ...], reaches: list[int], cells: tuple[int, ...]
) -> tuple[slice, ...]:
    """The cells of the patch around the cell `centre`, as a slice of each axis."""
    return tuple(
        slice(max(i - reach, 0), min(i + reach + 1, count))
        for i, reach, count in zip(centre, reaches, cells, strict=True)
    )


def score_cam_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """Score-CAM of one sample."""
    return score_cam(activation, rescoring.pixels, rescoring.score, rescoring.extent)


def ablation_cam_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """Ablation-CAM of one sample."""
    score = float(rescoring.score(rescoring.pixels[None])[0])
    return ablation_cam(activation, score, rescoring.ablated_scores())


def occlusion_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """The occlusion map of one sample; the activation is not used."""
    return occlusion(rescoring.pixels, rescoring.score)
