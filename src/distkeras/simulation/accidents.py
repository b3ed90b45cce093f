"""What befalls single workers of a simulation: the time of a window, failures in it, and lost replies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distkeras.simulation.conditions import Failures, Outages
from distkeras.simulation.outages import Schedule
from distkeras.simulation.step_time import StepTime, WindowTime


@dataclass
class Accidents:
    """Draws the time of each window and what goes wrong in it.

    Attributes:
        window_time: seconds of a machine's steps.
        failures: failures of windows, each with its own probability.
        outages: recovery times of processes.
        schedule: times of process failures.
        chance: random generator of `failures`.
        calm: whether nothing befalls anybody: the usual case.
    """

    window_time: WindowTime
    failures: Failures
    outages: Outages
    schedule: Schedule
    chance: np.random.Generator

    def __post_init__(self) -> None:
        self.calm = (self.failures, self.outages) == (Failures(), Outages())

    @classmethod
    def drawn(
        cls, num_machines: int, seed: int, step_time: StepTime, failures: Failures, outages: Outages
    ) -> Accidents:
        """Return what befalls so many machines under these conditions, drawn from the streams of `seed`."""
        times, faults, failing = (np.random.default_rng((seed, stream)) for stream in (0, 1, 3))
        schedule = Schedule(outages, num_machines, failing)
        return cls(step_time.windows(num_machines, times), failures, outages, schedule, faults)

    def window(self, machine: int, now: float, num_steps: int) -> tuple[float, float | None]:
        """Return the seconds of a window that begins now, and when a machine that fails in it starts again.

        Args:
            machine: index of the machine.
            now: start of the window.
            num_steps: steps of the window.

        Returns:
            The seconds, and the time of the restart; `None` if it does not fail.
        """
        seconds = self.window_time(machine, num_steps)
        if self.calm:
            return seconds, None
        failures = self.failures
        if failures.straggle and self.chance.random() < failures.straggle:
            seconds *= failures.slowdown
        if failures.crash and self.chance.random() < failures.crash:
            return seconds, now + seconds * self.chance.random() + failures.restart
        if (dead := self.schedule.failure_of(machine, now, now + seconds)) is not None:
            return seconds, dead + self.outages.worker_restart
        return seconds, None

    def lost_reply(self, machine: int, now: float) -> float | None:
        """Return when a machine sends its commit again because the reply is lost; `None` if it is not."""
        lost = self.failures.lost_reply
        if lost and self.chance.random() < lost:
            return now + self.failures.timeout
        return now + self.outages.cut_restart if self.schedule.is_cut(machine, now) else None
