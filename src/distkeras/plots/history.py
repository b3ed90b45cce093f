"""The picture of one training: each metric against time, samples and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distkeras.events import Window
from distkeras.plots.compare import alongs_of, draw, label_axes
from distkeras.plots.curves import curves_of
from distkeras.plots.style import COLORS, MUTED, charts, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WORKERS = 12
"""Workers of which each has a line of its own behind the mean of all."""


def plot_history(history: Any, smooth: int = 10) -> Figure:
    """Return a picture of a history: a row a metric, with a chart for time, one for samples, one for bytes.

    The bold line is the mean of all workers, and dots are the validation at the ends of epochs. Against time,
    each of up to 12 workers has a thin line.

    Args:
        history: from `get_history`.
        smooth: number of windows in the running mean of a worker's line.
    """
    with styled():
        return _drawn(history, smooth)


def _drawn(history: Any, smooth: int) -> Figure:
    curves = curves_of(history)
    names = [name for name in curves.points if not name.startswith("val_")]
    alongs = alongs_of([curves], names[0] if names else "loss")
    figure, grid = charts(max(1, len(names)), len(alongs))
    for name, row in zip(names, grid, strict=False):
        for axes, along in zip(row, alongs, strict=True):
            if along == "time":
                _draw_workers(axes, history, name, smooth)
            draw(axes, curves, name, along, label="all workers", color=COLORS[0], linewidth=2)
            if f"val_{name}" in curves.points:
                validation = {"color": COLORS[1], "linestyle": "none", "label": "validation"}
                draw(axes, curves, f"val_{name}", along, **validation)
            label_axes(axes, along)
        row[0].set_ylabel(name)
        if len(row[0].lines) > 1:
            row[0].legend()
    return figure


def _draw_workers(axes: Axes, history: Sequence[Window], name: str, smooth: int) -> None:
    windows: dict[int, list[Window]] = {}
    for window in history:
        if name in window.metrics:
            windows.setdefault(window.worker, []).append(window)
    if not 1 < len(windows) <= MOST_WORKERS:
        return
    first = min(window.timestamp for window in history)
    for number, worker in enumerate(sorted(windows)):
        own = windows[worker]
        values = [window.metrics[name] for window in own]
        means = [
            sum(values[max(0, end - smooth) : end]) / min(end, smooth) for end in range(1, len(values) + 1)
        ]
        times = [window.timestamp - first for window in own]
        label = "each worker" if number == 0 else None
        axes.plot(times, means, color=MUTED, alpha=0.45, linewidth=0.8, label=label)
