"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="family:name, a model folder, or package.module:factory"),
]
Weights = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time on Python 3.10 too
    typer.Option(help="a safetensors file or a checkpoint; 'random' for an untrained model"),
]
LabelsFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--labels-file", help="a text file with one class name per line"),
]
Labels = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        *("--label", "-l"),
        metavar="NAME",
        help="a class to explain, by name, index or (ImageNet) WordNet id; repeat for several",
    ),
]
Top = Annotated[
    int, typer.Option(help="without --label: explain this many of the highest-scoring classes")
]
Score = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="logit|log-prob|mean-contrast",
        help="the score to explain; mean-contrast is the logit minus the mean of all others",
    ),
]
Methods = Annotated[
    list[str],
    typer.Option(
        "--method",
        metavar="NAME",
        help="a method, see: mmcam list methods; repeat for several",
    ),
]
Layers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--layer",
        metavar="NAME",
        help="a layer to explain, by name or pattern such as 'layer*'; repeat for several",
    ),
]
Guided = Annotated[
    bool,
    typer.Option("--guided", help="add the product of each map with guided backpropagation"),
]
Counterfactual = Annotated[
    bool,
    typer.Option("--counterfactual", help="explain the evidence against each target instead"),
]
Device = Annotated[str, typer.Option(help="the model's device: cpu, cuda, cuda:1, mps")]
Out = Annotated[Path, typer.Option(help="the output folder")]
Colormap = Annotated[
    str, typer.Option(help="the colour map of the heatmaps, such as inferno, viridis, jet")
]
