"""Does a map show what the model used? Scores of samples of which only some pixels are left.

Grad-CAM++ section 4.1: the model sees the map times the picture (eq. 25); average drop, increase in
confidence and win, from its probabilities. Section 7.2: what is left of the confidence when only
the pixels above a quantile of the map are shown. Petsiuk et al. 2018, section 4.2: deletion and
insertion.

Pictures `[h w 3]` and clips `[t h w 3]` alike. Pixels that the model did not see (NaN in the map)
are left as they are. What multiplies (eq. 25) takes the positive part of a map, so an empty one
shows nothing; what ranks takes a map as it is, signs included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from mmcam.errors import EvaluationError
from mmcam.evaluators.maps import Map, positive, read

Pixels = UInt8[np.ndarray, "*_ _ _ 3"]
Score = Callable[[UInt8[np.ndarray, "n *_ _ _ 3"]], Float[np.ndarray, " n"]]
"""What the model makes of each of some changed samples: its probability of one label, or any other
number."""
Substitute = Callable[[Pixels], Pixels]
"""What stands for deleted pixels, made from the sample itself."""

THETAS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Curve:
    """Scores `y` along `x`, the share of the seen pixels that was changed, from 0 to 1."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]

    @property
    def area(self) -> float:
        """The area under the curve by the trapezoid rule."""
        return float(np.sum(np.diff(self.x) * (self.y[1:] + self.y[:-1]) / 2))


def drop(full: float, explained: float) -> float:
    """How much confidence is lost when only the explanation is shown, in percent of it.

    100 max(0, Y - O) / Y (Grad-CAM++ section 4.1, i). The mean over a dataset is the average drop.

    Args:
        full: the probability of the label on the whole sample.
        explained: its probability on the map times the sample.

    Raises:
        EvaluationError: a number that is no probability, or a `full` of 0.
    """
    _check_probabilities(full, explained)
    _check_confidence(full)
    return 100 * max(0.0, full - explained) / full


def increase(full: float, explained: float) -> bool:
    """Whether the confidence is higher when only the explanation is shown.

    Y < O (Grad-CAM++ section 4.1, ii). The share over a dataset is the increase in confidence.

    Raises:
        EvaluationError: a number that is no probability.
    """
    _check_probabilities(full, explained)
    return explained > full


def win(full: float, explained: float, other: float) -> bool:
    """Whether a map loses less confidence than another method's map of the same sample.

    Y - O_1 < Y - O_2 (Grad-CAM++ section 4.1, iii). A tie is a win for neither, so two methods'
    shares sum to 1 less the share of ties.

    Args:
        full: the probability of the label on the whole sample.
        explained: its probability on this method's map times the sample.
        other: its probability on the other's.

    Raises:
        EvaluationError: a number that is no probability.
    """
    _check_probabilities(full, explained, other)
    return explained > other


def explanation_map(pixels: Pixels, heatmap: Map) -> Pixels:
    """The map times the sample, E = L * I (Grad-CAM++ eq. 25), rounded to whole values.

    L is the positive part of the map as shares of its maximum; where it is 0 the sample is black.

    Raises:
        EvaluationError: the map does not lie over the pixels, or nothing was seen.
    """
    _check_over(pixels, heatmap)
    values, seen = positive(heatmap)
    shares = np.where(seen, values / (values.max() or 1.0), 1.0)
    shown: Pixels = np.rint(pixels * shares[..., None]).astype(np.uint8)
    return shown


def confidences(pixels: Pixels, heatmap: Map, score: Score) -> tuple[float, float]:
    """The score of a sample, and that of its explanation map: what `drop` and `increase` compare.

    Raises:
        EvaluationError: as `explanation_map`, or a score that is no number.
    """
    full, explained = _scored(iter([pixels, explanation_map(pixels, heatmap)]), score, 2)
    return float(full), float(explained)


def quantile_curve(
    pixels: Pixels,
    heatmap: Map,
    score: Score,
    thetas: Sequence[float] = THETAS,
    chunk: int = 16,
) -> Curve:
    """The confidence left, in percent, when the lowest share `theta` of the map's pixels is black.

    For each theta, gamma is the theta-quantile of the map over what was seen, pixels below gamma
    are set to 0, and y is 100 O / Y (Grad-CAM++ section 7.2). Equal pixels stay or go together: all
    stay until theta passes them. At theta = 1 nothing is left.

    Args:
        pixels: the sample.
        heatmap: its map.
        score: the probability of the label.
        thetas: shares in [0, 1].
        chunk: how many samples are scored at once.

    Raises:
        EvaluationError: a score that is no probability, a confidence of 0, a share outside [0, 1],
            or as `explanation_map`.
    """
    _check_over(pixels, heatmap)
    values, seen = read(heatmap)
    shares = np.asarray(thetas, dtype=np.float64)
    if not shares.size or not ((shares >= 0) & (shares <= 1)).all():
        raise EvaluationError(f"thetas={list(thetas)} are no shares; give numbers from 0 to 1")
    ordered = np.append(np.sort(values[seen]), np.inf)
    gammas = ordered[np.floor(shares * seen.sum() + 1e-9).astype(int)]

    def changed() -> Iterator[Pixels]:
        yield pixels
        for gamma in gammas:
            yield np.where((values < gamma)[..., None], 0, pixels).astype(np.uint8)

    full, *left = _scored(changed(), score, chunk)
    _check_probabilities(full, *left)
    _check_confidence(full)
    return Curve(shares, 100 * np.array(left) / full)


def mean_colour(pixels: Pixels) -> Pixels:
    """The sample's mean colour everywhere."""
    mean = np.rint(pixels.reshape(-1, 3).mean(0)).astype(np.uint8)
    return np.broadcast_to(mean, pixels.shape).copy()


def black(pixels: Pixels) -> Pixels:
    """Black everywhere."""
    return np.zeros_like(pixels)


def blurred(pixels: Pixels, sigma: float = 5.0, size: int = 11) -> Pixels:
    """The sample under a Gaussian of `size` pixels, frame by frame; edges mirror.

    `sigma` and `size` are those of Petsiuk et al. 2018 for pictures of 224 x 224.
    """
    reach = size // 2
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
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
    """The score while pixels are taken away, the most important ones first; low areas are good.

    (Petsiuk et al. 2018, section 4.2; 224 steps on their pictures.) Equal pixels go in reading
    order. The authors fill with 0 after normalisation, which is about the mean colour.

    Args:
        pixels: the sample.
        heatmap: its map.
        score: scores some changed samples.
        steps: how many times pixels are taken; `steps` + 1 samples are scored.
        substitute: what is in their place.
        chunk: how many samples are scored at once.

    Raises:
        EvaluationError: as `explanation_map`, no steps, or a score that is no number.
    """
    return _removal(pixels, substitute(pixels), pixels, heatmap, score, steps, chunk)


def insertion(
    pixels: Pixels,
    heatmap: Map,
    score: Score,
    *,
    steps: int = 224,
    substitute: Substitute = blurred,
    chunk: int = 16,
) -> Curve:
    """The score while pixels are put back, the most important ones first; high areas are good.

    As `deletion`, from the substitute to the sample; what was not seen is there from the start.

    Raises:
        EvaluationError: as `deletion`.
    """
    return _removal(substitute(pixels), pixels, pixels, heatmap, score, steps, chunk)


def _removal(
    start: Pixels, end: Pixels, pixels: Pixels, heatmap: Map, score: Score, steps: int, chunk: int
) -> Curve:
    """Scores on the way from `start` to `end`, pixel after pixel by falling value of the map."""
    _check_over(pixels, heatmap)
    values, seen = read(heatmap)
    if steps < 1 or chunk < 1:
        raise EvaluationError(f"steps={steps}, chunk={chunk}: both must be 1 or more")
    for other in (start, end):
        if other.shape != pixels.shape or other.dtype != np.uint8:
            raise EvaluationError(
                f"the substitute has shape {other.shape} and type {other.dtype}; it must be like "
                f"the sample, {pixels.shape} of uint8"
            )
    order = np.full(seen.shape, seen.sum(), dtype=np.int64)
    ranks = np.empty(int(seen.sum()), dtype=np.int64)
    ranks[np.argsort(-values[seen], kind="stable")] = np.arange(len(ranks))
    order[seen] = ranks
    counts = np.rint(np.linspace(0, len(ranks), steps + 1)).astype(int)

    def changed() -> Iterator[Pixels]:
        for count in counts:
            mixed = np.where((order < count)[..., None], end, start)
            yield np.where(seen[..., None], mixed, pixels)

    scores = _scored(changed(), score, chunk)
    return Curve(counts / len(ranks), np.array(scores))


def _check_over(pixels: Pixels, heatmap: Map) -> None:
    if heatmap.shape != pixels.shape[:-1]:
        raise EvaluationError(
            f"a map of shape {heatmap.shape} does not lie over pixels of shape {pixels.shape}; "
            "draw it on the original, for the same frames"
        )


def _scored(samples: Iterator[Pixels], score: Score, chunk: int) -> list[float]:
    """The scores of samples, `chunk` of which are held at a time."""
    scores: list[float] = []
    held: list[Pixels] = []

    def flush() -> None:
        found = np.asarray(score(np.stack(held)), dtype=np.float64)
        if found.shape != (len(held),) or not np.isfinite(found).all():
            raise EvaluationError(
                f"the score gave {found.tolist()} for {len(held)} samples; it must give one finite "
                "number for each"
            )
        scores.extend(found.tolist())
        held.clear()

    for sample in samples:
        held.append(sample)
        if len(held) == chunk:
            flush()
    if held:
        flush()
    return scores


def _smooth(values: Map, kernel: Float[np.ndarray, " size"], axis: int) -> Map:
    reach = len(kernel) // 2
    widths = [(0, 0)] * values.ndim
    widths[axis] = (reach, reach)
    padded = np.pad(values, widths, mode="symmetric")
    length = values.shape[axis]
    parts = (np.take(padded, range(k, k + length), axis) for k in range(len(kernel)))
    total: Map = sum((w * part for w, part in zip(kernel, parts, strict=True)), 0 * values)
    return total


def _check_probabilities(*values: float) -> None:
    for value in values:
        if not 0 <= value <= 1:
            raise EvaluationError(
                f"{value} is no probability; confidence is a number from 0 to 1, such as the "
                "softmax of a logit"
            )


def _check_confidence(full: float) -> None:
    if full == 0:
        raise EvaluationError(
            "the model's confidence in the label is 0 on the whole sample, so no share of it can "
            "be lost; evaluate a label that it predicts"
        )
