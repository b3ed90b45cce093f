"""A simulation as a run directory: the events of its center and the evaluations, in virtual seconds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from distkeras.center import CenterConfig
from distkeras.events import Event, Window
from distkeras.runs import CenterEvaluated, Run, RunOptions
from distkeras.simulation.event_loop import Simulation

BUCKETS = 2_000
"""Buckets of the rollups of a whole run, about."""


@contextmanager
def kept(
    run: str | os.PathLike[str] | RunOptions | None,
    config: CenterConfig,
    settings: Mapping[str, Any],
    simulation: Simulation,
) -> Iterator[None]:
    """Write a `simulation` to a new run directory while the `with` block runs it.

    Args:
        run: address or options of the run; `None` for no run.
        config: settings of the center.
        settings: further settings, plain JSON; those of the run's length among them.
        simulation: the simulation, before it begins.

    Raises:
        ValueError: the address holds a run.
    """
    if run is None:
        yield
        return
    rule = json.loads(json.dumps({"name": config.algorithm.name, **asdict(config.algorithm)}, default=repr))
    with Run.open(run) as written:
        written.begin(
            {**settings, "algorithm": rule, "num_workers": config.num_workers}, facts={"simulation": True}
        )
        simulation.server.on_event = _rolled_up(written, simulation, settings)
        simulation.recorder.tell = lambda *facts: written.write(CenterEvaluated(*facts))
        yield
        reason = "diverged" if simulation.diverged else "finished"
        center = simulation.center
        written.finish({"reason": reason, "num_updates": center.num_commits, "seconds": simulation.clock.now})


def _rolled_up(written: Run, simulation: Simulation, settings: Mapping[str, Any]) -> Callable[[Event], None]:
    """Return what writes the events; at the first window it decides how long a bucket of the rollups is.

    A virtual second may be the time of a step, or that of the whole run. The first events come when many
    commits are done: the speed so far tells about how long it will take.
    """
    decided = False

    def write(event: Event) -> None:
        nonlocal decided
        if isinstance(event, Window) and not decided:
            decided = True
            if (seconds := _seconds_in_all(simulation, settings)) is not None:
                written.roll_by(2.0 ** math.ceil(math.log2(seconds / BUCKETS)))
        written.write(event)

    return write


def _seconds_in_all(simulation: Simulation, settings: Mapping[str, Any]) -> float | None:
    """Return about how many virtual seconds a run takes at its speed so far; `None` if that is not known."""
    done, now = simulation.center.num_commits, simulation.clock.now
    if not done or now <= 0:
        return None
    most: list[int | None] = [settings["num_commits"]]
    if (steps := simulation.shares.steps_in_all) is not None:
        together = simulation.config.num_workers if simulation.config.algorithm.synchronous else 1
        most.append(max(1, steps // (simulation.inner.window * together)))
    limits = [now / done * commits for commits in most if commits is not None]
    if settings["num_samples"] is not None:
        limits.append(now / max(1, simulation.recorder.num_samples) * settings["num_samples"])
    if settings["until"] is not None:
        limits.append(settings["until"])
    return min(limits)
