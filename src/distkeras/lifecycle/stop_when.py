"""When a training is to end before its last epoch: a target for a metric, or a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from distkeras.runs.direction import known_mode


class StopWhen:
    """Ends a training at the end of the first epoch that reaches a target, or when a time is over.

    One condition that holds is enough. `DistributedTrainer.train(stop=...)` takes it.

    Args:
        minutes: ends the training within a window after so many minutes from its start.
        mode: by name of a metric, "min" if the training ends at a value of at most the target, "max" for at
            least. Default: as in Keras's callbacks the compiled metric decides, else the name. A training
            refuses a target of which neither tells it.
        **targets: a target by the name that the metric has in the logs, such as `val_accuracy=0.98` or
            `loss=0.01`.

    Raises:
        TypeError: a target is not a number.
        ValueError: there is no condition, a number is not finite, or `mode` is neither "min" nor "max".

    Example:
        ```python
        stop = StopWhen(val_accuracy=0.98, loss=0.01, minutes=30)
        ```
    """

    def __init__(
        self, *, minutes: float | None = None, mode: Mapping[str, str] | None = None, **targets: float
    ) -> None:
        if minutes is None and not targets:
            raise ValueError("Expected a target or a time, such as StopWhen(loss=0.01, minutes=30).")
        for name, value in {"minutes": minutes, **targets}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise TypeError(f"Expected a number. Received: {name}={value!r}")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"Expected a finite number. Received: {name}={value!r}")
        if minutes is not None and minutes <= 0:
            raise ValueError(f"Expected a positive number of minutes. Received: minutes={minutes!r}")
        modes = dict(mode or {})
        for name, given in modes.items():
            if name not in targets or given not in ("min", "max"):
                raise ValueError(
                    'Expected "min" or "max" for the name of a target. '
                    f"Received: mode={modes!r}, targets={', '.join(targets)}"
                )
        self.minutes = minutes
        self.targets = dict(targets)
        self._modes = modes

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that make it, plain JSON."""
        minutes = {} if self.minutes is None else {"minutes": self.minutes}
        return {**self.targets, "mode": dict(self._modes), **minutes}

    def __repr__(self) -> str:
        parts = [f"{name}={value!r}" for name, value in self.targets.items()]
        return (
            f"StopWhen({', '.join([*parts, *([f'minutes={self.minutes!r}'] * (self.minutes is not None))])})"
        )

    def for_metrics(self, metrics: Iterable[Any]) -> StopWhen:
        """Return the same conditions with the modes that a model's compiled `metrics` give them.

        Raises:
            ValueError: neither a metric nor its name tells whether more is better.
        """
        given = list(metrics)
        return StopWhen(
            minutes=self.minutes,
            mode={name: self._mode_of(name, given) for name in self.targets},
            **self.targets,
        )

    def _mode_of(self, name: str, metrics: Iterable[Any] = ()) -> str:
        to_say_it = f'StopWhen({name}={self.targets[name]!r}, mode={{"{name}": "max"}}), or "min"'
        return self._modes.get(name) or known_mode(name, metrics, to_say_it)

    def reached(self, logs: Mapping[str, Any]) -> str | None:
        """Return which target the `logs` of an epoch reach, in words; `None` for none.

        Raises:
            ValueError: a target is not in the logs, or it is not known whether more of it is better.
        """
        for name, target in self.targets.items():
            if name not in logs:
                if name.startswith("val_") and not any(key.startswith("val_") for key in logs):
                    continue  # An epoch without validation: `validation_freq` may leave some out.
                raise ValueError(
                    f"{self!r} has a target for a metric that is not in the logs. Received: {sorted(logs)}"
                )
            value = float(logs[name])
            if value >= target if self._mode_of(name) == "max" else value <= target:
                return f"{name} is {value:.6g}, and the target {target:.6g}"
        return None

    def over(self, seconds: float) -> str | None:
        """Return that the time is over, in words, after `seconds` of training; `None` if it is not."""
        if self.minutes is None or seconds < 60 * self.minutes:
            return None
        return f"{self.minutes:g} minutes are over"
