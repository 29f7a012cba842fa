"""From rows to figures: means with intervals, win rates, curves; from the shards alone.

An item may have several rows for a method, as a caption has words, and a group several items, as a
photo has captions; these are not independent. Means are over rows; their uncertainty is that of
groups, drawn one by one: with group sums s and counts c the variance of m = sum(s) / sum(c) is
n / (n - 1) sum((s - m c)^2) / sum(c)^2 over the n groups (Cochran 1977, section 6.4), which is the
usual one where every group has one row. Intervals are 95 %: Student's t for numbers; Wilson's for
truths, with the number of rows that independent ones would need for the same variance. All sums are
kept in fixed memory; a group that lies across the edge of two shards counts as two.
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
MOST = 10
"""How many kinds of errors are listed."""


class Series(NamedTuple):
    """What figures are kept apart by: the kind of target, the method, and its layer."""

    kind: str
    method: str
    layer: str


Places = Int[np.ndarray, " _"]
"""Which rows of a shard."""

Pair = tuple[Series, Series, Places, Places]
"""Two series, and the rows of each that are about the same targets, in one order."""


@dataclass
class Sums:
    """What a mean and its uncertainty need of any number of groups."""

    rows: int = 0
    groups: int = 0
    total: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    counts: float = 0.0
    infinite: int = 0

    def add(self, values: Float[np.ndarray, " row"], groups: Int[np.ndarray, " row"]) -> None:
        """Add rows with the numbers of their groups; NaN counts as missing."""
        kept = np.isfinite(values)
        self.infinite += int(np.isinf(values).sum())
        if not kept.any():
            return
        _, where = np.unique(groups[kept], return_inverse=True)
        sums = np.bincount(where, values[kept])
        counts = np.bincount(where).astype(np.float64)
        self.rows += int(kept.sum())
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
    def error(self) -> float:
        """The standard error of the mean; infinite with one group."""
        if self.groups < 2:
            return math.inf
        mean = self.mean
        spread = self.squares - 2 * mean * self.products + mean**2 * self.counts
        return math.sqrt(max(spread, 0) * self.groups / (self.groups - 1)) / self.rows

    def interval(self, truth: bool) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        if truth:
            return wilson(self.mean, self._independent(), CONFIDENCE)
        reach = student_t((1 + CONFIDENCE) / 2, self.groups - 1) * self.error
        return self.mean - reach, self.mean + reach

    def _independent(self) -> float:
        """How many independent rows would have the variance of the mean that these have."""
        share, error = self.mean, self.error
        if self.rows == self.groups or not 0 < error < math.inf:
            return float(self.groups)
        return min(max(share * (1 - share) / error**2, 1.0), float(self.rows))

    def facts(self, truth: bool) -> dict[str, Any]:
        """What `summary.json` says of it; None stands for what is unknown or infinite."""
        if not self.rows:
            return {"n": 0, "groups": 0, "mean": None, "infinite": self.infinite}
        low, high = self.interval(truth)
        return {
            "n": self.rows,
            "groups": self.groups,
            "mean": self.mean,
            "standard_error": _finite(self.error),
            "low": _finite(low),
            "high": _finite(high),
            "infinite": self.infinite,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _pairs(
    series: dict[Series, Places], index: Int[np.ndarray, " row"], target: Int[np.ndarray, " row"]
) -> Iterator[Pair]:
    """All pairs of series of one kind, both ways round."""
    places = {
        key: {(int(index[row]), int(target[row])): row for row in rows.tolist()}
        for key, rows in series.items()
    }
    for one, other in itertools.permutations(series, 2):
        shared = [key for key in places[one] if key in places[other]]
        if one.kind == other.kind and shared:
            rows, others = ([places[each][key] for key in shared] for each in (one, other))
            yield one, other, np.asarray(rows), np.asarray(others)


@dataclass
class Totals:
    """All sums of a run, shard after shard."""

    columns: dict[str, Column] = field(default_factory=dict)
    means: dict[tuple[str, Series], Sums] = field(default_factory=dict)
    curves: dict[tuple[str, Series], list[Sums]] = field(default_factory=dict)
    better: dict[tuple[str, Series, Series], Sums] = field(default_factory=dict)
    ties: Counter[tuple[str, Series, Series]] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    items: int = 0
    seconds: float = 0.0

    def add(self, table: pyarrow.Table) -> None:
        """Add the rows of a shard."""
        new = columns_of(table.schema.metadata)
        self.columns |= {column.name: column for column in new}
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
        for column in new:
            values = table[column.name].to_numpy().astype(np.float64)
            for key, where in series.items():
                sums = self.means.setdefault((column.name, key), Sums())
                sums.add(values[where], groups[where])
            if column.metric != "win":  # which compares already
                self._add_pairs(column, values, groups, pairs)
            if column.gives == "curve":
                self._add_curves(column.name, table, groups, series)

    def _series(self, table: pyarrow.Table) -> dict[Series, Places]:
        names = (table[name].to_pylist() for name in ("kind", "method", "layer"))
        rows: dict[Series, list[int]] = {}
        for row, (kind, method, layer) in enumerate(zip(*names, strict=True)):
            if method is not None:
                rows.setdefault(Series(kind, method, layer), []).append(row)
        return {key: np.asarray(where, dtype=np.int64) for key, where in rows.items()}

    def _add_pairs(
        self,
        column: Column,
        values: Float[np.ndarray, " row"],
        groups: Int[np.ndarray, " row"],
        pairs: Sequence[Pair],
    ) -> None:
        """How often one series' number is better than another's for the same target."""
        sign = 1.0 if column.higher_is_better else -1.0
        for one, other, rows, others in pairs:
            first, second = sign * values[rows], sign * values[others]
            both = ~(np.isnan(first) | np.isnan(second))
            won = (first > second)[both].astype(np.float64)
            name = (column.name, one, other)
            self.better.setdefault(name, Sums()).add(won, groups[rows][both])
            self.ties[name] += int((first == second)[both].sum())

    def _add_curves(
        self,
        name: str,
        table: pyarrow.Table,
        groups: Int[np.ndarray, " row"],
        series: dict[Series, Places],
    ) -> None:
        curves = table[f"{name}.curve"].to_pylist()
        for key, where in series.items():
            known = [row for row in where.tolist() if curves[row] is not None]
            if not known:
                continue
            points = np.asarray([curves[row] for row in known], dtype=np.float64)
            sums = self.curves.setdefault((name, key), [Sums() for _ in range(points.shape[1])])
            for one, column in zip(sums, points.T, strict=True):
                one.add(column, groups[known])

    def facts(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        failed = sum(self.errors.values())
        return {
            "schema_version": SCHEMA_VERSION,
            "items": self.items,
            "failed": failed,
            "errors": dict(self.errors.most_common(MOST)),
            "seconds": self.seconds,
            "metrics": [
                {
                    "name": name,
                    "metric": self.columns[name].metric,
                    **key._asdict(),
                    "higher_is_better": self.columns[name].higher_is_better,
                    "gives": self.columns[name].gives,
                    **sums.facts(self.columns[name].gives == "truth"),
                }
                for (name, key), sums in self.means.items()
            ],
            "curves": [
                {"name": name, **key._asdict(), "points": [sums.facts(False) for sums in points]}
                for (name, key), points in self.curves.items()
            ],
            "pairs": [
                {
                    "name": name,
                    "kind": one.kind,
                    "method": one.method,
                    "layer": one.layer,
                    "other": other.method,
                    "other_layer": other.layer,
                    "win_rate": sums.mean,
                    "ties": self.ties[name, one, other] / sums.rows,
                    **dict(zip(("low", "high"), sums.interval(True), strict=True)),
                    "n": sums.rows,
                }
                for (name, one, other), sums in self.better.items()
                if sums.rows
            ],
            "missing": {
                metric: dict(found.most_common(MOST)) for metric, found in self.reasons.items()
            },
        }
