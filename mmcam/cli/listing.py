"""The commands `mmcam list ...`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from mmcam.cli.console import console
from mmcam.cli.options import Model, Weights


def list_models(
    match: Annotated[str, typer.Option(help="list only names that contain this text")] = "",
) -> None:
    """List the model families and their models."""
    from mmcam.models import FAMILIES, model_names

    table = Table("family", "example", "models", title="Models")
    for family, row in FAMILIES.items():
        table.add_row(family, row.example, row.summary)
    console.print(table)
    for name in model_names(match):
        console.print(name, soft_wrap=True)


def list_methods() -> None:
    """List the methods and their sources."""
    from mmcam.methods import METHODS

    table = Table("method", "description", "source", title="Methods")
    for name, row in METHODS.items():
        table.add_row(name, row.summary, row.source)
    console.print(table)


def list_layers(model: Model, weights: Weights = None) -> None:
    """List the layers of a model that can be explained.

    These are the layers with a grid, in execution order.
    """
    from mmcam.models.registry import layers_of

    default, layers = layers_of(model, weights)
    table = Table("layer", "channels", "grid", title=f"Layers of {model}")
    for layer in layers:
        mark = " (default)" if layer.name in default else ""
        grid = " x ".join(map(str, layer.grid))
        table.add_row(layer.name + mark, str(layer.channels), grid)
    console.print(table)


def list_answers(
    model: Model,
    match: Annotated[str, typer.Option(help="list only answers that contain this text")] = "",
) -> None:
    """List the answers that a VQA model chooses from."""
    from mmcam import load
    from mmcam.errors import ModelError

    answers = getattr(load(model), "labels", None)
    if answers is None:
        raise ModelError(
            f"{model} generates its answers word by word and has no list of them; "
            "any answer can be explained"
        )
    for answer in answers:
        if match.casefold() in answer.casefold():
            console.print(answer, soft_wrap=True)


def list_metrics() -> None:
    """List the metrics of mmcam evaluate and their sources."""
    from mmcam.evaluators import EVALUATORS

    table = Table("metric", "description", "needs", "source", title="Metrics")
    for name, row in EVALUATORS.items():
        table.add_row(name, row.summary, row.needs, row.source)
    console.print(table)


def list_datasets() -> None:
    """List the datasets that mmcam evaluate reads."""
    from mmcam.datasets.registry import DATASETS

    table = Table("example", "description", "options", title="Datasets (--data)")
    for row in DATASETS.values():
        table.add_row(row.example, row.summary, ", ".join(row.options))
    console.print(table)
