"""The command `mmcam demo`."""

from __future__ import annotations

from pathlib import Path

from mmcam.cli.console import console
from mmcam.cli.options import Out


def demo(out: Out = Path("mmcam-demo")) -> None:
    """Run a demonstration on synthetic pictures and a clip.

    Nothing is downloaded.
    """
    from mmcam.demo import run

    for line in run(out):
        console.print(line, soft_wrap=True)
