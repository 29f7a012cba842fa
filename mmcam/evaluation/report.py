"""The summary of a run: `summary.json`, tables for the screen, and plots (`mmcam[evaluate]`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcam.errors import InputError, MissingExtra
from mmcam.evaluation.shards import SUMMARY, RunFolder
from mmcam.evaluation.statistics import Totals
from mmcam.media.images import atomic_write

if TYPE_CHECKING:
    from rich.table import Table


def summarize(folder: str | Path, *, plots: bool = False) -> dict[str, Any]:
    """Write `summary.json` from the shards of a run's folder, and plots if requested.

    Returns:
        The content of the file.

    Raises:
        InputError: the folder has no shards, or a shard is broken.
        OutputError: a file cannot be written.
        MissingExtra: pyarrow or, for plots, matplotlib is not installed.
    """
    if plots:
        check_plots()
    run, totals = RunFolder(folder), Totals()
    if not run.shards:
        raise InputError(
            f"{folder} holds no rows of a run; choose a folder written by mmcam evaluate"
        )
    for path, table in zip(run.shards, run.tables(), strict=True):
        try:
            totals.add(table)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a shard of mmcam evaluate ({type(error).__name__}: {error}); "
                "remove it"
            ) from error
    summary = totals.summary()
    run.write_json(SUMMARY, summary)
    if plots:
        draw_plots(run.path, summary)
    return summary


def check_plots() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401 - only checks that it is installed
    except ImportError as error:
        raise MissingExtra("plots need matplotlib; pip install 'mmcam[evaluate]'") from error


def series_label(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> str:
    """The label of a series among `rows`, with its layer and kind if these differ."""
    all_rows = list(rows)
    layers = {r["layer"] for r in all_rows if r["method"] == row["method"]}
    kinds = {r["kind"] for r in all_rows}
    name = f"{row['method']} at {row['layer']}" if len(layers) > 1 else str(row["method"])
    return f"{name}, {row['kind']}" if len(kinds) > 1 else name


def tables(summary: dict[str, Any]) -> list[Table]:
    """Tables of the summary: the means, and how often one method is better than another."""
    from rich.table import Table

    metrics = summary["metrics"]
    failed = f", {summary['failed']} failed" if summary["failed"] else ""
    title = f"{summary['items']} items{failed}"
    means = Table("metric", "map", "mean", "95 %", "n", title=title)
    computed = {row["name"] for row in metrics if row["n"]}
    for row in metrics:
        never_computed = row["name"] not in computed and row["metric"] != "win"
        # Leave out the empty rows of a metric that applies only to some kinds of target.
        if row["n"] or never_computed:
            arrow = "up" if row["higher_is_better"] else "down"
            means.add_row(
                f"{row['name']} ({arrow})",
                series_label(row, metrics),
                _format_number(row["mean"]),
                f"{_format_number(row.get('low'))} .. {_format_number(row.get('high'))}",
                str(row["n"]),
            )
    result = [means]
    if summary["pairs"]:
        wins = Table("metric", "map", "is better than", "in", "95 %", "ties", title="Win rates")
        shown: set[Any] = set()
        for row in summary["pairs"]:
            rival = {**row, "method": row["other"], "layer": row["other_layer"]}
            both = [(r["name"], r["kind"], r["method"], r["layer"]) for r in (row, rival)]
            if frozenset(both) in shown:  # the reverse pair adds no information
                continue
            shown.add(frozenset(both))
            wins.add_row(
                row["name"],
                series_label(row, summary["pairs"]),
                series_label(rival, summary["pairs"]),
                f"{row['win_rate']:.3f}",
                f"{row['low']:.3f} .. {row['high']:.3f}",
                f"{row['ties']:.3f}",
            )
        result.append(wins)
    return result


def notes(summary: dict[str, Any]) -> Sequence[str]:
    """Lines that explain why items failed and why numbers are missing."""
    failed = [f"{count} failed: {error}" for error, count in summary["errors"].items()]
    missing = [
        f"{metric}: {count} without a number: {reason}"
        for metric, reasons in summary["missing"].items()
        for reason, count in reasons.items()
    ]
    return [*failed, *missing]


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def draw_plots(folder: Path, summary: dict[str, Any]) -> list[Path]:
    """Draw a plot of each metric's means, and of each metric's mean curves.

    Returns:
        The files written.

    Raises:
        OutputError: a plot cannot be written.
        ImportError: matplotlib is not installed (see `check_plots`).
    """
    paths = []
    for name in dict.fromkeys(row["name"] for row in summary["metrics"]):
        rows = [r for r in summary["metrics"] if r["name"] == name and r["mean"] is not None]
        if rows:
            paths.append(_plot_means(folder / f"plot-{_slug(name)}.png", name, rows))
    for name in dict.fromkeys(row["name"] for row in summary["curves"]):
        rows = [row for row in summary["curves"] if row["name"] == name]
        paths.append(_plot_curves(folder / f"plot-{_slug(name)}-curve.png", name, rows))
    return paths


def _slug(name: str) -> str:
    return re.sub(r"[^\w.+]+", "-", name).strip("-")


def _plot_means(path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        low = row["mean"] if row["low"] is None else row["low"]
        high = row["mean"] if row["high"] is None else row["high"]
        error_bar = [[max(row["mean"] - low, 0)], [max(high - row["mean"], 0)]]
        axes.errorbar(row["mean"], y, xerr=error_bar, fmt="o", color="C0", capsize=4)
    axes.set_yticks(range(len(rows)), [f"{series_label(row, rows)} (n={row['n']})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    better = "higher" if rows[0]["higher_is_better"] else "lower"
    axes.set_xlabel(f"{name}: mean and 95 % interval, {better} is better")
    axes.grid(axis="x", alpha=0.3)
    return _save_figure(path, figure)


def _plot_curves(path: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        points = row["points"]
        steps = range(len(points))
        x = [step / max(len(points) - 1, 1) for step in steps]
        mean = [float("nan") if p["mean"] is None else p["mean"] for p in points]
        low = [m if p.get("low") is None else p["low"] for m, p in zip(mean, points, strict=True)]
        high = [
            m if p.get("high") is None else p["high"] for m, p in zip(mean, points, strict=True)
        ]
        (line,) = axes.plot(x, mean, label=series_label(row, rows))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2)
    over_layers = name == "model-randomization"
    axes.set_xlabel("share of the layers randomized" if over_layers else "share of the pixels")
    axes.set_ylabel(f"{name}: mean and 95 % interval")
    axes.legend()
    return _save_figure(path, figure)


def _save_figure(path: Path, figure: Any) -> Path:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
