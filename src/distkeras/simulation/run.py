"""A simulation as a run directory: the events of its center and the evaluations, in virtual seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from distkeras.center import CenterConfig
from distkeras.runs import CenterEvaluated, Run, RunOptions
from distkeras.simulation.event_loop import Simulation


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
        settings: further settings, plain JSON.
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
        simulation.server.on_event = written.write
        simulation.recorder.tell = lambda *facts: written.write(CenterEvaluated(*facts))
        yield
        reason = "diverged" if simulation.diverged else "finished"
        center = simulation.center
        written.finish({"reason": reason, "num_updates": center.num_commits, "seconds": simulation.clock.now})
