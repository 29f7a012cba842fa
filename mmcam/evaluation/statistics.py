"""Means with intervals, win rates and curves, computed from the shards alone.

Rows are not independent: an item may have several rows for a method (the words of a caption), and a
group may have several items (the captions of a photo). Means are over rows; their variance is that
of a cluster sample of groups: with group sums s and counts c, the variance of m = sum(s) / sum(c)
is n / (n - 1) sum((s - m c)^2) / sum(c)^2 over the n groups (Cochran 1977, section 6.4). If every
group has one row, this is the usual variance. Intervals are 95 %: Student's t for numbers; Wilson's
for truths (0 or 1), with the effective sample size. All sums take fixed memory; a group that spans
two shards counts as two.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmcam.evaluation.shards import columns_of
from mmcam.evaluation.study import Column
from mmcam.evaluators.intervals import student_t, wilson

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1
CONFIDENCE = 0.95
MAX_LISTED = 10
"""The maximum number of distinct errors, and of reasons for each metric, in the summary."""


class Series(NamedTuple):
    """The key of the rows that are averaged together: kind of target, method and layer."""

    kind: str
    method: str
    layer: str


RowIndices = Int[np.ndarray, " _"]
"""Indices of rows of a shard."""

Pair = tuple[Series, Series, RowIndices, RowIndices]
"""Two series, and the rows of each for the targets that both have, in the same order."""


@dataclass
class Sums:
    """Running sums for a mean and its standard error over groups.

    With the groups' sums s and counts c: `total` is sum(s), `squares` sum(s^2), `products`
    sum(s c), and `counts` sum(c^2). `infinite` counts the infinite values, which are left out.
    """

    rows: int = 0
    groups: int = 0
    total: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    counts: float = 0.0
    infinite: int = 0

    def add(self, values: Float[np.ndarray, " row"], groups: Int[np.ndarray, " row"]) -> None:
        """Add rows with the indices of their groups; NaN and infinite values are left out."""
        finite = np.isfinite(values)
        self.infinite += int(np.isinf(values).sum())
        if not finite.any():
            return
        _, group = np.unique(groups[finite], return_inverse=True)
        sums = np.bincount(group, values[finite])
        counts = np.bincount(group).astype(np.float64)
        self.rows += int(finite.sum())
        self.groups += len(sums)
        self.total += float(sums.sum())
        self.squares += float((sums**2).sum())
        self.products += float((sums * counts).sum())
        self.counts += float((counts**2).sum())

    @property
    def mean(self) -> float:
        """The mean over rows."""
        return self.total / self.rows

    @property
    def standard_error(self) -> float:
        """The standard error of the mean; infinite with one group."""
        if self.groups < 2:
            return math.inf
        mean = self.mean
        residual = self.squares - 2 * mean * self.products + mean**2 * self.counts
        return math.sqrt(max(residual, 0) * self.groups / (self.groups - 1)) / self.rows

    def interval(self, truth: bool) -> tuple[float, float]:
        """The 95 % interval of the mean; `truth` tells whether all values are 0 or 1."""
        if truth:
            return wilson(self.mean, self._effective_size(), CONFIDENCE)
        half_width = student_t((1 + CONFIDENCE) / 2, self.groups - 1) * self.standard_error
        return self.mean - half_width, self.mean + half_width

    def _effective_size(self) -> float:
        """The number of independent rows whose mean would have the same variance."""
        mean, error = self.mean, self.standard_error
        if self.rows == self.groups or not 0 < error < math.inf:
            return float(self.groups)
        return min(max(mean * (1 - mean) / error**2, 1.0), float(self.rows))

    def summary(self, truth: bool) -> dict[str, Any]:
        """The entry in `summary.json`; None for an unknown or infinite number."""
        if not self.rows:
            return {"n": 0, "groups": 0, "mean": None, "infinite": self.infinite}
        low, high = self.interval(truth)
        return {
            "n": self.rows,
            "groups": self.groups,
            "mean": self.mean,
            "standard_error": _finite(self.standard_error),
            "low": _finite(low),
            "high": _finite(high),
            "infinite": self.infinite,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pairs(
    series: dict[Series, RowIndices],
    index: Int[np.ndarray, " row"],
    target: Int[np.ndarray, " row"],
) -> Iterator[Pair]:
    """All ordered pairs of series that share targets of the same kind."""
    row_of = {
        key: {(int(index[row]), int(target[row])): row for row in rows.tolist()}
        for key, rows in series.items()
    }
    for first, second in itertools.permutations(series, 2):
        shared = [target_key for target_key in row_of[first] if target_key in row_of[second]]
        if first.kind == second.kind and shared:
            first_rows, second_rows = (
                np.asarray([row_of[key][target_key] for target_key in shared])
                for key in (first, second)
            )
            yield first, second, first_rows, second_rows


@dataclass
class Totals:
    """All sums of a run, accumulated shard by shard."""

    columns: dict[str, Column] = field(default_factory=dict)
    means: dict[tuple[str, Series], Sums] = field(default_factory=dict)
    curves: dict[tuple[str, Series], list[Sums]] = field(default_factory=dict)
    wins: dict[tuple[str, Series, Series], Sums] = field(default_factory=dict)
    ties: Counter[tuple[str, Series, Series]] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    items: int = 0
    seconds: float = 0.0

    def add(self, table: pyarrow.Table) -> None:
        """Add the rows of a shard.

        Raises:
            KeyError, TypeError, ValueError: the table is not a shard of `mmcam evaluate`.
        """
        columns = columns_of(table.schema.metadata)
        self.columns |= {column.name: column for column in columns}
        index = table["index"].to_numpy()
        self.items += len(np.unique(index))
        self.errors.update(error for error in table["error"].to_pylist() if error is not None)
        seconds = table["seconds"].to_numpy()
        self.seconds += float(np.nansum(seconds.astype(np.float64)))
        for text in filter(None, table["reasons"].to_pylist()):
            for metric, reason in json.loads(text).items():
                self.reasons.setdefault(metric, Counter())[reason] += 1
        names = [group or "" for group in table["group"].to_pylist()]
        groups = np.unique(names, return_inverse=True)[1].astype(np.int64)
        series = self._series(table)
        pairs = list(_pairs(series, index, table["target"].to_numpy()))
        for column in columns:
            values = table[column.name].to_numpy().astype(np.float64)
            for key, rows in series.items():
                sums = self.means.setdefault((column.name, key), Sums())
                sums.add(values[rows], groups[rows])
            if column.metric != "win":  # a win is already a comparison
                self._add_pairs(column, values, groups, pairs)
            if column.gives == "curve":
                self._add_curves(column.name, table, groups, series)

    def _series(self, table: pyarrow.Table) -> dict[Series, RowIndices]:
        names = (table[name].to_pylist() for name in ("kind", "method", "layer"))
        rows: dict[Series, list[int]] = {}
        for row, (kind, method, layer) in enumerate(zip(*names, strict=True)):
            if method is not None:
                rows.setdefault(Series(kind, method, layer), []).append(row)
        return {key: np.asarray(indices, dtype=np.int64) for key, indices in rows.items()}

    def _add_pairs(
        self,
        column: Column,
        values: Float[np.ndarray, " row"],
        groups: Int[np.ndarray, " row"],
        pairs: Sequence[Pair],
    ) -> None:
        """Count how often one series has the better value for a target, and how often two tie."""
        sign = 1.0 if column.higher_is_better else -1.0
        for first, second, first_rows, second_rows in pairs:
            a, b = sign * values[first_rows], sign * values[second_rows]
            comparable = ~(np.isnan(a) | np.isnan(b))
            wins = (a > b)[comparable].astype(np.float64)
            key = (column.name, first, second)
            self.wins.setdefault(key, Sums()).add(wins, groups[first_rows][comparable])
            self.ties[key] += int((a == b)[comparable].sum())

    def _add_curves(
        self,
        name: str,
        table: pyarrow.Table,
        groups: Int[np.ndarray, " row"],
        series: dict[Series, RowIndices],
    ) -> None:
        curves = table[f"{name}.curve"].to_pylist()
        for key, indices in series.items():
            rows = [row for row in indices.tolist() if curves[row] is not None]
            if not rows:
                continue
            points = np.asarray([curves[row] for row in rows], dtype=np.float64)
            sums = self.curves.setdefault((name, key), [Sums() for _ in range(points.shape[1])])
            for point_sums, values in zip(sums, points.T, strict=True):
                point_sums.add(values, groups[rows])

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        failed = sum(self.errors.values())
        return {
            "schema_version": SCHEMA_VERSION,
            "items": self.items,
            "failed": failed,
            "errors": dict(self.errors.most_common(MAX_LISTED)),
            "seconds": self.seconds,
            "metrics": [
                {
                    "name": name,
                    "metric": self.columns[name].metric,
                    **key._asdict(),
                    "higher_is_better": self.columns[name].higher_is_better,
                    "gives": self.columns[name].gives,
                    **sums.summary(self.columns[name].gives == "truth"),
                }
                for (name, key), sums in self.means.items()
            ],
            "curves": [
                {"name": name, **key._asdict(), "points": [sums.summary(False) for sums in points]}
                for (name, key), points in self.curves.items()
            ],
            "pairs": [
                {
                    "name": name,
                    "kind": first.kind,
                    "method": first.method,
                    "layer": first.layer,
                    "other": second.method,
                    "other_layer": second.layer,
                    "win_rate": sums.mean,
                    "ties": self.ties[name, first, second] / sums.rows,
                    **dict(zip(("low", "high"), sums.interval(True), strict=True)),
                    "n": sums.rows,
                }
                for (name, first, second), sums in self.wins.items()
                if sums.rows
            ],
            "missing": {
                metric: dict(reasons.most_common(MAX_LISTED))
                for metric, reasons in self.reasons.items()
            },
        }
