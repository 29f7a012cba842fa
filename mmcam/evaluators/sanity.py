"""Sanity checks: dependence of a map on the model's weights and the label (Adebayo et al. 2018).

The weights are randomized from the top layer down, and the map after each layer is compared with
the original one: a map that does not change does not explain the model. Likewise, the map of
another label should be different (Sixt et al. 2020). Low similarity is good.
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
    """Spearman's rank correlation of signed values, in [-1, 1]; 0 if either map is constant.

    Raises:
        EvaluationError: different shapes, or fewer than two jointly visible cells.
    """
    return spearman(first, second)


def absolute_rank_similarity(first: Map, second: Map) -> float:
    """Spearman's rank correlation of absolute values, in [-1, 1]; 0 if either is constant.

    Raises:
        EvaluationError: as `rank_similarity`.
    """
    return spearman(np.abs(first), np.abs(second))


def ssim(first: Map, second: Map) -> float:
    """Structural similarity, in [-1, 1]: 1 for maps that are equal up to positive scale and offset.

    The mean of Wang et al. 2004, eq. 13, over 11 x 11 windows inside the map, weighted by a
    Gaussian with a standard deviation of 1.5 pixels, on maps that are min-max scaled to [0, 1]; a
    constant map becomes 0. For a clip, the mean over its frames.

    Raises:
        EvaluationError: different shapes, or a jointly visible area that is empty, not a rectangle
            or smaller than a window.
    """
    scaled = [_scaled(part) for part in _jointly_visible(first, second)]
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
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def hog_similarity(first: Map, second: Map) -> float:
    """The Pearson correlation of two maps' histograms of oriented gradients, in [-1, 1].

    scikit-image's descriptor with 9 orientations, 8 x 8 pixels per cell and 3 x 3 cells per block,
    on maps scaled as in `ssim`; 0 if either map is constant. The frames of a clip are concatenated.

    Raises:
        MissingExtra: scikit-image is not installed.
        EvaluationError: different shapes, or a jointly visible area that is empty, not a rectangle
            or smaller than a block (24 x 24).
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise MissingExtra(
            "histograms of oriented gradients need scikit-image; pip install 'mmcam[evaluate]'"
        ) from error
    scaled = [_scaled(part) for part in _jointly_visible(first, second)]
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
"""The similarity measures of two maps, by name."""


def random_label_similarity(
    explain: Callable[[int], Map],
    label: int,
    classes: int,
    *,
    similarity: Similarity = rank_similarity,
    seed: int = 0,
) -> float:
    """The similarity of the maps of a label and of a random other label (Sixt et al. 2020).

    Args:
        explain: returns the map of a label.
        label: the explained label.
        classes: the number of labels.
        similarity: one of `SIMILARITIES`.
        seed: the seed of the random label.

    Raises:
        EvaluationError: there is no other label, or as `similarity`.
        MissingExtra: as `similarity`.
    """
    if classes < 2 or not 0 <= label < classes:
        raise EvaluationError(
            f"label={label} of {classes} classes leaves no other label to compare with"
        )
    draw = int(np.random.default_rng(seed).integers(classes - 1))
    return similarity(explain(label), explain(draw + (draw >= label)))


def cascading_randomization(
    model: nn.Module,
    explain: Callable[[], T],
    layers: Sequence[str] | None = None,
    *,
    independent: bool = False,
    seed: int = 0,
) -> dict[str | None, T]:
    """The results of `explain` for a model whose layers are randomized one after the other.

    Adebayo et al. 2018, section 3. Layers are re-initialized by their own `reset_parameters`;
    parameters of layers without it are drawn from a normal distribution with their mean and
    standard deviation (0.02 if they are constant). Buffers change only if the layer's own
    initialisation resets them, as batch norm's does. The model and torch's random state are
    restored bit for bit, also after an exception.

    Args:
        model: any module; no other thread may use the module during the call.
        explain: computes the result to compare from the model's current weights.
        layers: names in the order of randomization; each is randomized with all layers inside it.
            If None, all layers with parameters of their own, the last registered first.
        independent: randomize one layer at a time, with the others as trained.
        seed: the seed of the random weights.

    Returns:
        The result for the original model under None, then the result for each layer.

    Raises:
        LayerError: a name in `layers` is not a layer, or has no parameters.
    """
    modules = dict(model.named_modules())
    if layers is None:
        groups = {
            name: [module] for name, module in reversed(modules.items()) if _is_randomizable(module)
        }
    else:
        groups = {name: _randomizable_modules(modules, name) for name in layers}
    results: dict[str | None, T] = {None: explain()}
    with _restored(model) as restore:
        for draw_index, (name, group) in enumerate(groups.items()):
            if independent:
                restore()
            _randomize(group, seed, draw_index)
            results[name] = explain()
    return results


def _randomizable_modules(modules: Mapping[str, nn.Module], name: str) -> list[nn.Module]:
    """The modules of a layer that can be randomized.

    Raises:
        LayerError: there is no such layer, or it has nothing to randomize.
    """
    if name not in modules:
        raise LayerError(
            f"the model has no layer '{name}'; nearest: {nearest(name, modules)}. "
            "List them: mmcam list layers --model ..."
        )
    randomizable = [module for module in modules[name].modules() if _is_randomizable(module)]
    if not randomizable:
        raise LayerError(f"layer '{name}' has no parameters to randomize; leave it out")
    return randomizable


@contextmanager
def _restored(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Restore all parameters and buffers on exit, and on each call of the yielded function."""
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


def _is_randomizable(module: nn.Module) -> bool:
    """Whether a module has tensors of its own to randomize."""
    tensors: list[Tensor | None] = [*module._parameters.values()]
    if callable(getattr(module, "reset_parameters", None)):
        tensors += module._buffers.values()
    return any(tensor is not None and tensor.is_floating_point() for tensor in tensors)


def _randomize(modules: Sequence[nn.Module], seed: int, draw_index: int) -> None:
    devices = sorted(
        {t.get_device() for module in modules for t in module.parameters() if t.is_cuda}
    )
    # A model initialized under the same small seed would get its own weights again.
    draw_seed = int(np.random.SeedSequence([seed, draw_index]).generate_state(1)[0])
    with torch.random.fork_rng(devices), torch.no_grad():
        # Not torch.manual_seed, which would also seed devices that the model does not use.
        torch.default_generator.manual_seed(draw_seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(draw_seed)
        for module in modules:
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module._parameters.values():
                if parameter is not None and parameter.is_floating_point():
                    std = float(parameter.double().std(correction=0)) or 0.02
                    parameter.normal_(float(parameter.double().mean()), std)


def _jointly_visible(first: Map, second: Map) -> tuple[Map, Map]:
    """The frames, rows and columns that are visible in both maps.

    Raises:
        EvaluationError: different shapes, or a jointly visible area that is empty or not a
            rectangle.
    """
    if first.shape != second.shape:
        raise EvaluationError(
            f"maps of shapes {first.shape} and {second.shape} cannot be compared; use two "
            "maps of the same sample"
        )
    visible: Mask = ~(np.isnan(first) | np.isnan(second))
    if not visible.any():
        raise EvaluationError("no cell is visible in both maps; use two maps of the same crop")
    ranges = [
        np.flatnonzero(visible.any(tuple(set(range(visible.ndim)) - {a})))
        for a in range(visible.ndim)
    ]
    common = np.ix_(*ranges)
    if not visible[common].all():
        raise EvaluationError(
            "the cells visible in both maps do not form a rectangle, so their structure cannot be "
            "compared; use a rank correlation"
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
