"""Maps by scoring changed inputs or activations again: Score-CAM, Ablation-CAM, occlusion.

Each is a function of the thing to change and a `score` that says what the model makes of it, one
number a row; `Rescorer` makes those from a model. No gradient is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.capture import tapped, untouched
from mmcam.grids import resize
from mmcam.methods import weighted_sum
from mmcam.types import Adapter, Inputs, Method, Target

ScoreRows = Callable[[Float[Tensor, "n channel *grid"]], Float[Tensor, " n"]]


@dataclass(frozen=True)
class Rescorer:
    """Scores changed versions of one sample for one target, `chunk` rows at a time."""

    adapter: Adapter
    inputs: Inputs
    target: Target
    chunk: int = 16

    def pixels(self, changed: Float[Tensor, "n 3 *space"]) -> Float[Tensor, " n"]:
        """The score of each changed input."""
        return torch.cat([self._run(some) for some in changed.split(self.chunk)])

    def without(self, layer: str, channels: int) -> Float[Tensor, " channel"]:
        """The score with each channel of `layer` set to zero, all cells of its grid at once."""
        scores = []
        for some in torch.arange(channels).split(self.chunk):

            def drop(_: str, tensor: Tensor, some: Tensor = some) -> Tensor:
                cells = self._cells(layer, tensor)
                changed = tensor.repeat(len(some), *[1] * (tensor.ndim - 1))
                for row, channel in enumerate(some.tolist()):
                    changed[row].view(-1)[cells[channel]] = 0
                return changed

            with untouched(self.adapter.model), torch.no_grad():
                with tapped(self.adapter.model, [layer], drop):
                    output = self.adapter.forward(self.inputs.copied())
                scores.append(self.target.score(output).float())
        return torch.cat(scores)

    def _cells(self, layer: str, tensor: Tensor) -> Tensor:
        """Where each channel's cells lie in the flattened row of the layer's own layout."""
        numbers = torch.arange(tensor[0].numel(), dtype=torch.float64)
        folded = self.adapter.grid(layer, numbers.view(1, *tensor.shape[1:]), self.inputs)
        return folded[0].flatten(1).long().to(tensor.device)

    def _run(self, pixels: Tensor) -> Tensor:
        inputs = self.inputs.repeated(pixels).copied()
        with untouched(self.adapter.model), torch.no_grad():
            return self.target.score(self.adapter.forward(inputs)).float()


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


def _by_score_cam(activation: Tensor, layer: str, rescorer: Rescorer) -> Tensor:
    return score_cam(activation, rescorer.inputs.pixels[0], rescorer.pixels)


def _by_ablation_cam(activation: Tensor, layer: str, rescorer: Rescorer) -> Tensor:
    whole = float(rescorer.pixels(rescorer.inputs.pixels)[0])
    return ablation_cam(activation, whole, rescorer.without(layer, len(activation)))


def _by_occlusion(activation: Tensor, layer: str, rescorer: Rescorer) -> Tensor:
    return occlusion(rescorer.inputs.pixels[0], rescorer.pixels)


RESCORING: dict[str, Method] = {
    "scorecam": Method(
        compute=_by_score_cam,
        summary="channels weighted by the score of the input they mask; one forward a channel",
        source="Wang et al. 2020",
        needs="rescore",
    ),
    "ablationcam": Method(
        compute=_by_ablation_cam,
        summary="channels weighted by the score lost without them; one forward a channel",
        source="Desai and Ramaswamy 2020",
        needs="rescore",
    ),
    "occlusion": Method(
        compute=_by_occlusion,
        summary="drop of the score when a patch is covered; one forward a patch; signed",
        source="Zeiler and Fergus 2014; Selvaraju et al. 2020, section 5.3",
        needs="rescore",
    ),
}
"""`compute(activation [channel *grid], layer, rescorer) -> cam`, one sample at a time."""
