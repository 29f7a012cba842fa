"""The commands `mmcam list ...`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from mmcam.cli.console import console
from mmcam.cli.options import Model, Weights


def list_models(
    match: Annotated[str, typer.Option(help="only names that hold this text")] = "",
) -> None:
    """The families of models, and the names in them."""
    from mmcam.models import FAMILIES, model_names

    table = Table("family", "example", "holds", title="Models")
    for family, row in FAMILIES.items():
        table.add_row(family, row.example, row.summary)
    console.print(table)
    for name in model_names(match):
        console.print(name, soft_wrap=True)


def list_methods() -> None:
    """The methods, and where they come from."""
    from mmcam.methods import METHODS

    table = Table("method", "what it is", "source", title="Methods")
    for name, row in METHODS.items():
        table.add_row(name, row.summary, row.source)
    console.print(table)


def list_layers(model: Model, weights: Weights = None) -> None:
    """The layers of a model that have a grid to explain.

    They are listed in the order in which they run.
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
    match: Annotated[str, typer.Option(help="only answers that hold this text")] = "",
) -> None:
    """The answers that a model of questions chooses from."""
    from mmcam import load
    from mmcam.errors import ModelError

    answers = getattr(load(model), "labels", None)
    if answers is None:
        raise ModelError(f"{model} writes its answers word by word; any answer can be forced")
    for answer in answers:
        if match.casefold() in answer.casefold():
            console.print(answer, soft_wrap=True)


def list_metrics() -> None:
    """The metrics of mmcam evaluate, and where they come from."""
    from mmcam.evaluators import EVALUATORS

    table = Table("metric", "what it is", "needs", "source", title="Metrics")
    for name, row in EVALUATORS.items():
        table.add_row(name, row.summary, row.needs, row.source)
    console.print(table)


def list_datasets() -> None:
    """The datasets that mmcam evaluate reads."""
    from mmcam.datasets.registry import DATASETS

    table = Table("example", "what it is", "options", title="Datasets (--data)")
    for row in DATASETS.values():
        table.add_row(row.example, row.summary, ", ".join(row.options))
    console.print(table)
