"""The style of all pictures, here, in the benchmarks and in the documents.

The colours are those of Okabe and Ito (2008), which people with any kind of colour blindness tell apart. With
more lines than colours, dashes change too, so that no two lines look the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8000")
"""The last one replaces their yellow, which is too light for a line on white."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))

INK, MUTED, GRID = "#1b1f24", "#5a6270", "#d9dde3"

SETTINGS: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlecolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "figure.labelsize": 9,
    "figure.labelweight": "normal",
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "savefig.dpi": 120,
}

WIDTH, HEIGHT = 3.6, 2.8
"""Inches of one chart."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style in a `with` block.

    Raises:
        ImportError: Matplotlib is missing.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise ImportError("Pictures need Matplotlib: pip install 'distkeras[plot]'") from error
    with rc_context(dict(SETTINGS)):
        yield


def charts(
    rows: int, columns: int, title: str = "", *, width: float = WIDTH, height: float = HEIGHT, **shared: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of `rows` times `columns` charts, and the charts by row.

    Titles of charts and legends have the style if they are set in `styled`, too.

    Args:
        rows: number of rows.
        columns: number of columns.
        title: of the figure.
        width: inches of a chart.
        height: inches of a chart.
        **shared: `sharex` and `sharey`, as for `Figure.subplots`.

    Raises:
        ImportError: Matplotlib is missing.
    """
    size = width * columns, height * rows + (0.3 if title else 0)
    with styled():
        from matplotlib.figure import (
            Figure,
        )  # Not pyplot: it keeps every figure, and chooses a window system.

        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, **shared)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
    return figure, [list(row) for row in grid]


def legend(axes: Axes, **options: Any) -> None:
    """Put a legend into a chart, in the style."""
    with styled():
        axes.legend(**options)


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of line `number`, from 0."""
    dashes = DASHES[number // len(COLORS) % len(DASHES)]
    return {"color": COLORS[number % len(COLORS)], "linestyle": dashes}


def save(figure: Figure, path: Path | str) -> None:
    """Save a figure, in folders that are made as needed."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=SETTINGS["savefig.dpi"], pil_kwargs={"optimize": True})
