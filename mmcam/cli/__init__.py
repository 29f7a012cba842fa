"""The command line: parse, call, print."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from mmcam.cli import listing
from mmcam.cli.demo import demo
from mmcam.cli.evaluate import evaluate, summarize
from mmcam.cli.explain import action, caption, classify, vqa
from mmcam.cli.page import page
from mmcam.errors import MmcamError

app = typer.Typer(
    help="Show which pixels, in which frames, are the evidence for a model's caption, answer, "
    "action or class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (classify, action, caption, vqa, demo, evaluate, summarize, page):
    app.command()(command)

lists = typer.Typer(help="List models, methods, layers and more.", no_args_is_help=True)
app.add_typer(lists, name="list")
for name in ("models", "methods", "layers", "answers", "metrics", "datasets"):
    lists.command(name)(getattr(listing, f"list_{name}"))


def main() -> NoReturn:
    """Run the command line; print errors of mmcam in one line and exit with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # do not fail on text that a stream cannot encode
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MmcamError as error:
        message = " ".join(str(error).split())
        line = Text.assemble(("mmcam:", "bold red"), f" {type(error).__name__}: {message}")
        Console(stderr=True, soft_wrap=True).print(line)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
