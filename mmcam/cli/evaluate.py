"""The commands `mmcam evaluate` and `mmcam summarize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.progress import TextColumn

from mmcam.cli.console import Rate, console, progress_bars
from mmcam.cli.options import Device, LabelsFile, Layers, Methods, Model, Score, Weights

Names = Optional[list[str]]  # noqa: UP045 - typer evaluates it at run time, on Python 3.10 too


def evaluate(
    metrics: Annotated[
        list[str], typer.Argument(metavar="METRIC...", help="metrics, see: mmcam list metrics")
    ],
    data: Annotated[
        str, typer.Option(metavar="SPEC", help="the dataset, see: mmcam list datasets")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="the output folder of the run")],
    weights: Weights = None,
    labels_file: LabelsFile = None,
    task: Annotated[
        str, typer.Option(metavar="classes|actions|caption|answers", help="the task to explain")
    ] = "classes",
    target: Annotated[
        str,
        typer.Option(
            metavar="given|predicted",
            help="explain each item's given label or caption, or the model's prediction",
        ),
    ] = "given",
    top: Annotated[
        int, typer.Option(help="explain this many of the highest-scoring predictions")
    ] = 1,
    words: Annotated[
        str, typer.Option(metavar="all|visual|none", help="the words of captions to explain")
    ] = "all",
    score: Score = None,
    method: Methods = ["gradcam"],  # noqa: B006 - typer copies it
    baseline: Annotated[
        Names,
        typer.Option(
            metavar="uniform|centre|random|activation",
            help="a map that does not depend on the score, for comparison; repeat for several",
        ),
    ] = None,
    layer: Layers = None,
    steps: Annotated[int, typer.Option(help="the number of steps of deletion and insertion")] = 224,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="the threshold of pointing-or-rejecting, in units of the raw map"),
    ] = None,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="evaluate only the first n items of the dataset"),
    ] = None,
    batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="the batch size, in items or in perturbed inputs of one item"),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(help="the number of reader threads, or of worker processes with --engine ray"),
    ] = 2,
    device: Device = "cpu",
    amp: Annotated[bool, typer.Option("--amp", help="use mixed precision (bfloat16)")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out")] = False,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="run in this process or on Ray")
    ] = "local",
    address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="the address of a Ray cluster; without it, Ray starts on this machine"),
    ] = None,
    plots: Annotated[bool, typer.Option("--plots", help="also draw plots as PNG")] = False,
) -> None:
    """Evaluate methods by metrics on a dataset.

    Rows are written to Parquet shards during the run; --resume continues an interrupted run.
    """
    from mmcam.datasets.registry import open_data
    from mmcam.evaluation.report import check_plots
    from mmcam.evaluation.runner import evaluate as run
    from mmcam.models.registry import load

    if plots:
        check_plots()
    study = _study(
        metrics=tuple(metrics),
        task=_task(task, top, words, score),
        methods=tuple(method),
        baselines=tuple(baseline or ()),
        layers=tuple(layer) if layer else None,
        target=target,
        steps=steps,
        threshold=threshold,
        batch=batch,
        amp=amp,
    )
    dataset = open_data(data, task)
    adapter = load(model, weights=weights, labels=labels_file, device=device)
    with progress_bars(Rate(), TextColumn("{task.fields[failed]} failed")) as bars:
        bar = bars.add_task("items", total=None, failed=0)

        def show(done: int, total: int, failed: int) -> None:
            if bars.tasks[bar].total is None:  # the rate excludes the items of an earlier run
                bars.update(bar, total=total, completed=done)
                bars.reset(bar, total=total, completed=done, failed=failed)
            bars.update(bar, completed=done, failed=failed)

        facts = run(
            adapter,
            dataset,
            study,
            out,
            limit=limit,
            resume=resume,
            workers=workers,
            engine=engine,
            address=address,
            command=sys.argv,
            progress=show,
        )
    _report(facts, out, plots)


def summarize(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a run")],
    plots: Annotated[bool, typer.Option("--plots", help="also draw plots as PNG")] = False,
) -> None:
    """Recompute the summary of a run from its rows."""
    from mmcam.evaluation.report import summarize as summarize_run

    _report(summarize_run(folder), folder, plots)


def _study(**settings: Any) -> Any:
    from mmcam.evaluation.study import Study

    return Study(**settings)


def _task(name: str, top: int, words: str, score: str | None) -> Any:
    from mmcam.errors import EvaluationError, nearest
    from mmcam.evaluation.study import TASKS

    if name not in TASKS:
        raise EvaluationError(f"there is no task '{name}'; nearest: {nearest(name, TASKS)}")
    settings: dict[str, Any] = {} if score is None else {"score": score}
    if name == "caption":
        return TASKS[name](words=[] if words == "none" else words, **settings)
    return TASKS[name](top=top, **settings)


def _report(facts: dict[str, Any], folder: Path, plots: bool) -> None:
    from mmcam.evaluation.report import check_plots, draw_plots, notes, tables

    for table in tables(facts):
        console.print(table)
    for note in notes(facts):
        console.print(note, soft_wrap=True)
    if plots:
        check_plots()
        draw_plots(folder, facts)
    console.print(f"written to {folder}", soft_wrap=True)
