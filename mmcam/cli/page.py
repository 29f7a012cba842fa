"""The command `mmcam page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="folders of results")],
    colormap: Annotated[
        str, typer.Option(help="the colour map of the heatmaps, such as inferno, viridis, jet")
    ] = "inferno",
    out: Annotated[Path, typer.Option(help="the HTML file to write")] = Path("mmcam-gallery.html"),
) -> None:
    """Combine results into one HTML gallery.

    The gallery contains all results in the given folders and their subfolders.
    """
    from mmcam.page import gallery, write_page
    from mmcam.results.drawing import check_drawing_options

    check_drawing_options(colormap)
    write_page(out, gallery(folders, out, colormap))
    typer.echo(f"written to {out}")
