"""From samples to a dataset: means and shares with their uncertainty, as torchmetrics' metrics.

Needs `mmcam[evaluate]`. States are of fixed size, whatever the number of samples, and merge exactly
across processes, batches and parts of a run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.errors import EvaluationError, MissingExtra, nearest
from mmcam.evaluators import EVALUATORS
from mmcam.evaluators.intervals import student_t, wilson

try:
    from torchmetrics import Metric
except ImportError as error:
    raise MissingExtra(
        "accumulating over a dataset needs torchmetrics; pip install 'mmcam[evaluate]'"
    ) from error

Summary = dict[str, Tensor]


class Mean(Metric):
    """The mean of samples' numbers, with its standard error and confidence interval.

    `compute` gives, in double precision: `mean`; `standard_error`, the deviation (with n - 1) over
    the root of n; `low` and `high`, by Student's t; `n`; and `infinite`, how many infinite numbers
    there were beside those n (a ratio over nothing), which no mean can hold. With one sample the
    error is infinite.

    Args:
        length: of each sample's vector, such as the points of a curve; None for plain numbers.
        confidence: of the interval.
    """

    full_state_update = False
    moments: Tensor

    def __init__(self, length: int | None = None, confidence: float = 0.95) -> None:
        super().__init__()
        _check_confidence(confidence)
        self.confidence = confidence
        self.shape = () if length is None else (length,)
        empty = torch.zeros(4, *self.shape, dtype=torch.float64)
        self.add_state("moments", empty, dist_reduce_fx=_merged)

    def update(self, values: Any) -> None:
        """Add one sample's number (or vector), or those of many, a row each.

        Raises:
            EvaluationError: a NaN, or another length.
        """
        rows = _rows(values, self.shape).to(self.moments.device)
        finite = rows.isfinite()
        n = finite.sum(0).double()
        kept = torch.where(finite, rows, 0)
        mean = kept.sum(0) / n.clamp(min=1)
        squares = (torch.where(finite, rows - mean, 0) ** 2).sum(0)
        new = torch.stack([n, mean, squares, len(rows) - n])
        self.moments = _merged(torch.stack([self.moments, new]))

    def compute(self) -> Summary:
        """The summary of all samples so far.

        Raises:
            EvaluationError: there are none, or none that is finite.
        """
        n, mean, squares, infinite = self.moments
        if not (n > 0).all():
            raise EvaluationError(
                f"there are no finite numbers to take the mean of ({int(infinite.max())} infinite "
                "ones); evaluate a sample first"
            )
        spread = torch.where(n > 1, squares / (n - 1).clamp(min=1), torch.inf)
        error = (spread / n).sqrt()
        reach = torch.tensor(
            [student_t((1 + self.confidence) / 2, int(k) - 1) for k in n.reshape(-1)],
            dtype=torch.float64,
            device=n.device,
        ).reshape(n.shape)
        half = reach * error
        return {
            "mean": mean,
            "standard_error": error,
            "low": mean - half,
            "high": mean + half,
            "n": n,
            "infinite": infinite,
        }


class Proportion(Metric):
    """The share of samples that are true, with its standard error and Wilson's interval.

    `compute` gives, in double precision: `mean`, the share; `standard_error`; `low` and `high`
    (Wilson 1927, which stays in [0, 1] and is sound near its ends); and `n`.

    Args:
        confidence: of the interval.
    """

    full_state_update = False
    hits: Tensor
    n: Tensor

    def __init__(self, confidence: float = 0.95) -> None:
        super().__init__()
        _check_confidence(confidence)
        self.confidence = confidence
        for state in ("hits", "n"):
            self.add_state(state, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Any) -> None:
        """Add one truth value, or many; numbers between 0 and 1 count in part.

        Raises:
            EvaluationError: another number.
        """
        rows = _rows(values, ()).to(self.hits.device)
        if not ((rows >= 0) & (rows <= 1)).all():
            raise EvaluationError(f"{rows.tolist()} are no truth values; give True, False, 0 or 1")
        self.hits = self.hits + rows.sum()
        self.n = self.n + len(rows)

    def compute(self) -> Summary:
        """The summary of all samples so far.

        Raises:
            EvaluationError: there are none.
        """
        n = self.n
        if n == 0:
            raise EvaluationError("there are no samples to take a share of; evaluate one first")
        share = self.hits / n
        low, high = map(share.new_tensor, wilson(float(share), float(n), self.confidence))
        return {
            "mean": share,
            "standard_error": (share * (1 - share) / n).sqrt(),
            "low": low,
            "high": high,
            "n": n,
        }


def accumulator(name: str, confidence: float = 0.95) -> Mean | Proportion:
    """What accumulates an evaluator's samples; for a curve, their areas.

    Raises:
        EvaluationError: there is no such evaluator, or it gives nothing that has a mean.
    """
    row = EVALUATORS.get(name)
    if row is None:
        raise EvaluationError(
            f"there is no evaluator '{name}'; nearest: {nearest(name, EVALUATORS)}"
        )
    if row.gives == "layers":
        raise EvaluationError(
            f"evaluator '{name}' gives maps, one for each layer; compare them "
            "(mmcam.evaluators.sanity.SIMILARITIES) and accumulate the similarities with Mean()"
        )
    return Proportion(confidence) if row.gives == "truth" else Mean(confidence=confidence)


def _merged(parts: Float[Tensor, "part 4 *shape"]) -> Float[Tensor, "4 *shape"]:
    """Counts, means and sums of squared deviations of all parts together (Chan et al. 1983)."""
    counts, means, squares, infinite = parts.unbind(1)
    n = counts.sum(0)
    mean = (counts * means).sum(0) / n.clamp(min=1)
    return torch.stack([n, mean, (squares + counts * (means - mean) ** 2).sum(0), infinite.sum(0)])


def _rows(values: Any, shape: tuple[int, ...]) -> Float[Tensor, "row *shape"]:
    """Numbers in double precision, a row a sample.

    Raises:
        EvaluationError: a NaN, or another shape.
    """
    if not isinstance(values, Tensor):
        values = torch.as_tensor(np.asarray(values, dtype=np.float64))
    rows: Tensor = values.detach().double()
    if rows.shape == shape:
        rows = rows[None]
    if rows.shape[1:] != shape or rows.ndim != len(shape) + 1:
        raise EvaluationError(
            f"numbers of shape {tuple(rows.shape)} are no rows of shape {shape}; give one sample's "
            "or a list of samples'"
        )
    if rows.isnan().any():
        raise EvaluationError("a sample's number is NaN; leave the sample out and say why")
    return rows


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
