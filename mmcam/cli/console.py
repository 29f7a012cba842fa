"""The console that all commands print to, and progress bars."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(markup=False, emoji=False, highlight=False)  # prints users' texts unchanged


class Rate(ProgressColumn):
    """The current rate, in items per second."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        speed = task.finished_speed or task.speed
        return Text("- items/s" if speed is None else f"{speed:.3g} items/s")


def progress_bars(*columns: ProgressColumn) -> Progress:
    """Progress bars on stderr, if that is a terminal; `columns` come after the remaining time."""
    errors = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *columns,
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
