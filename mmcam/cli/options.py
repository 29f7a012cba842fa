"""The options that several commands have, each worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Model = Annotated[
    str, typer.Option("--model", "-m", help="family:name, a folder, or package.module:factory")
]
Weights = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time on Python 3.10 too
    typer.Option(help="a safetensors file or checkpoint; 'random' for an untrained model"),
]
LabelsFile = Annotated[
    Optional[Path], typer.Option("--labels-file", help="class names, one a line")  # noqa: UP045
]
Labels = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--label", "-l", metavar="NAME", help="a class to explain, or its number; repeat for more"
    ),
]
Top = Annotated[int, typer.Option(help="without labels: how many of the model's first ones")]
Methods = Annotated[
    list[str],
    typer.Option("--method", metavar="NAME", help="see: mmcam list methods; repeat for more"),
]
Layers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--layer", metavar="NAME", help="a layer's name or pattern: 'layer*'; repeat for more"
    ),
]
Guided = Annotated[bool, typer.Option("--guided", help="add the product with guided backprop")]
Counterfactual = Annotated[
    bool, typer.Option("--counterfactual", help="show what speaks against each label instead")
]
Device = Annotated[str, typer.Option(help="where the model runs: cpu, cuda, cuda:1, mps")]
Out = Annotated[Path, typer.Option(help="the folder for the results")]
Colormap = Annotated[str, typer.Option(help="colours of the heat, such as inferno, viridis, jet")]
