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
        settings: further settings, plain JSON; `num_commits` among them.
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
        simulation.server.on_event = _rolled_up(written, simulation, settings["num_commits"])
        simulation.recorder.tell = lambda *facts: written.write(CenterEvaluated(*facts))
        yield
        reason = "diverged" if simulation.diverged else "finished"
        center = simulation.center
        written.finish({"reason": reason, "num_updates": center.num_commits, "seconds": simulation.clock.now})


def _rolled_up(written: Run, simulation: Simulation, num_commits: int) -> Callable[[Event], None]:
    """Return what writes the events; at the first window it decides how long a bucket of the rollups is.

    A virtual second may be the time of a step, or that of the whole run. The first events come when many
    commits are done: the speed so far tells about how long it will take.
    """
    decided = False

    def write(event: Event) -> None:
        nonlocal decided
        if isinstance(event, Window) and not decided:
            decided = True
            done, now = simulation.center.num_commits, simulation.clock.now
            if done and now > 0:
                written.roll_by(2.0 ** math.ceil(math.log2(now / done * num_commits / BUCKETS)))
        written.write(event)

    return write
