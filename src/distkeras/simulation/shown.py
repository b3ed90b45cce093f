"""Monitors of a simulation: they get the events of its center and the evaluations, in virtual seconds."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from distkeras.center import CenterConfig
from distkeras.events import Event
from distkeras.monitor.monitors import Monitor, TrainingFacts
from distkeras.monitor.running import Monitors
from distkeras.runs import CenterEvaluated, RunOptions
from distkeras.runs.folder import hiding
from distkeras.simulation.event_loop import Simulation


@contextmanager
def shown(
    monitors: Sequence[Monitor],
    run: RunOptions | None,
    config: CenterConfig,
    settings: Mapping[str, Any],
    simulation: Simulation,
) -> Iterator[None]:
    """Let `monitors` follow a `simulation` while the `with` block runs it.

    Args:
        monitors: the monitors.
        run: the run directory; `None` for none.
        config: settings of the center.
        settings: further settings, plain JSON.
        simulation: the simulation, which already writes to its run.
    """
    if not monitors:
        yield
        return
    followed = Monitors(monitors)
    write, tell = simulation.server.on_event, simulation.recorder.tell

    def on_event(event: Event) -> None:
        if write is not None:
            write(event)
        followed.write(event)

    def on_evaluated(*facts: Any) -> None:
        if tell is not None:
            tell(*facts)
        followed.write(CenterEvaluated(*facts))

    simulation.server.on_event, simulation.recorder.tell = on_event, on_evaluated
    followed.begin(_facts_of(run, config, settings))
    try:
        yield
    except BaseException as error:
        followed.end({"reason": "error", "error": "".join(traceback.format_exception_only(error)).strip()})
        raise
    reason = "diverged" if simulation.diverged else "finished"
    updates = simulation.server.center.num_commits
    followed.end({"reason": reason, "num_updates": updates, "seconds": simulation.clock.now})


def _facts_of(run: RunOptions | None, config: CenterConfig, settings: Mapping[str, Any]) -> TrainingFacts:
    rule, workers = config.algorithm.name, config.num_workers
    described = json.loads(json.dumps({"name": rule, **asdict(config.algorithm)}, default=repr))
    address = None if run is None else hiding(run.address, run.storage_options)(run.address)
    return TrainingFacts(
        title=f"{rule}, {workers} simulated worker{'s' if workers > 1 else ''}",
        name=f"{rule}-{datetime.now():%Y%m%d-%H%M%S}"
        if address is None
        else address.rstrip("/").rpartition("/")[2],
        rule=rule,
        num_workers=workers,
        rows=0,
        epochs=0,
        settings={**settings, "algorithm": described, "num_workers": workers},
        run=address,
    )
