"""A progress bar over the rows of a training."""

from __future__ import annotations

import sys

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from distkeras.events import Event, ServerRestored, Window


class _Speed(ProgressColumn):
    """Rows per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} rows/s", style="progress.data.speed")


class ProgressBar:
    """Shows trained rows, rows per second and the loss of the last window, in a terminal or a notebook.

    Args:
        title: title of the bar.
        total: rows of the whole training: rows of the data times epochs.
        show: whether to draw the bar; None to draw it only in a terminal (standard error) or a notebook.
    """

    def __init__(self, title: str, total: int, show: bool | None = None) -> None:
        visible = (sys.stderr.isatty() or "ipykernel" in sys.modules) if show is None else show
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            _Speed(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            disable=not visible,
        )
        self._task = self._progress.add_task(title, total=total, loss="-")

    def __call__(self, event: Event) -> None:
        """Advance by the rows of a committed window; move back when a restored server repeats windows."""
        if isinstance(event, Window):
            loss = event.metrics.get("loss")
            text = "-" if loss is None else f"{loss:.4f}"
            self._progress.update(self._task, advance=event.samples, loss=text)
        if isinstance(event, ServerRestored):
            self._progress.update(self._task, completed=event.samples)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
