"""Compares trainings in one picture: a metric against time, samples and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distkeras.plots.curves import LABELS, Along, Curves, curves_of
from distkeras.plots.style import charts, line_style, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INSIDE = 8
"""Most trainings that a legend inside a chart names; with more it stands below."""


def compare(
    trainings: Sequence[Any], metric: str | None = None, *, labels: Sequence[str] | None = None
) -> Figure:
    """Return a picture of a metric of several trainings, against time, samples and bytes.

    Time counts from the first commit, samples are the rows of all workers together, and bytes are those that
    all workers have sent and received. Without measured bytes, as in a history of an earlier release, that
    chart is left out. Values of the validation are at the ends of epochs; others are means over short times.

    Args:
        trainings: for each the address of its run, its history (`trainer.get_history()`), its trainer, its
            `TrainingResult`, or the result of a simulation.
        metric: name of the metric, such as "val_accuracy". Default: a metric of the validation that all
            have, else another that all have, else the loss.
        labels: a name for each training. Default: the last part of the run's address, or the trainer's class.

    Raises:
        ValueError: there are no trainings, or another number of labels; a training does not have the metric,
            or they have none in common; a result has no run.
        TypeError: a training is something else.
        ImportError: Matplotlib is missing (`pip install 'distkeras[plot]'`).

    Example:
        ```python
        distkeras.compare(["runs/adag", "runs/diloco"], "val_accuracy").savefig("compared.png")
        ```
    """
    if isinstance(trainings, str) or not trainings:
        raise ValueError(f"Expected a list of trainings to compare. Received: {trainings!r}")
    found = [curves_of(each) for each in trainings]
    for curves, label in zip(found, _labels(found, labels), strict=True):
        curves.label = label
    metric = _common_metric(found) if metric is None else metric
    for curves in found:
        if metric not in curves.points:
            raise ValueError(
                f"Expected trainings with the metric {metric!r}. Received: {curves.label!r}, which has "
                f"{', '.join(curves.points) or 'none'}"
            )
    with styled():
        return _drawn(found, metric)


def _drawn(found: Sequence[Curves], metric: str) -> Figure:
    alongs = alongs_of(found, metric)
    figure, [row] = charts(1, len(alongs), metric)
    for axes, along in zip(row, alongs, strict=True):
        for number, curves in enumerate(found):
            draw(axes, curves, metric, along, label=curves.label, **line_style(number))
        label_axes(axes, along)
    if len(found) <= INSIDE:
        row[0].legend()
    else:
        handles, names = row[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def alongs_of(found: Sequence[Curves], metric: str) -> list[Along]:
    """Return what a metric can be drawn against: bytes only if they were measured for all."""
    alongs: list[Along] = ["time", "samples"]
    return [*alongs, "bytes"] if all(each.has_bytes(metric) for each in found) else alongs


def draw(axes: Axes, curves: Curves, metric: str, along: Along, **style: Any) -> None:
    """Draw a metric; those of the validation with a mark for each epoch."""
    places, values = curves.along(metric, along)
    marked = metric.startswith("val_") and len(places) <= 60
    axes.plot(places, values, marker="o" if marked else None, markersize=3.5, **style)


def label_axes(axes: Axes, along: Along) -> None:
    """Say what runs along the lower edge, with units such as k, M and G."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_xlabel(LABELS[along])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if along != "time":
        axes.xaxis.set_major_formatter(EngFormatter(unit="B" if along == "bytes" else "", sep=" "))


def _labels(found: Sequence[Curves], labels: Sequence[str] | None) -> list[str]:
    if labels is None:
        own = [curves.label for curves in found]
        return [
            f"{name} {own[:place].count(name) + 1}" if own.count(name) > 1 else name
            for place, name in enumerate(own)
        ]
    if isinstance(labels, str) or len(labels) != len(found):
        raise ValueError(f"Expected {len(found)} labels, one for each training. Received: labels={labels!r}")
    return list(labels)


def _common_metric(found: Sequence[Curves]) -> str:
    common = [name for name in found[0].points if all(name in curves.points for curves in found)]
    if not common:
        raise ValueError(
            "Expected trainings with a metric in common. Received: "
            + "; ".join(f"{curves.label!r} with {', '.join(curves.points) or 'none'}" for curves in found)
        )
    return min(common, key=lambda name: (name.removeprefix("val_") == "loss", not name.startswith("val_")))
