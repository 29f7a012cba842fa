"""Does a map depend on what the model has learnt? (Adebayo et al. 2018.)

The weights are drawn anew from the top layer down, and the map after each is compared with the
first one: a map that stays as it was does not explain the model. The same for the label: the map of
another one should differ (Sixt et al. 2020). Low similarity is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import EvaluationError, LayerError, MissingExtra, nearest
from mmcam.evaluators.maps import Map, Mask, pearson, spearman

T = TypeVar("T")
Similarity = Callable[[Map, Map], float]

WINDOW = 11


def rank_similarity(first: Map, second: Map) -> float:
    """Spearman's rank correlation with signs, in [-1, 1]; 0 where either map is constant.

    Raises:
        EvaluationError: other shapes, or fewer than two cells that both have seen.
    """
    return spearman(first, second)


def absolute_rank_similarity(first: Map, second: Map) -> float:
    """Spearman's rank correlation of absolute values, in [-1, 1]; 0 where either is constant.

    Raises:
        EvaluationError: as `rank_similarity`.
    """
    return spearman(np.abs(first), np.abs(second))


def ssim(first: Map, second: Map) -> float:
    """Structural similarity, in [-1, 1]: 1 for maps that are equal up to scale and offset.

    The mean of Wang et al. 2004, eq. 13, over windows of 11 x 11 under a Gaussian of 1.5 pixels
    that lie within the map, on maps that are min-max scaled to [0, 1]; a constant map becomes 0.
    For a clip the mean over its frames.

    Raises:
        EvaluationError: other shapes, or less than a window that both maps have seen.
    """
    scaled = [_scaled(part) for part in _both_seen(first, second)]
    if min(scaled[0].shape[-2:]) < WINDOW:
        raise EvaluationError(
            f"maps of shape {scaled[0].shape} are smaller than SSIM's window of {WINDOW} pixels; "
            "compare them on the pixels of the original"
        )
    x, y = (a.reshape(-1, *a.shape[-2:]) for a in scaled)
    mean_x, mean_y = _window_means(x), _window_means(y)
    var_x = _window_means(x * x) - mean_x**2
    var_y = _window_means(y * y) - mean_y**2
    covariance = _window_means(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def hog_similarity(first: Map, second: Map) -> float:
    """The Pearson correlation of two maps' histograms of oriented gradients, in [-1, 1].

    scikit-image's descriptor with 9 orientations, 8 x 8 pixels a cell and 3 x 3 cells a block, on
    maps scaled as in `ssim`; 0 where either map is constant. The frames of a clip are joined.

    Raises:
        MissingExtra: scikit-image is not installed.
        EvaluationError: other shapes, or less than a block (24 x 24) that both maps have seen.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise MissingExtra(
            "histograms of oriented gradients need scikit-image; pip install 'mmcam[evaluate]'"
        ) from error
    scaled = [_scaled(part) for part in _both_seen(first, second)]
    if min(scaled[0].shape[-2:]) < 24:
        raise EvaluationError(
            f"maps of shape {scaled[0].shape} are smaller than a block of 24 pixels; compare them "
            "on the pixels of the original"
        )
    x, y = (np.concatenate([hog(frame) for frame in a.reshape(-1, *a.shape[-2:])]) for a in scaled)
    return pearson(x, y)


SIMILARITIES: dict[str, Similarity] = {
    "spearman": rank_similarity,
    "absolute-spearman": absolute_rank_similarity,
    "ssim": ssim,
    "hog": hog_similarity,
}
"""Every measure of how alike two maps are."""


def random_label_similarity(
    explain: Callable[[int], Map],
    label: int,
    classes: int,
    *,
    similarity: Similarity = rank_similarity,
    seed: int = 0,
) -> float:
    """How alike the maps of a label and of another one are, drawn at random (Sixt et al. 2020).

    Args:
        explain: the map of a label.
        label: the one explained.
        classes: how many labels there are.
        similarity: one of `SIMILARITIES`.
        seed: of the draw.

    Raises:
        EvaluationError: there is no other label, or as `similarity`.
    """
    if classes < 2 or not 0 <= label < classes:
        raise EvaluationError(
            f"label={label} of {classes} classes has no other label to compare with"
        )
    other = int(np.random.default_rng(seed).integers(classes - 1))
    return similarity(explain(label), explain(other + (other >= label)))


def cascading_randomization(
    model: nn.Module,
    explain: Callable[[], T],
    layers: Sequence[str] | None = None,
    *,
    independent: bool = False,
    seed: int = 0,
) -> dict[str | None, T]:
    """What `explain` gives for a model whose layers are drawn anew, one after the other.

    Weights are drawn by the layers' own initialisation; parameters of layers without one from a
    normal distribution of the same mean and deviation. Buffers change only where the layer's own
    initialisation resets them, as batch norm's does. The model is left as it was, to the last bit,
    and so is torch's random state, also when something raises (Adebayo et al. 2018, section 3).

    Args:
        model: any module; it must not be in use elsewhere meanwhile.
        explain: makes whatever is to be compared, from the model as it is.
        layers: in the order in which they are drawn, each with all layers inside it. When None,
            every layer with parameters of its own, by itself, the last one registered first.
        independent: draw one layer at a time, with the others as learnt.
        seed: of the draws.

    Returns:
        None with the result for the model as it is, then each layer with that after its draw.

    Raises:
        LayerError: there is no such layer, or none with parameters.
    """
    modules = dict(model.named_modules())
    if layers is None:
        parts = {name: [module] for name, module in reversed(modules.items()) if _drawn(module)}
    else:
        parts = {name: _parts(modules, name) for name in layers}
    found: dict[str | None, T] = {None: explain()}
    with _restored(model) as restore:
        for number, (name, drawn) in enumerate(parts.items()):
            if independent:
                restore()
            _draw(drawn, seed, number)
            found[name] = explain()
    return found


def _parts(modules: Mapping[str, nn.Module], name: str) -> list[nn.Module]:
    """The layers inside one that can be drawn anew.

    Raises:
        LayerError: there is no such layer, or nothing to draw in it.
    """
    if name not in modules:
        raise LayerError(
            f"the model has no layer '{name}'; nearest: {nearest(name, modules)}. "
            "List them: mmcam list layers --model ..."
        )
    parts = [module for module in modules[name].modules() if _drawn(module)]
    if not parts:
        raise LayerError(f"layer '{name}' has no parameters to draw anew; leave it out")
    return parts


@contextmanager
def _restored(model: nn.Module) -> Iterator[Callable[[], None]]:
    """All parameters and buffers as they are, tensors and values, afterwards and when asked."""
    tables = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._parameters, module._buffers)
    ]
    tensors = {
        id(tensor): tensor for _, saved in tables for tensor in saved.values() if tensor is not None
    }
    values = {key: tensor.detach().clone() for key, tensor in tensors.items()}

    def restore() -> None:
        for table, saved in tables:
            table.clear()
            table.update(saved)  # type: ignore[arg-type]
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(values[key])

    try:
        yield restore
    finally:
        restore()


def _drawn(module: nn.Module) -> bool:
    """Whether a module holds, itself, something that is drawn anew."""
    own: list[Tensor | None] = [*module._parameters.values()]
    if callable(getattr(module, "reset_parameters", None)):
        own += module._buffers.values()
    return any(tensor is not None and tensor.is_floating_point() for tensor in own)


def _draw(parts: Sequence[nn.Module], seed: int, number: int) -> None:
    devices = sorted({t.get_device() for part in parts for t in part.parameters() if t.is_cuda})
    # A model may have been built under the same small seed, which would give its weights again.
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with torch.random.fork_rng(devices), torch.no_grad():
        # Not torch.manual_seed, which would reach devices that the model does not use.
        torch.default_generator.manual_seed(mixed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(mixed)
        for module in parts:
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module._parameters.values():
                if parameter is not None and parameter.is_floating_point():
                    spread = float(parameter.double().std(correction=0)) or 0.02
                    parameter.normal_(float(parameter.double().mean()), spread)


def _both_seen(first: Map, second: Map) -> tuple[Map, Map]:
    """The frames, rows and columns that both maps have seen.

    Raises:
        EvaluationError: other shapes, or holes in what they have seen.
    """
    if first.shape != second.shape:
        raise EvaluationError(
            f"maps of shapes {first.shape} and {second.shape} cannot be compared; make both of one "
            "sample"
        )
    seen: Mask = ~(np.isnan(first) | np.isnan(second))
    if not seen.any():
        raise EvaluationError("no cell was seen in both maps")
    ranges = [
        np.flatnonzero(seen.any(tuple(set(range(seen.ndim)) - {a}))) for a in range(seen.ndim)
    ]
    common = np.ix_(*ranges)
    if not seen[common].all():
        raise EvaluationError(
            "what both maps have seen is no rectangle, so structure cannot be compared over it; "
            "use a rank correlation"
        )
    return first[common].astype(np.float64), second[common].astype(np.float64)


def _scaled(heatmap: Map) -> Map:
    low = heatmap.min()
    scaled: Map = (heatmap - low) / ((heatmap.max() - low) or 1.0)
    return scaled


def _window_means(
    frames: Float[np.ndarray, "frame h w"],
) -> Float[np.ndarray, "frame rows columns"]:
    kernel = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(frames, WINDOW, axis)
        frames = windows @ kernel
    return frames
