"""The layout of a layer's output: the place of each of its entries on the input.

A layout is derived from the places of the output's entries (`places`), never from the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.capture.places import ROUNDING, Places, mean_place, without_repeats
from mmcam.errors import LayerError
from mmcam.types import Extent

SAME_CELL = 0.3
"""How far apart places of one row of cells may be, as a share of the distance between rows."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a layer's output becomes a grid over the input.

    Attributes:
        channels: the axes of the output along which the place on the input is constant.
        per_sample: the number of positions of one sample along the other axes; those without a
            place (class tokens, padding) count too.
        samples_first: whether the positions of one sample are contiguous; if False, the positions
            of all samples at one place are contiguous.
        cells: for each cell of the grid `[*grid]`, its number among the positions of a sample.
        extent: for each axis of the grid, the interval that its cells cover, as shares of the
            input's length. With padding and strides it may be shifted, or reach beyond the input.
        channel_count: the number of channels.
        shape: the shape of the output that the layout was found from.
    """

    channels: tuple[int, ...]
    per_sample: int
    samples_first: bool
    cells: Tensor
    extent: Extent
    channel_count: int
    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns; for a clip, time slices before them."""
        return tuple(self.cells.shape)

    @property
    def is_spatial(self) -> bool:
        """Whether the grid has at least 2 x 2 cells."""
        return min(self.grid[-2:]) > 1

    def to_grid(self, tensor: Tensor) -> Float[Tensor, "batch channel *grid"]:
        """An output of the layer, or its gradient, as a grid; a view if the order allows it.

        Raises:
            LayerError: the number of positions does not fit the layout.
        """
        other_axes = [axis for axis in range(tensor.ndim) if axis not in self.channels]
        positions = math.prod(tensor.shape[axis] for axis in other_axes)
        batch, rest = divmod(positions, self.per_sample)
        if rest or not batch:
            raise LayerError(
                f"an output of shape {tuple(tensor.shape)} does not hold {self.per_sample} "
                "positions for each sample, as it did when its layout was followed"
            )
        ordered = tensor.permute(*other_axes, *self.channels)
        if self.samples_first:
            flat = ordered.reshape(batch, self.per_sample, -1)
        else:
            flat = ordered.reshape(self.per_sample, batch, -1).transpose(0, 1)
        cells = self.cells.flatten()
        first = int(cells[0])
        if torch.equal(cells, torch.arange(first, first + len(cells))):
            in_order = flat[:, first : first + len(cells)]
        else:
            in_order = flat[:, cells.to(flat.device)]
        grid: Tensor = in_order.movedim(2, 1).unflatten(2, self.grid)
        return grid


def layout_of(
    shape: Sequence[int], places: Places | None, batch: int, space: Sequence[int]
) -> Layout:
    """The layout of an output whose entries have these places.

    Args:
        shape: the shape of the output.
        places: the places of its entries, as `places.FollowPlaces.places` returns them.
        batch: the number of samples.
        space: the size of the input along its axes, in pixels.

    Raises:
        LayerError: the entries form no grid, or have no known places; the message says why.
    """
    if places is None:
        raise LayerError("no place on the input is known for its entries")
    axes = range(len(shape))
    places, focus = places[: 1 + len(space)], places[1 + len(space) :]
    channels = tuple(axis for axis in axes if shape[axis] > 1 and _is_constant(places, axis))
    other_axes = [axis for axis in axes if axis not in channels]
    index = tuple(slice(None) if axis in other_axes else 0 for axis in axes)
    sample, *coordinates = (place[index].flatten().double() for place in places)
    positions = torch.stack([sample, *coordinates]).isfinite().all(0).nonzero().flatten()
    if not len(positions):
        raise LayerError("none of its entries has a place on the input")
    sample = sample[positions]
    if (sample - sample.round()).abs().max() > 0.01:
        raise LayerError("its entries mix the samples of a batch")
    numbers, grid = zip(*(_number_cells(c[positions]) for c in coordinates), strict=True)
    if math.prod(grid[-2:]) < 2:
        raise LayerError(
            f"its entries lie in {' x '.join(map(str, grid))} rows and columns, which is no grid "
            f"over an input of {' x '.join(map(str, space))} pixels"
        )
    order = _order(sample.round().long(), numbers, grid, batch)
    by_sample = positions[order].view(batch, *grid)
    per_sample = math.prod(shape[axis] for axis in other_axes) // batch
    steps = (by_sample[1:] - by_sample[:-1]).unique().tolist()
    if steps not in ([], [per_sample], [1]):
        raise LayerError("the samples of a batch are mixed, or their entries differ in order")
    samples_first = steps != [1] or per_sample == 1
    return Layout(
        channels=channels,
        per_sample=per_sample,
        samples_first=samples_first,
        cells=by_sample[0] if samples_first else by_sample[0] // batch,
        extent=tuple(
            _extent(mean_place(place, channels)[index].flatten()[positions], number, count, length)
            for place, number, count, length in zip(focus, numbers, grid, space, strict=True)
        ),
        channel_count=math.prod(shape[axis] for axis in channels),
        shape=tuple(shape),
    )


def _order(sample: Tensor, numbers: Sequence[Tensor], grid: Sequence[int], batch: int) -> Tensor:
    """The order that puts entries into cells, sample by sample.

    Raises:
        LayerError: there is not exactly one entry for each cell.
    """
    if math.prod(grid) * batch != len(sample):
        raise LayerError(
            f"{len(sample) // batch} of its entries have places in {' x '.join(map(str, grid))} "
            "rows and columns, which is not one for each cell"
        )
    key = sample
    for number, length in zip(numbers, grid, strict=True):
        key = key * length + number
    order = key.argsort()
    if not torch.equal(key[order], torch.arange(len(key))):
        raise LayerError("several of its entries lie at the same place of the input")
    return order


def _is_constant(places: Places, axis: int) -> bool:
    """Whether all entries along an axis have the same place."""
    for place in places:
        if place.stride(axis) == 0:
            continue
        place = without_repeats(place)
        first = place.narrow(axis, 0, 1)
        # Most differences show in a few entries, so these are compared before all others.
        for number in (1, place.shape[axis] // 2, place.shape[axis] - 1):
            if _differ(place.narrow(axis, number, 1), first):
                return False
        if _differ(place, first):
            return False
    return True


def _differ(place: Tensor, other: Tensor) -> bool:
    is_same = ((place - other).abs() < ROUNDING) | (place.isnan() & other.isnan())
    return not bool(is_same.all())


def _number_cells(values: Tensor) -> tuple[Tensor, int]:
    """For each place along one axis, the number of its cell; and the number of cells."""
    ordered = values.unique()
    gaps = ordered.diff()
    # Next to padding, the place of a cell may shift; it stays closest to its own row.
    limit = max(ROUNDING, SAME_CELL * float(gaps.max())) if len(gaps) else ROUNDING
    starts = torch.cat([ordered.new_ones(1).bool(), gaps > limit])
    cell = starts.cumsum(0) - 1
    return cell[torch.searchsorted(ordered, values)], int(cell[-1]) + 1


def _extent(focus: Tensor, number: Tensor, cells: int, length: int) -> tuple[float, float]:
    """The interval of the input, as shares of its length, that evenly spaced cells cover.

    Args:
        focus: the focus of each entry along one axis, in pixels.
        number: the number of each entry's cell along the axis.
        cells: the number of cells.
        length: the length of the input, in pixels.
    """
    if cells == 1:
        return 0.0, 1.0
    # The line through the cells' centres, by least squares.
    offset, place = number - number.double().mean(), focus.double()
    step = float((offset * place).sum() / offset.square().sum())
    middle = float(place.mean() - step * number.double().mean())
    first, last = middle - step / 2, middle + step * (cells - 0.5)
    return first / length, last / length
