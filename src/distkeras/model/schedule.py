"""Learning-rate schedules that follow the steps of the whole training, not those of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops

from distkeras.model.compiling import optimizers_in


@dataclass(frozen=True)
class ScheduleSteps:
    """How a worker's steps count for a schedule.

    Attributes:
        scale: steps of the whole training per step of the worker; 1 counts only the worker's own.
    """

    scale: float = 1.0


@final
class TrainingSchedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # untyped
    """A schedule that receives the step of the whole training.

    `keras.Model.fit` on all rows takes `scale` steps while this worker takes one. The optimizer's own count
    is unchanged: Adam's bias correction uses it.

    Args:
        schedule: the user's own.
        steps: how a step counts.
        first: the optimizer's count at the start of this training.
        offset: steps of this training that the optimizer has not counted: an earlier process took them.
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        steps: ScheduleSteps,
        first: keras.Variable,
        offset: keras.Variable,
    ) -> None:
        self.schedule = schedule
        self._steps = steps
        self._first = first
        self._offset = offset

    def __call__(self, step: Any) -> Any:
        done = ops.cast(step, self._first.dtype) - self._first + self._offset
        if self._steps.scale != 1:
            scaled = ops.floor(ops.cast(done, "float32") * self._steps.scale + 1e-3)
            done = ops.cast(scaled, self._first.dtype)
        return self.schedule(self._first + done)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("It belongs to one training in one process.")


class Position:
    """The current step of a training, for the schedules of one model's optimizer.

    Args:
        model: compiled, with a built optimizer. Its schedules follow the training from now on.
        steps: how a step counts.
    """

    def __init__(self, model: keras.Model, steps: ScheduleSteps) -> None:
        self._counts: list[tuple[Any, keras.Variable, keras.Variable]] = []
        for optimizer in optimizers_in(model.optimizer):
            schedule = optimizer._learning_rate
            if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                continue
            first, offset = (
                optimizer.add_variable((), "zeros", "int", name=name) for name in ("first_step", "offset")
            )
            optimizer._learning_rate = TrainingSchedule(schedule, steps, first, offset)
            self._counts.append((optimizer, first, offset))
        self.begin()

    @property
    def is_followed(self) -> bool:
        """Whether there is a schedule."""
        return bool(self._counts)

    def begin(self) -> None:
        """Start a training at the optimizer's current count."""
        for optimizer, first, offset in self._counts:
            first.assign(int(ops.convert_to_numpy(optimizer._iterations)))  # Does not share its buffer.
            offset.assign(0)

    def move_to(self, done: int, start: int | None = None) -> None:
        """Make the worker's next step number `done`, independent of this process's count.

        Args:
            done: steps of this training before the next one.
            start: the schedules' step at the start of this training; by default what it was.
        """
        for optimizer, first, offset in self._counts:
            if start is not None:
                first.assign(start)
            counted = int(ops.convert_to_numpy(optimizer._iterations)) - int(ops.convert_to_numpy(first))
            offset.assign(done - counted)
