"""The screen: one console for all that is printed, and bars for what takes long."""

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

console = Console(markup=False, emoji=False, highlight=False)  # texts of users are shown as is


class Rate(ProgressColumn):
    """Items per second, lately."""

    def render(self, task: Task) -> Text:
        """The rate of one bar."""
        speed = task.finished_speed or task.speed
        return Text("- items/s" if speed is None else f"{speed:.3g} items/s")


def progress_bars(*columns: ProgressColumn) -> Progress:
    """Bars on the standard error, if that is a terminal; `columns` stand behind the time left."""
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
