"""The result of a training: why it ended, and its best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Reason = Literal["finished", "callback", "target", "time", "stop", "interrupt", "not finite"]

BY_ITSELF: tuple[Reason, ...] = ("finished", "callback", "target", "time", "not finite")
"""Reasons of a training that nobody has stopped from outside."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        reason: why it ended: "finished" after its last epoch; "callback" if a callback set
            `model.stop_training`; "target" or "time" by `StopWhen`; "stop" by `trainer.stop()`; "interrupt"
            by Ctrl-C; "not finite" if a callback stopped it for a loss that is not a number.
        detail: the reason in words.
        epochs: number of epochs whose logs are in the history, the last one possibly not whole.
        best_epoch: epoch with the best `val_loss`, or the best `loss` without validation, 0-based; `None`
            without an epoch.
        best: the logs of that epoch.
        checkpoints: addresses of the checkpoints in the run directory, by epoch.
        run: address of the run directory; `None` for none.
        failures: records and checkpoints that the run's store has refused, in words.
        seconds: duration of the training.
        server_placement: where the parameter servers have run: "driver" or "executors".
        placement_reason: why they have run there, in words.
    """

    reason: Reason
    detail: str
    epochs: int
    best_epoch: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    run: str | None = None
    failures: tuple[str, ...] = ()
    seconds: float = 0.0
    server_placement: str = "driver"
    placement_reason: str = ""

    def __repr__(self) -> str:
        parts = [f"{self.reason}: {self.detail}", f"{counted(self.epochs, 'epoch')} in {self.seconds:.3g} s"]
        if self.best:
            place = "best" if self.best_epoch is None else f"best in epoch {self.best_epoch}"
            parts.append(f"{place}: {listed(self.best)}")
        if self.checkpoints:
            parts.append(counted(len(self.checkpoints), "checkpoint"))
        if self.failures:
            parts.append(f"not kept: {', '.join(self.failures)}")
        if self.run is not None:
            parts.append(f"run {self.run!r}")
        return f"TrainingResult({'; '.join(parts)})"

    @classmethod
    def stored(cls, facts: Mapping[str, Any]) -> TrainingResult:
        """Return the result that a run has in its `result.json`."""
        known = {each.name: facts[each.name] for each in fields(cls) if each.name in facts}
        checkpoints = {int(epoch): address for epoch, address in facts.get("checkpoints", {}).items()}
        return cls(**known | {"checkpoints": checkpoints, "failures": tuple(facts.get("failures", ()))})

    @classmethod
    def of(
        cls,
        reason: Reason,
        detail: str,
        epochs: Sequence[int],
        history: Mapping[str, Sequence[float]],
        **further: Any,
    ) -> TrainingResult:
        """Return the result of a training with the epochs and logs of a history."""
        best = _best_of(history)
        if best is None:
            return cls(reason, detail, len(epochs), **further)
        name, place = best
        # Only values of every epoch, or of every validation, stand at the place of one.
        logs = {key: values[place] for key, values in history.items() if len(values) == len(history[name])}
        whole = len(history[name]) == len(epochs)
        return cls(reason, detail, len(epochs), epochs[place] if whole else None, logs, **further)


def counted(number: int, what: str) -> str:
    """Return a number of things, such as "1 epoch" or "3 epochs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line, such as "loss=0.1234, accuracy=0.95"."""
    numbers = {name: f"{value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)}
    return ", ".join(f"{name}={numbers.get(name, value)}" for name, value in metrics.items())


def _best_of(history: Mapping[str, Sequence[float]]) -> tuple[str, int] | None:
    """Return the value by which epochs are compared, and its place with the best one."""
    for name in ("val_loss", "loss"):
        finite = [(value, place) for place, value in enumerate(history.get(name, ())) if math.isfinite(value)]
        if finite:
            return name, min(finite)[1]
    return None
