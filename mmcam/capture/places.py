"""The place on the input of each entry of a layer's output, traced operation by operation.

The shape of an output does not tell where its entries lie: tokens may be grouped in windows or
units, transposed, or preceded by class tokens. So one forward pass runs under a dispatch mode that
keeps, for each entry of every tensor, its sample and its place on the input:

- operations that move entries (views, permutations, rolls, gathers, padding) move the places in
  the same way;
- an entry of a convolution, pooling or resizing lies at the centre of its window;
- trained kernels are often lopsided, which moves what a cell responds to by up to half a cell. So a
  second place is traced, the focus, in which an entry of a convolution lies at the mean of its
  window weighted by the squared weights of the kernel. For independent inputs this is the mean
  place weighted by the squared gradient, that is, the centre of the effective receptive field (Luo
  et al. 2016, section 2). The places give the order of the cells, and the focus their centres;
- a matrix product keeps the rows' places, so a token keeps its own place through attention and
  linear layers; if operands disagree, the one whose places vary more is used;
- entries without a place (parameters, class tokens) have NaN; the result of a reduction lies at the
  mean of the reduced places.

Nothing is differentiated, and the model's own results do not change.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten

Places = tuple[Tensor, ...]
"""For each entry of a tensor: its sample, then its place along each axis of the input, in pixels
(time, row, column), then its focus along each axis. Each has the shape of the tensor, and NaN for
entries without a place."""

Points = Callable[[int, int, int], Tensor]
"""A point for each window along an axis, in cells: `points(axis, windows, cells)`."""

ROUNDING = 1e-3
"""The largest difference between places of the same cell, due to rounding, in pixels."""

MOVES = {
    *(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.permute),
    *(aten.transpose, aten.t, aten.expand, aten.slice, aten.select, aten.split, aten.unbind),
    *(aten.split_with_sizes, aten.chunk, aten.unsqueeze, aten.squeeze, aten.alias, aten.detach),
    *(aten.roll, aten.flip, aten.index, aten.index_select, aten.gather, aten.unfold, aten.repeat),
    *(aten.as_strided, aten.reflection_pad2d, aten.replication_pad2d, aten.pixel_shuffle),
    *(aten.pixel_unshuffle, aten.diagonal, aten.movedim, aten.flatten, aten.im2col, aten.narrow),
    *(aten.channel_shuffle, aten.reflection_pad1d, aten.replication_pad3d, aten.rot90),
    *(aten.repeat_interleave, aten.expand_copy, aten.view_copy, aten.take_along_dim),
}
"""Operations that only move entries; they are applied to the places too."""

VIEWS = {aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.view_copy}
"""Moves to another shape with the same order of entries."""

PRODUCTS = {
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.matmul: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
    aten.linear: (0, 1),
    aten.addbmm: (1, 2),
    aten.mv: (0, 1),
}
"""Matrix products -> the positions of their two factors among the arguments."""

REDUCTIONS = {
    *(aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.logsumexp, aten.prod),
    *(aten.max, aten.min, aten.norm, aten.linalg_vector_norm, aten.var_mean, aten.std_mean),
    *(aten.nansum, aten.median),
}

POOLINGS = {
    *(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.max_pool2d_with_indices),
    *(aten.max_pool3d_with_indices, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d),
    *(aten.mkldnn_max_pool2d, aten.quantized_max_pool2d),
}

ADAPTIVE = {
    *(aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d, aten.adaptive_avg_pool1d),
    *(aten.adaptive_max_pool2d, aten.adaptive_max_pool3d, aten.adaptive_avg_pool2d),
    *(aten.adaptive_avg_pool3d, aten.fractional_max_pool2d),
}

RESIZINGS = {
    *(aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d),
    *(aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d),
    *(aten.upsample_bicubic2d, aten._upsample_nearest_exact2d, aten._upsample_bilinear2d_aa),
    *(aten._upsample_bicubic2d_aa, aten._upsample_nearest_exact1d),
}

ATTENTIONS = {
    getattr(aten, name)
    for name in (
        "scaled_dot_product_attention",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    if hasattr(aten, name)
}

FACTORIES = {
    *(aten.zeros, aten.empty, aten.new_zeros, aten.new_empty, aten.zeros_like, aten.empty_like),
    *(aten.new_full, aten.full, aten.full_like, aten.new_ones, aten.ones, aten.ones_like),
}


class FollowPlaces(TorchDispatchMode):
    """In this mode, the places of all tensors that are computed from `start` are traced.

    Args:
        start: the input `[batch, channel, *space]`; the place of a pixel is its centre.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: Any = WeakTensorKeyDictionary()
        self.axes = start.ndim - 2
        batch, _, *space = start.shape
        places = []
        for axis, size in ((0, batch), *enumerate(space, 2)):
            numbers = torch.arange(size, dtype=torch.float32) + (0.5 if axis else 0.0)
            shape = [1] * start.ndim
            shape[axis] = size
            places.append(numbers.view(shape).expand(start.shape))
        self.known[start] = (*places, *places[1:])

    def places(self, tensor: Tensor) -> Places | None:
        """The places of a tensor's entries; None if the tensor has no known places."""
        places: Places | None = self.known.get(tensor)
        return places

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        try:
            self._follow(func.overloadpacket, func, args, kwargs, result)
        except (RuntimeError, IndexError, TypeError, ValueError):
            self._forget(result)  # the places of this operation's result are unknown
        return result

    def _forget(self, result: Any) -> None:
        for tensor in _tensors(result):
            self.known.pop(tensor, None)

    def _follow(
        self, packet: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        outputs = list(_tensors(result))
        if packet in FACTORIES:
            for tensor in outputs:
                if tensor.is_floating_point() and tensor.ndim >= 2:
                    # Something may be copied into it, or into views of it, so the places have
                    # memory of their own.
                    self.known[tensor] = tuple(p.clone() for p in self._nowhere(tensor))
            return
        placed = [t for t in _tensors((args, kwargs)) if t in self.known]
        if not placed or not outputs:
            return
        if packet is aten.copy_:
            self._copy(args[0], args[1])
        elif packet in MOVES:
            self._move(func, args, kwargs, outputs)
        elif packet is aten.col2im:  # it adds the entries that overlap
            self.known[outputs[0]] = tuple(
                func(place.contiguous(), *args[1:]) / func(torch.ones(place.shape), *args[1:])
                for place in self._of(args[0])
            )
        elif packet in (aten.cat, aten.stack):
            self._join(packet, args, kwargs, outputs[0])
        elif packet is aten.constant_pad_nd:
            padded = (
                func(_without_untouched(place, func, args), args[1], math.nan)
                for place in self._of(args[0])
            )
            self.known[outputs[0]] = tuple(place.expand(outputs[0].shape) for place in padded)
        elif packet in (aten.convolution, aten.mkldnn_convolution, aten._convolution):
            self._convolve(args, outputs[0])
        elif packet in POOLINGS:
            self._pool(args, outputs[0])
        elif packet in ADAPTIVE:
            self._sample(args[0], outputs[0], _adaptive)
        elif packet in RESIZINGS:
            corners = next((a for a in args[2:] if isinstance(a, bool)), False)
            self._sample(args[0], outputs[0], _aligned if corners else _half_pixel)
        elif packet in PRODUCTS:
            first, second = PRODUCTS[packet]
            self._multiply(args[first], args[second], outputs[0], packet is aten.linear)
        elif packet in ATTENTIONS:
            self._keep_rows(args[0], outputs[0])
        elif packet in REDUCTIONS:
            self._reduce(args, kwargs, outputs)
        elif packet in (aten.index_put_, aten.index_put, aten.index_copy, aten.index_copy_):
            self._put(func, args, kwargs, outputs[0])
        elif packet is aten.native_layer_norm and len(args[1]) == 1:
            self._keep_rows(args[0], outputs[0])  # it mixes the entries along the normalised axis
        elif packet is aten.where:
            self._pointwise([t for t in args[1:] if isinstance(t, Tensor)], outputs)
        else:
            self._pointwise(placed, outputs)

    def _of(self, tensor: Tensor) -> Places:
        places = self.places(tensor)
        return self._nowhere(tensor) if places is None else places

    def _nowhere(self, tensor: Tensor) -> Places:
        return (torch.tensor(math.nan).expand(tensor.shape),) * (1 + 2 * self.axes)

    def _copy(self, target: Tensor, source: Tensor) -> None:
        places = self.places(source)
        own = self.places(target)
        if places is None:
            return
        if own is None:
            self.known[target] = tuple(p.expand(target.shape).clone() for p in places)
            return
        for target_place, place in zip(own, places, strict=True):
            # The places of a view are views of its base's places, so these change too.
            target_place.copy_(place.expand(target_place.shape))

    def _move(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        places = self.places(args[0])
        if places is None:
            return
        moved = []
        for place in places:
            if func.overloadpacket in VIEWS:
                result = _viewed(place, outputs[0].shape)
            elif func.overloadpacket is aten.as_strided:
                if not args[0].is_contiguous():
                    raise ValueError("the strides of the places differ from the tensor's")
                result = func(place.contiguous(), *args[1:], **kwargs)
            else:
                result = func(_without_untouched(place, func, args), *args[1:], **kwargs)
            moved.append(list(_tensors(result)))
        for number, tensor in enumerate(outputs):
            self.known[tensor] = tuple(tensors[number].expand(tensor.shape) for tensors in moved)

    def _join(
        self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.ndim
        parts = [self._of(tensor) for tensor in args[0]]
        if packet is aten.stack:
            parts = [tuple(place.unsqueeze(axis) for place in part) for part in parts]
        if _agree([p[: 1 + self.axes] for p in parts], axis):
            # Maps of the same cells: the joined map keeps one focus for each cell, too.
            counts = [part[0].shape[axis] for part in parts]
            joined = [_weighted_mean(same, counts, axis) for same in zip(*parts, strict=True)]
        else:
            joined = [_joined(same, axis) for same in zip(*parts, strict=True)]
        self.known[output] = tuple(place.expand(output.shape) for place in joined)

    def _put(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        """Values put at indices: `(target, indices, values)` or `(target, axis, index, source)`."""
        at = 2 if isinstance(args[1], (tuple, list)) else 3
        pairs = zip(self._of(args[0]), self._of(args[at]), strict=True)
        self.known[output] = tuple(
            func(place.clone(), *args[1:at], value) for place, value in pairs
        )

    def _pointwise(self, operands: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Set the outputs' places to those of the operand whose places vary most."""
        for output in outputs:
            if len(operands) == 1 and operands[0].shape == output.shape:
                self.known[output] = self._of(operands[0])
                continue
            best: Places | None = None
            for tensor in operands:
                places = self.places(tensor)
                if places is None or not _broadcasts(tensor.shape, output.shape):
                    continue
                expanded = tuple(p.expand(output.shape) for p in places)
                if best is None or _variation(expanded) > _variation(best) * (1 + 1e-4):
                    best = expanded
            if best is None:
                for tensor in operands:
                    if tensor.shape[:-1] == output.shape[:-1] and tensor in self.known:
                        self._keep_rows(tensor, output)
                        return
                self.known.pop(output, None)
            else:
                self.known[output] = best

    def _keep_rows(self, tensor: Tensor, output: Tensor) -> None:
        """Each vector along the last axis keeps its mean place."""
        rows = (mean_place(p, [-1]) for p in self._of(tensor))
        self.known[output] = tuple(row.expand(output.shape) for row in rows)

    def _multiply(self, first: Tensor, second: Tensor, output: Tensor, is_linear: bool) -> None:
        rows = columns = None
        if first in self.known:
            rows = tuple(mean_place(p, [-1]) for p in self._of(first))
            rows = tuple((r if second.ndim > 1 else r[..., 0]).expand(output.shape) for r in rows)
        if second in self.known and not is_linear and second.ndim > 1:
            means = (mean_place(p, [-2]) for p in self._of(second))
            columns = tuple(c.expand(output.shape) for c in means)
        # A row of q k^T or a v belongs to one query. If all rows have almost the same place, the
        # columns' places are used.
        if rows is None or (columns is not None and _variation(rows) < 0.1 * _variation(columns)):
            rows = columns
        if rows is not None:
            self.known[output] = rows

    def _reduce(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        tensor, output = args[0], outputs[0]
        places = self.places(tensor)
        if places is None:
            return
        dims = next((a for a in (*args[1:], kwargs.get("dim")) if _is_dims(a)), None)
        axes = list(range(tensor.ndim)) if dims is None else [dims] if _is_int(dims) else list(dims)
        axes = axes or list(range(tensor.ndim))
        means = [mean_place(p, axes) for p in places]
        if output.ndim < tensor.ndim:
            kept = [i for i in range(tensor.ndim) if i not in {a % tensor.ndim for a in axes}]
            means = [m.reshape([tensor.shape[i] for i in kept]) for m in means]
        for result in outputs:
            if result.shape == output.shape:
                self.known[result] = tuple(m.expand(output.shape) for m in means)

    def _convolve(self, args: tuple[Any, ...], output: Tensor) -> None:
        tensor, weight, _, stride, padding, dilation, transposed, *_ = args
        middles = [(length - 1) / 2 for length in weight.shape[2:]]
        at_middles, at_means = (
            _window_points(points, stride, padding, dilation, bool(transposed))
            for points in (middles, _weighted_means(weight))
        )
        self._windows(tensor, output, at_middles, at_means)

    def _pool(self, args: tuple[Any, ...], output: Tensor) -> None:
        tensor, kernel = args[0], list(args[1])
        stride = list(args[2]) if len(args) > 2 and args[2] else kernel
        # After the padding, a maximum has the dilation, and a mean has flags.
        padding, dilation = (
            list(args[at]) if len(args) > at and isinstance(args[at], (list, tuple)) else [default]
            for at, default in ((3, 0), (4, 1))
        )
        middles = [(length - 1) / 2 for length in kernel]
        self._windows(tensor, output, _window_points(middles, stride, padding, dilation))

    def _sample(self, tensor: Tensor, output: Tensor, middle: Callable[[int, int], Tensor]) -> None:
        self._windows(tensor, output, lambda _, cells, size: middle(cells, size))

    def _windows(
        self, tensor: Tensor, output: Tensor, middle: Points, focus: Points | None = None
    ) -> None:
        """Set the output's places to those of points of its windows over `tensor`.

        `tensor` is `[batch, channel, *space]`. `middle(axis, cells, size)` returns a point for each
        of `cells` windows, in cells of `tensor`, which has `size` cells along the axis; `focus`
        returns the points for the focus, if they differ.
        """
        places = self.places(tensor)
        if places is None or tensor.ndim != output.ndim:  # without a batch axis
            return
        window_places = []
        for number, place in enumerate(places):
            points = focus if focus and number > self.axes else middle
            plane = mean_place(place, [1])
            for axis in range(output.ndim - 2):
                in_cells = points(axis, output.shape[2 + axis], tensor.shape[2 + axis])
                plane = _interpolated(plane, 2 + axis, in_cells.float())
            window_places.append(plane.expand(output.shape))
        self.known[output] = tuple(window_places)


def _tensors(value: Any) -> Any:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_dims(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, (list, tuple)) and all(map(_is_int, value)))


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(a in (1, b) for a, b in pairs)


def without_repeats(place: Tensor) -> Tensor:
    """The places with every axis along which they are expanded (stride 0) cut to one entry."""
    for axis in range(place.ndim):
        if place.stride(axis) == 0:
            place = place.narrow(axis, 0, 1)
    return place


def _without_untouched(place: Tensor, func: Any, args: tuple[Any, ...]) -> Tensor:
    """The places with one entry along each expanded axis that a move leaves alone.

    A move that copies would fill these axes again. The result may be expanded to the move's output.
    """
    packet, axes = func.overloadpacket, range(place.ndim)
    if packet is aten.roll:
        touched = set(args[2] if len(args) > 2 else ()) or set(axes)
    elif packet is aten.flip:
        touched = set(args[1])
    elif packet is aten.index_select:
        touched = {args[1]}
    elif packet is aten.index:
        touched = {axis for axis, index in enumerate(args[1]) if index is not None}
    elif packet is aten.constant_pad_nd:
        pairs = zip(args[1][::2], args[1][1::2], strict=True)  # from the last axis on
        touched = {-1 - number for number, pair in enumerate(pairs) if any(pair)}
    else:
        return place
    touched = {axis % place.ndim for axis in touched}
    for axis in axes:
        if axis not in touched and place.stride(axis) == 0:
            place = place.narrow(axis, 0, 1)
    return place


def _viewed(place: Tensor, shape: Sequence[int]) -> Tensor:
    """The places in another shape, with expanded axes where they are constant."""
    if math.prod(shape) != place.numel():  # a view as another type
        raise ValueError("the entries are not those of the places")
    target, split = list(shape), []
    for before, after in _groups(place.shape, shape):
        if all(place.stride(axis) == 0 or place.shape[axis] == 1 for axis in before):
            for axis in before:
                place = place.narrow(axis, 0, 1)
            for axis in after:
                target[axis] = 1
        elif len(after) > 1:
            split += after
    place = place.reshape(target)
    for axis in split:
        first = place.narrow(axis, 0, 1)
        others = (place.narrow(axis, 1, 1), place) if place.shape[axis] > 1 else ()
        if all(bool(((first == p) | (first.isnan() & p.isnan())).all()) for p in others):
            place = first  # compared with one entry before all others
    return place.expand(shape)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of consecutive axes of two shapes that hold the same entries."""
    groups = []
    first, second, sizes = [], [], [1, 1]
    i = j = 0
    while i < len(before) or j < len(after):
        if j == len(after) or (i < len(before) and sizes[0] <= sizes[1]):
            first.append(i)
            sizes[0] *= before[i]
            i += 1
        else:
            second.append(j)
            sizes[1] *= after[j]
            j += 1
        if sizes[0] == sizes[1] and first and second:
            groups.append((first, second))
            first, second, sizes = [], [], [1, 1]
    return [*groups, (first, second)] if first or second else groups


def _agree(parts: Sequence[Places], axis: int) -> bool:
    """Whether all parts have the same places, which are constant along an axis."""
    first, *others = parts
    if any(place.stride(axis) != 0 or place.ndim < 3 for part in parts for place in part):
        return False
    return all(
        place.narrow(axis, 0, 1).allclose(other.narrow(axis, 0, 1), 0, ROUNDING, equal_nan=True)
        for part in others
        for place, other in zip(first, part, strict=True)
    )


def _joined(places: Sequence[Tensor], axis: int) -> Tensor:
    """Places joined along an axis; other axes that are expanded in all of them have one entry."""
    for other in range(places[0].ndim):
        if other != axis and all(place.stride(other) == 0 for place in places):
            places = [place.narrow(other, 0, 1) for place in places]
    return torch.cat(list(places), axis)


def _weighted_mean(places: Sequence[Tensor], weights: Sequence[int], axis: int) -> Tensor:
    """The mean of places that are constant along an axis, of which one entry is kept."""
    total = sum(weights)
    terms = (p.narrow(axis, 0, 1) * (w / total) for p, w in zip(places, weights, strict=True))
    return functools.reduce(torch.add, terms)


def mean_place(place: Tensor, axes: Sequence[int]) -> Tensor:
    """The mean of the places along some axes, without the NaNs; the axes are kept."""
    for axis in axes:
        # Places that do not differ along an axis need no mean, which would round.
        if place.stride(axis) == 0 or place.shape[axis] == 1:
            place = place.narrow(axis, 0, 1)
        else:
            place = place.nanmean(axis, keepdim=True)
    return place


def _variation(places: Places) -> float:
    """The variance of the places of all entries, summed over the axes of the input."""
    total = 0.0
    for place in map(without_repeats, places[1:]):
        finite = place[place.isfinite()]
        if finite.numel() > 1:
            total += float(finite.var())
    return total


def _interpolated(plane: Tensor, axis: int, points: Tensor) -> Tensor:
    """Values at `points` along an axis, in cells: linear interpolation and extrapolation."""
    cells = plane.shape[axis]
    if cells == 1:
        shape = list(plane.shape)
        shape[axis] = len(points)
        return plane.expand(shape)
    low = points.floor().clamp(0, cells - 2).long()
    share = (points - low).view([-1 if a == axis else 1 for a in range(plane.ndim)])
    first, second = plane.index_select(axis, low), plane.index_select(axis, low + 1)
    mixed = first + share * (second - first)
    # If one of the two cells is NaN, the nearer cell's value is used.
    mixed = torch.where(mixed.isnan() & (share < 0.5), first, mixed)
    return torch.where(mixed.isnan() & (share >= 0.5), second, mixed)


def _weighted_means(weight: Tensor) -> list[float]:
    """The mean place in a kernel `[channel, channel, *kernel]` along each axis, from its start.

    Places are weighted by the squared weights of all channels.
    """
    energy = weight.detach().double().square().sum((0, 1))
    if not energy.isfinite().all() or not energy.any():
        energy = torch.ones_like(energy)  # broken weights are reported where they matter
    means = []
    for axis, length in enumerate(energy.shape):
        along = energy.movedim(axis, 0).reshape(length, -1).sum(1)
        positions = torch.arange(length, dtype=along.dtype, device=along.device)
        means.append(float((along * positions).sum() / along.sum()))
    return means


def _window_points(
    points: Sequence[float],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
) -> Points:
    """A function that returns one point of each window of a convolution or pooling, in cells.

    `points` are in steps of the kernel from its start. Each setting has one number per axis, or one
    number for all axes.
    """

    def of_windows(axis: int, cells: int, size: int) -> Tensor:
        point, step, before, gap = (
            setting[axis % len(setting)] for setting in (points, stride, padding, dilation)
        )
        offset = point * gap - before
        window = torch.arange(cells, dtype=torch.float64)
        return (window - offset) / step if transposed else window * step + offset

    return of_windows


def _half_pixel(cells: int, size: int) -> Tensor:
    middles: Tensor = (torch.arange(cells) + 0.5) * (size / cells) - 0.5
    return middles


def _aligned(cells: int, size: int) -> Tensor:
    middles: Tensor = torch.arange(cells) * ((size - 1) / max(cells - 1, 1))
    return middles


def _adaptive(cells: int, size: int) -> Tensor:
    edges = [
        (math.floor(i * size / cells), math.ceil((i + 1) * size / cells)) for i in range(cells)
    ]
    return torch.tensor([(first + last - 1) / 2 for first, last in edges])
