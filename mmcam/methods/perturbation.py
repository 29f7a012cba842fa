"""Maps by scoring changed inputs or activations again: Score-CAM, Ablation-CAM, occlusion.

Each is a pure function of the thing to change and a `score` that says what the model makes of it,
one number a row. No gradient is taken.
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

ScoreRows = Callable[[Float[Tensor, "n channel *grid"]], Float[Tensor, " n"]]


class Rescoring(NamedTuple):
    """How the model scores changed versions of one sample for one target.

    `pixels` is the sample's input, `score` gives the score of changed inputs, `score_without` that
    of the input as it is with each channel of the layer set to zero in turn.
    """

    pixels: Float[Tensor, "3 *space"]
    score: ScoreRows
    score_without: Callable[[], Float[Tensor, " channel"]]


def score_cam(
    activation: Float[Tensor, "channel *grid"],
    pixels: Float[Tensor, "3 *space"],
    score: ScoreRows,
    chunk: int = 32,
) -> Float[Tensor, "*grid"]:
    """Score-CAM: channels weighted by how the score rises when the input shows only them.

    Each channel, upsampled and min-max scaled to [0, 1], masks the input; its weight is the softmax
    over channels of its score minus that of the empty input, zero after preprocessing (Wang et al.
    2020, eq. 5-7 and algorithm 1). A constant channel masks everything.
    """
    empty = score(torch.zeros_like(pixels)[None])
    rises = []
    for some in activation.split(chunk):
        masks = resize(some, pixels.shape[1:])
        flat = masks.flatten(1)
        low, high = flat.amin(1), flat.amax(1)
        width = torch.where(high > low, high - low, 1)
        shape = (-1, *[1] * (masks.ndim - 1))
        masks = ((masks - low.view(shape)) / width.view(shape)).to(pixels.dtype)
        rises.append(score(pixels[None] * masks[:, None]) - empty)
    weights = torch.cat(rises).softmax(0).to(activation.dtype)
    return weighted_sum(activation[None], weights[None])[0].relu()


def ablation_cam(
    activation: Float[Tensor, "channel *grid"],
    score: float,
    ablated: Float[Tensor, " channel"],
) -> Float[Tensor, "*grid"]:
    """Ablation-CAM: channels weighted by the share of the score that goes when they are zeroed.

    w_k = (y - y_k) / y (Desai and Ramaswamy 2020, eq. 3). The division by y scales the map and
    would turn it over for a negative score, so the absolute value of y is taken.
    """
    weights = (score - ablated) / (abs(score) or 1.0)
    return weighted_sum(activation[None], weights.to(activation.dtype)[None])[0].relu()


def occlusion(
    pixels: Float[Tensor, "3 *space"],
    score: ScoreRows,
    *,
    cells: tuple[int, ...] | None = None,
    reach: int = 1,
    fill: float = 0.0,
) -> Float[Tensor, "*grid"]:
    """How much the score drops when a patch is covered (Zeiler and Fergus 2014; IJCV section 5.3).

    The input is cut into `cells`; each patch covers one cell and `reach` cells around it in space,
    and a cell's value is the mean drop over the patches that cover it. Signed: covering what speaks
    against the score raises it.

    Args:
        pixels: one input after preprocessing.
        score: scores rows of changed inputs.
        cells: cells along each axis; 14 along space and one for each of at most 4 times by default.
        reach: how many neighbouring cells on each side a patch covers too.
        fill: the value of covered pixels; 0 is the mean colour after the usual normalisation.
    """
    space = pixels.shape[1:]
    if cells is None:
        cells = (*(min(4, t) for t in space[:-2]), *(min(14, side) for side in space[-2:]))
    edges = [
        [round(i * side / count) for i in range(count + 1)]
        for side, count in zip(space, cells, strict=True)
    ]
    around = [0] * (len(cells) - 2) + [reach] * 2
    whole = score(pixels[None])
    drops = pixels.new_zeros(cells, dtype=whole.dtype)
    times = torch.zeros_like(drops)
    places = list(itertools.product(*(range(count) for count in cells)))
    for start in range(0, len(places), 32):
        some = places[start : start + 32]
        covered = pixels.repeat(len(some), *[1] * pixels.ndim)
        patches = [_patch(place, around, cells) for place in some]
        for row, patch in enumerate(patches):
            region = tuple(slice(e[p.start], e[p.stop]) for e, p in zip(edges, patch, strict=True))
            covered[row][(slice(None), *region)] = fill
        for patch, value in zip(patches, score(covered), strict=True):
            drops[patch] += whole[0] - value
            times[patch] += 1
    return drops / times


def _patch(place: tuple[int, ...], around: list[int], cells: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(i - reach, 0), min(i + reach + 1, count))
        for i, reach, count in zip(place, around, cells, strict=True)
    )


def score_cam_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """Score-CAM of one sample."""
    return score_cam(activation, rescoring.pixels, rescoring.score)


def ablation_cam_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """Ablation-CAM of one sample."""
    whole = float(rescoring.score(rescoring.pixels[None])[0])
    return ablation_cam(activation, whole, rescoring.score_without())


def occlusion_of(activation: Tensor, rescoring: Rescoring) -> Tensor:
    """The occlusion map of one sample; the activation plays no part."""
    return occlusion(rescoring.pixels, rescoring.score)
