"""Faithfulness of maps: scores of samples with only some of their pixels kept.

Grad-CAM++ section 4.1: average drop, increase in confidence and win, from the model's probabilities
on the map times the picture (eq. 25). Grad-CAM++ section 7.2: the remaining confidence when only
the pixels above a quantile of the map are kept. Petsiuk et al. 2018, section 4.2: deletion and
insertion.

All functions take pictures `[h w 3]` and clips `[t h w 3]`. Pixels outside the model's input (NaN
in the map) are not changed. Multiplication (eq. 25) uses the positive part of a map, so that an
empty map gives a black sample; ranking uses the map as it is, signs included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, positive, read_map

Pixels = UInt8[np.ndarray, "*_ _ _ 3"]
Score = Callable[[UInt8[np.ndarray, "n *_ _ _ 3"]], Float[np.ndarray, " n"]]
"""Scores perturbed samples: the model's probability of one label, or any other number."""
Substitute = Callable[[Pixels], Pixels]
"""Computes the substitute of deleted pixels from the sample."""

THETAS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Curve:
    """Scores `y` over `x`, the fraction of the visible pixels that is changed, in [0, 1]."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]

    @property
    def area(self) -> float:
        """The area under the curve by the trapezoid rule."""
        return float(np.sum(np.diff(self.x) * (self.y[1:] + self.y[:-1]) / 2))


def drop(full: float, explained: float) -> float:
    """The relative drop of confidence when only the explanation map is shown, in percent.

    100 max(0, Y - O) / Y (Grad-CAM++ section 4.1, i). The mean over a dataset is the average drop.

    Args:
        full: the probability of the label on the whole sample.
        explained: its probability on the map times the sample.

    Raises:
        EvaluationError: a number that is not a probability, or `full` is 0.
    """
    _check_probabilities(full, explained)
    _check_confidence(full)
    return 100 * max(0.0, full - explained) / full


def increase(full: float, explained: float) -> bool:
    """Whether the confidence is higher when only the explanation map is shown.

    Y < O (Grad-CAM++ section 4.1, ii). The fraction over a dataset is the increase in confidence.

    Raises:
        EvaluationError: a number that is not a probability.
    """
    _check_probabilities(full, explained)
    return explained > full


def win(full: float, explained: float, other: float) -> bool:
    """Whether a map loses less confidence than another method's map of the same sample.

    Y - O_1 < Y - O_2 (Grad-CAM++ section 4.1, iii). A tie is a win for neither method, so the win
    rates of two methods sum to 1 minus the fraction of ties.

    Args:
        full: the probability of the label on the whole sample.
        explained: its probability on this method's map times the sample.
        other: its probability on the other method's map times the sample.

    Raises:
        EvaluationError: a number that is not a probability.
    """
    _check_probabilities(full, explained, other)
    return explained > other


def explanation_map(pixels: Pixels, heatmap: Map) -> Pixels:
    """The map times the sample, E = L * I (Grad-CAM++ eq. 25), rounded to integers.

    L is the positive part of the map divided by its maximum; where L is 0 the sample is black.

    Raises:
        EvaluationError: the map does not have the shape of the pixels, or as `maps.read_map`.
    """
    _check_shapes(pixels, heatmap)
    values, visible = positive(heatmap)
    weights = np.where(visible, values / (values.max() or 1.0), 1.0)
    masked: Pixels = np.rint(pixels * weights[..., None]).astype(np.uint8)
    return masked


def confidences(pixels: Pixels, heatmap: Map, score: Score) -> tuple[float, float]:
    """The scores of a sample and of its explanation map, as inputs of `drop` and `increase`.

    Raises:
        EvaluationError: as `explanation_map`, or a score that is not finite.
    """
    full, explained = _score_samples(iter([pixels, explanation_map(pixels, heatmap)]), score, 2)
    return float(full), float(explained)


def quantile_curve(
    pixels: Pixels,
    heatmap: Map,
    score: Score,
    thetas: Sequence[float] = THETAS,
    chunk: int = 16,
) -> Curve:
    """The remaining confidence, in percent, with the lowest fraction `theta` of the pixels black.

    For each theta, gamma is the theta-quantile of the map over its visible cells, pixels below
    gamma are set to 0, and y is 100 O / Y (Grad-CAM++ section 7.2). Pixels of equal value are kept
    or blackened together: they are kept until theta covers all of them. At theta = 1 all visible
    pixels are black.

    Args:
        pixels: the sample.
        heatmap: its map.
        score: the probability of the label.
        thetas: fractions in [0, 1].
        chunk: the number of samples per call of `score`.

    Raises:
        EvaluationError: a score that is not a probability, a confidence of 0, a theta outside
            [0, 1], or as `explanation_map`.
    """
    _check_shapes(pixels, heatmap)
    values, visible = read_map(heatmap)
    fractions = np.asarray(thetas, dtype=np.float64)
    if not fractions.size or not ((fractions >= 0) & (fractions <= 1)).all():
        raise EvaluationError(f"thetas={list(thetas)} are not fractions; give numbers from 0 to 1")
    ordered = np.append(np.sort(values[visible]), np.inf)
    gammas = ordered[np.floor(fractions * visible.sum() + 1e-9).astype(int)]

    def perturbed_samples() -> Iterator[Pixels]:
        yield pixels
        for gamma in gammas:
            yield np.where((values < gamma)[..., None], 0, pixels).astype(np.uint8)

    full, *remaining = _score_samples(perturbed_samples(), score, chunk)
    _check_probabilities(full, *remaining)
    _check_confidence(full)
    return Curve(fractions, 100 * np.array(remaining) / full)


def mean_colour(pixels: Pixels) -> Pixels:
    """A sample of the same shape, filled with the mean colour of `pixels`."""
    mean = np.rint(pixels.reshape(-1, 3).mean(0)).astype(np.uint8)
    return np.broadcast_to(mean, pixels.shape).copy()


def black(pixels: Pixels) -> Pixels:
    """A black sample of the same shape."""
    return np.zeros_like(pixels)


def blurred(pixels: Pixels, sigma: float = 5.0, size: int = 11) -> Pixels:
    """The sample blurred by a Gaussian of `size` x `size` pixels, with mirrored edges.

    The frames of a clip are blurred separately. `size` is odd; `sigma` is the standard deviation in
    pixels. The defaults are those of Petsiuk et al. 2018 for pictures of 224 x 224.
    """
    radius = size // 2
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    values = pixels.astype(np.float64)
    for axis in (-3, -2):
        values = _smooth(values, kernel, axis)
    return np.rint(values).astype(np.uint8)


def deletion(
    pixels: Pixels,
    heatmap: Map,
    score: Score,
    *,
    steps: int = 224,
    substitute: Substitute = mean_colour,
    chunk: int = 16,
) -> Curve:
    """The score while pixels are deleted, the most important first; a low area is good.

    Petsiuk et al. 2018, section 4.2, with 224 steps for pictures of 224 x 224. Pixels of equal
    value are deleted in reading order. The authors set deleted pixels to 0 after normalisation,
    which is close to the mean colour.

    Args:
        pixels: the sample.
        heatmap: its map.
        score: scores perturbed samples.
        steps: the number of deletion steps; `steps` + 1 samples are scored.
        substitute: computes the values of deleted pixels.
        chunk: the number of samples per call of `score`.

    Raises:
        EvaluationError: as `explanation_map`, `steps` or `chunk` below 1, a substitute of another
            shape or dtype, or a score that is not finite.
    """
    return _removal_curve(pixels, substitute(pixels), pixels, heatmap, score, steps, chunk)


def insertion(
    pixels: Pixels,
    heatmap: Map,
    score: Score,
    *,
    steps: int = 224,
    substitute: Substitute = blurred,
    chunk: int = 16,
) -> Curve:
    """The score while pixels are inserted, the most important first; a high area is good.

    As `deletion`, but pixels of the sample replace those of the substitute. Pixels outside the
    model's input are present from the start.

    Raises:
        EvaluationError: as `deletion`.
    """
    return _removal_curve(substitute(pixels), pixels, pixels, heatmap, score, steps, chunk)


def _removal_curve(
    start: Pixels, end: Pixels, pixels: Pixels, heatmap: Map, score: Score, steps: int, chunk: int
) -> Curve:
    """Scores while the pixels of `end` replace those of `start`, in descending order of the map."""
    _check_shapes(pixels, heatmap)
    values, visible = read_map(heatmap)
    if steps < 1 or chunk < 1:
        raise EvaluationError(f"steps={steps}, chunk={chunk}: both must be 1 or more")
    for sample in (start, end):
        if sample.shape != pixels.shape or sample.dtype != np.uint8:
            raise EvaluationError(
                f"the substitute has shape {sample.shape} and type {sample.dtype}; it must be like "
                f"the sample, {pixels.shape} of uint8"
            )
    order = np.full(visible.shape, visible.sum(), dtype=np.int64)
    ranks = np.empty(int(visible.sum()), dtype=np.int64)
    ranks[np.argsort(-values[visible], kind="stable")] = np.arange(len(ranks))
    order[visible] = ranks
    counts = np.rint(np.linspace(0, len(ranks), steps + 1)).astype(int)

    def perturbed_samples() -> Iterator[Pixels]:
        for count in counts:
            perturbed = np.where((order < count)[..., None], end, start)
            yield np.where(visible[..., None], perturbed, pixels)

    scores = _score_samples(perturbed_samples(), score, chunk)
    return Curve(counts / len(ranks), np.array(scores))


def _check_shapes(pixels: Pixels, heatmap: Map) -> None:
    if heatmap.shape != pixels.shape[:-1]:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} does not match pixels of shape {pixels.shape}; "
            "resize it to the original, for the same frames"
        )


def _score_samples(samples: Iterator[Pixels], score: Score, chunk: int) -> list[float]:
    """The scores of samples, computed in chunks to bound memory."""
    scores: list[float] = []
    pending: list[Pixels] = []

    def flush() -> None:
        values = np.asarray(score(np.stack(pending)), dtype=np.float64)
        if values.shape != (len(pending),) or not np.isfinite(values).all():
            raise EvaluationError(
                f"the score returned {values.tolist()} for {len(pending)} samples; it must return "
                "one finite number for each"
            )
        scores.extend(values.tolist())
        pending.clear()

    for sample in samples:
        pending.append(sample)
        if len(pending) == chunk:
            flush()
    if pending:
        flush()
    return scores


def _smooth(values: Map, kernel: Float[np.ndarray, " size"], axis: int) -> Map:
    radius = len(kernel) // 2
    widths = [(0, 0)] * values.ndim
    widths[axis] = (radius, radius)
    padded = np.pad(values, widths, mode="symmetric")
    length = values.shape[axis]
    shifted = (np.take(padded, range(k, k + length), axis) for k in range(len(kernel)))
    smoothed: Map = sum(
        (weight * part for weight, part in zip(kernel, shifted, strict=True)), 0 * values
    )
    return smoothed


def _check_probabilities(*values: float) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise EvaluationError(
                f"{value} is not a probability; give confidences from 0 to 1, such as the "
                "softmax of a logit"
            )


def _check_confidence(full: float) -> None:
    if full == 0:
        raise EvaluationError(
            "the model's confidence in the label is 0 on the whole sample, so its drop is "
            "undefined; evaluate a label that the model predicts"
        )
