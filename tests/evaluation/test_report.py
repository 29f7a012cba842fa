"""Figures from rows written by hand, against scipy and against formulas written out."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from mmcam.errors import InputError, MissingExtra
from mmcam.evaluation import summarize
from mmcam.evaluation.report import notes, tables
from mmcam.evaluation.shards import RunFolder
from mmcam.evaluation.statistics import Sums
from mmcam.evaluation.study import Column
from mmcam.evaluators.intervals import wilson

NUMBER = Column(name="energy-inside", metric="energy-inside", gives="number", higher_is_better=True)
TRUTH = Column(name="pointing", metric="pointing", gives="truth", higher_is_better=True)
CURVE = Column(name="deletion", metric="deletion", gives="curve", higher_is_better=False)


def row(index: int, method: str = "gradcam", **values: Any) -> dict[str, Any]:
    return {
        "index": index,
        "item": str(index),
        "group": str(index),
        "target": 0,
        "label": "dog",
        "kind": "class",
        "method": method,
        "layer": "trunk",
        "seconds": 0.5,
        **values,
    }


def write(folder: Path, columns: list[Column], *shards: list[dict[str, Any]]) -> RunFolder:
    folder.mkdir(exist_ok=True)
    run_folder = RunFolder(folder)
    for rows in shards:
        run_folder.write_rows(rows, columns)
    return run_folder


def figures(summary: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(entry["name"], entry["method"]): entry for entry in summary["metrics"]}


def test_numbers_have_the_mean_and_students_interval(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(3, 2, 17)
    rows = [row(i, **{"energy-inside": v}) for i, v in enumerate(values)]
    write(tmp_path, [NUMBER], rows[:5], rows[5:])
    entry = figures(summarize(tmp_path))["energy-inside", "gradcam"]
    low, high = stats.t.interval(0.95, 16, values.mean(), stats.sem(values))
    assert (entry["n"], entry["groups"]) == (17, 17)
    assert entry["mean"] == pytest.approx(values.mean())
    assert entry["standard_error"] == pytest.approx(stats.sem(values))
    assert (entry["low"], entry["high"]) == pytest.approx((low, high))


def test_truths_have_wilsons_interval(tmp_path: Path) -> None:
    rows = [row(i, pointing=float(i < 7)) for i in range(9)]
    write(tmp_path, [TRUTH], rows)
    entry = figures(summarize(tmp_path))["pointing", "gradcam"]
    known = stats.binomtest(7, 9).proportion_ci(method="wilson")
    assert (entry["low"], entry["high"]) == pytest.approx((known.low, known.high))


def test_rows_of_one_item_are_not_taken_for_independent(tmp_path: Path) -> None:
    # Three items with equal words each: as good as three rows, whatever the number of words.
    counts, values = [4, 4, 4], [1.0, 2.0, 6.0]
    rows = [
        row(i, target=t, kind="word", **{"energy-inside": v})
        for i, (n, v) in enumerate(zip(counts, values, strict=True))
        for t in range(n)
    ]
    write(tmp_path, [NUMBER], rows)
    entry = figures(summarize(tmp_path))["energy-inside", "gradcam"]
    low, high = stats.t.interval(0.95, 2, 3.0, stats.sem(values))
    assert (entry["n"], entry["groups"], entry["mean"]) == (12, 3, 3.0)
    assert (entry["low"], entry["high"]) == pytest.approx((low, high))


def test_items_of_one_group_are_not_taken_for_independent(tmp_path: Path) -> None:
    values = [1.0, 2.0, 6.0]
    rows = [
        row(i, group=f"photo {i // 4}", **{"energy-inside": v})
        for i, v in enumerate(np.repeat(values, 4).tolist())
    ]
    write(tmp_path, [NUMBER], rows)
    summary = summarize(tmp_path)
    entry = figures(summary)["energy-inside", "gradcam"]
    assert (summary["items"], entry["n"], entry["groups"]) == (12, 12, 3)
    assert entry["standard_error"] == pytest.approx(stats.sem(values))


def test_the_error_of_uneven_items_is_cochrans() -> None:
    rng = np.random.default_rng(1)
    items = rng.integers(0, 12, 60)
    values = rng.normal(size=60)
    whole, parts = Sums(), Sums()
    whole.add(values, items)
    order = np.argsort(items)
    for indices in np.split(
        order, [np.searchsorted(items[order], 5), np.searchsorted(items[order], 9)]
    ):
        parts.add(values[indices], items[indices])
    sums = np.array([values[items == i].sum() for i in np.unique(items)])
    counts = np.array([(items == i).sum() for i in np.unique(items)])
    mean, n = values.mean(), len(sums)
    expected = math.sqrt(n / (n - 1) * ((sums - mean * counts) ** 2).sum()) / 60
    assert whole.standard_error == pytest.approx(expected)
    assert parts.standard_error == pytest.approx(expected)


def test_clustered_truths_have_a_wider_interval_than_independent_ones() -> None:
    hits = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0] * 5).repeat(4)
    together, apart = Sums(), Sums()
    together.add(hits, np.arange(30).repeat(4))
    apart.add(hits, np.arange(120))
    assert apart.interval(True) == pytest.approx(wilson(hits.mean(), 120))
    assert together.interval(True) == pytest.approx(wilson(hits.mean(), 29.0), rel=1e-6)
    no_hits = Sums()
    no_hits.add(np.zeros(120), np.arange(30).repeat(4))
    assert no_hits.interval(True) == wilson(0.0, 30.0)


def test_missing_infinite_and_failed_are_counted(tmp_path: Path) -> None:
    rows = [
        row(0, **{"energy-inside": 2.0}),
        row(1, **{"energy-inside": math.inf}),
        row(2, reasons='{"energy-inside": "EvaluationError: no region"}'),
        {"index": 3, "item": "3", "target": -1, "error": "InputError: broken"},
        {"index": 4, "item": "4", "target": -1, "error": "InputError: broken"},
    ]
    write(tmp_path, [NUMBER], rows)
    summary = summarize(tmp_path)
    entry = figures(summary)["energy-inside", "gradcam"]
    assert (entry["n"], entry["infinite"], entry["mean"]) == (1, 1, 2.0)
    assert entry["standard_error"] is None
    assert entry["low"] is None
    assert (summary["items"], summary["failed"]) == (5, 2)
    assert summary["errors"] == {"InputError: broken": 2}
    assert summary["seconds"] == 1.5
    assert notes(summary) == [
        "2 failed: InputError: broken",
        "energy-inside: 1 without a number: EvaluationError: no region",
    ]


def test_win_rates_compare_the_same_targets(tmp_path: Path) -> None:
    first = {0: 5.0, 1: 2.0, 2: 3.0, 3: 1.0}
    second = {0: 4.0, 1: 2.0, 2: 9.0, 4: 1.0}
    rows = [row(i, "gradcam", **{"energy-inside": v, "deletion": v}) for i, v in first.items()]
    rows += [row(i, "gradcam++", **{"energy-inside": v, "deletion": v}) for i, v in second.items()]
    write(tmp_path, [NUMBER, CURVE], sorted(rows, key=lambda entry: int(entry["index"])))
    summary = summarize(tmp_path)
    pairs = {(p["name"], p["method"]): p for p in summary["pairs"]}
    higher, lower = pairs["energy-inside", "gradcam"], pairs["deletion", "gradcam"]
    assert (higher["win_rate"], higher["ties"], higher["n"]) == (1 / 3, 1 / 3, 3)
    assert (lower["win_rate"], lower["other"]) == (1 / 3, "gradcam++")
    assert (higher["low"], higher["high"]) == pytest.approx(wilson(1 / 3, 3))
    assert pairs["energy-inside", "gradcam++"]["win_rate"] == 1 / 3
    screen = Console(record=True, width=120)
    for table in tables(summary):
        screen.print(table)
    text = screen.export_text()
    assert text.count("gradcam++") == 2 + 2  # the figures of both columns, and each pair once
    assert "2.75" in text


def test_layers_and_kinds_are_kept_apart(tmp_path: Path) -> None:
    rows = [row(0, layer="a", pointing=1.0), row(0, layer="b", pointing=0.0)]
    rows += [row(0, kind="word", layer="a", pointing=0.0)]
    write(tmp_path, [TRUTH], rows)
    summary = summarize(tmp_path)
    assert {(m["kind"], m["layer"]): m["mean"] for m in summary["metrics"]} == {
        ("class", "a"): 1.0,
        ("class", "b"): 0.0,
        ("word", "a"): 0.0,
    }
    screen = Console(record=True, width=120)
    screen.print(tables(summary)[0])
    assert "gradcam at a, word" in screen.export_text()


def test_curves_have_a_mean_at_each_point_and_plots_are_drawn(tmp_path: Path) -> None:
    curves = [[1.0, 0.5, 0.0], [0.8, 0.3, 0.2]]
    rows = [
        row(i, m, **{"deletion": 0.5, "deletion.curve": c, "pointing": 1.0})
        for i, c in enumerate(curves)
        for m in ("gradcam", "gradcam++")
    ]
    write(tmp_path, [CURVE, TRUTH], rows)
    summary = summarize(tmp_path, plots=True)
    points = summary["curves"][0]["points"]
    assert [point["mean"] for point in points] == pytest.approx([0.9, 0.4, 0.1])
    drawn = {path.name for path in tmp_path.glob("plot-*.png")}
    assert drawn == {"plot-deletion.png", "plot-deletion-curve.png", "plot-pointing.png"}
    for name in drawn:
        with Image.open(tmp_path / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_a_summary_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    write(tmp_path, [NUMBER], [row(i, **{"energy-inside": float(i)}) for i in range(4)])
    summary = summarize(tmp_path)
    (tmp_path / "summary.json").unlink()
    assert summarize(tmp_path) == summary
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        summarize(tmp_path)
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"index": [1]}), tmp_path / "rows-00000.parquet")
    with pytest.raises(InputError, match=r"rows-00000.parquet is not a shard of mmcam evaluate"):
        summarize(tmp_path)


@pytest.mark.parametrize(("library", "plots"), [("pyarrow", False), ("matplotlib", True)])
def test_missing_libraries_name_the_install_line(
    library: str, plots: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [NUMBER], [row(0, **{"energy-inside": 1.0})])
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r"pip install 'mmcam\[evaluate\]'"):
        summarize(tmp_path, plots=plots)
