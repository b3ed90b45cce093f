"""The progress of a training as one line of text, for any width."""

from __future__ import annotations

import math
from collections.abc import Mapping

from distkeras.monitor.progress_state import Model, Progress

FULL, HALF, EMPTY = "━", "╸", "─"
LEAST_BAR, MOST_BAR = 10, 30
GAP = "  "
SHORT = 100
"""Characters of a line below which the title is shortened."""
BEFORE_BAR = 4


def lines_of(title: str, progress: Progress, width: int, *, ended: bool = False, most: int = 8) -> list[str]:
    """Return the line of a training, or one for each member of an ensemble of at most `most` members.

    Args:
        title: of the training.
        progress: how far it is.
        width: characters of a line.
        ended: whether it is over.
        most: most lines.
    """
    models = progress.models
    if not progress.trains:
        return [] if ended else [_fitting([title, _waiting(progress)], width)]
    if len(models) == 1:
        return [_line(title, models[0], progress, width, ended)]
    if len(models) > most:
        return [_line(title, _together(models), progress, width, ended)]
    return [
        _line(f"member {member}", model, progress, width, ended, is_first=member == 0)
        for member, model in enumerate(models)
    ]


def logs_text(logs: Mapping[str, float]) -> str:
    """Return metrics with four significant digits."""
    return GAP.join(f"{name} {_number(value)}" for name, value in logs.items())


def seconds_text(seconds: float) -> str:
    """Return a duration as 42 s, 3:05 or 1:02:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _line(
    title: str, model: Model, progress: Progress, width: int, ended: bool, is_first: bool = True
) -> str:
    """Return the line of a model: what concerns all of them stands in the first one."""
    first = 0 if progress.aim is None else progress.aim.first
    loss, metrics = _apart(model.logs, "loss")
    val_loss, val_metrics = _apart(model.validated, "val_loss")
    # Each with a rank: the greatest goes first where there is no room.
    parts = [
        (title if width >= SHORT else title.partition(", ")[0], 0),
        (f"epoch {first + model.epoch + 1}/{first + model.num_epoch}", 0),
        (f"{model.share:3.0%}", 1),
        (f"{progress.speed:,.0f} rows/s" if is_first and progress.speed and not ended else "", 2),
        (logs_text(loss), 4),
        (logs_text(metrics), 7),
        (logs_text(val_loss), 6),
        (logs_text(val_metrics), 8),
        (progress.missing() if is_first and not ended else "", 5),
        (_time(progress, ended) if is_first else "", 3),
    ]
    parts = [(text, rank) for text, rank in parts if text]
    while rank := max(rank for _, rank in parts):
        # What matters more than a bar is shown without one.
        if _length(parts) + (len(GAP) + LEAST_BAR if rank > BEFORE_BAR else 0) <= width:
            break
        parts = [part for part in parts if part[1] < rank]
    room = width - _length(parts) - len(GAP)
    if room >= LEAST_BAR:
        parts.insert(2, (_bar(model.share, min(room, MOST_BAR)), 1))
    return _fitting([text for text, _ in parts], width)


def _apart(logs: Mapping[str, float], loss: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the loss and the other metrics."""
    return (
        {name: value for name, value in logs.items() if name == loss},
        {name: value for name, value in logs.items() if name != loss},
    )


def _time(progress: Progress, ended: bool) -> str:
    if ended:
        return f"in {seconds_text(progress.seconds)}"
    if all(model.share == 1.0 for model in progress.models):
        return "completes the model"  # The last validation, callbacks, and what the run keeps.
    left = progress.seconds_left
    return "" if left is None else f"{seconds_text(left)} left"


def _waiting(progress: Progress) -> str:
    what, seconds = progress.waiting()
    return f"{what or 'begins'}, {seconds_text(seconds)}"


def _together(models: list[Model]) -> Model:
    """Return all members of an ensemble as one: their rows, and the means of their metrics."""
    slowest = min(models, key=lambda model: model.epoch)
    rows = sum(model.rows for model in models)
    total = sum(model.end_of(model.num_epoch - 1) for model in models)
    whole = Model(lambda _: total, slowest.num_epoch, rows, slowest.epoch)
    for name in dict.fromkeys(name for model in models for name in model.logs):
        values = [model.logs[name] for model in models if name in model.logs]
        whole.logs[name] = sum(values) / len(values)
    return whole


def _bar(share: float, width: int) -> str:
    halves = int(share * width * 2)
    whole, half = divmod(halves, 2)
    return FULL * whole + HALF * half + EMPTY * (width - whole - half)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.4f}"


def _length(parts: list[tuple[str, int]]) -> int:
    return sum(len(text) + len(GAP) for text, _ in parts) - len(GAP)


def _fitting(parts: list[str], width: int) -> str:
    line = GAP.join(part for part in parts if part)
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"
