"""Many workers in one process: the rules and the center that production runs, under a virtual clock."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.center import Center, CenterConfig
from distkeras.simulation.conditions import Failures, Network, Outages
from distkeras.simulation.event_loop import Simulation
from distkeras.simulation.outages import Schedule
from distkeras.simulation.problem import Problem
from distkeras.simulation.recorder import Recorder
from distkeras.simulation.result import Result
from distkeras.simulation.state import Inner, VirtualClock
from distkeras.simulation.step_time import Gamma, StepTime


def simulate(
    algorithm: Algorithm,
    problem: Problem,
    *,
    num_workers: int,
    num_commits: int,
    learning_rate: float | None = None,
    step_time: StepTime | None = None,
    network: Network | None = None,
    failures: Failures | None = None,
    outages: Outages | None = None,
    until: float = math.inf,
    quorum: int | None = None,
    overlap: bool = False,
    num_shards: int | None = None,
    evaluate_every: int = 1,
    keep_centers: bool = True,
    seed: int = 0,
    progress: bool = False,
    record: str | None = None,
) -> Result:
    """Train `problem` with `num_workers` simulated workers until the center has taken `num_commits` commits.

    Every window is really trained and every message really applied, by the center that a job's server runs;
    only time is virtual. The same arguments give the same trajectory, bit for bit. A message of NaN or
    infinity, which the center refuses, ends the run: `result.diverged`.

    Memory: one float32 vector of the model's size a worker, shared by those that hold the same version of
    the center; a second one for rules that need the pulled center; three more for a worker that waits for its
    round to close; one more where exchanges overlap.

    Args:
        algorithm: the rule. Its `communication_window` counts steps; `None` is one epoch of the problem.
        problem: what is trained.
        num_workers: simulated workers, all alive from time 0.
        num_commits: commits to the center, or rounds of a synchronous rule.
        learning_rate: of the inner optimizer, gradient descent unless the problem brings its own. Default:
            the rule's own `learning_rate` where it has one, else 0.01.
        step_time: seconds of a step; default: `Gamma()`, a homogeneous cluster of 1 second a step.
        network: latency, bandwidth and service time of the server; default: none.
        failures: crashes, stragglers and lost replies, by window; default: none.
        outages: processes that fail and connections that are cut, by time; default: none.
        until: virtual seconds after which the run ends, if there were not `num_commits` before.
        quorum: messages that complete a synchronous round; default: those of all workers.
        overlap: workers train a window while the one before is exchanged; default: they wait for the reply.
        num_shards: shards of the center; default by size.
        evaluate_every: commits between two evaluations of the center; the first and the last always count.
        keep_centers: keep every evaluated center, not only the last.
        seed: of everything random.
        progress: show a bar.
        record: a file, made anew, for every request in order: `distkeras.record.replay` runs them again.

    Returns:
        The trajectory.

    Raises:
        FileExistsError: there is a file at `record`.
        ValueError: a number out of range, or centers to keep that would take more than 1 GiB.

    Example:
        >>> from distkeras.algorithms import DOWNPOUR
        >>> from distkeras.simulation import Constant, Quadratic, simulate
        >>> result = simulate(DOWNPOUR(communication_window=1), Quadratic(), num_workers=1,
        ...                   num_commits=2, learning_rate=0.5, step_time=Constant(1.0))
        >>> result.centers.ravel().tolist(), result.times.tolist()
        ([1.0, 0.5, 0.25], [0.0, 1.0, 2.0])
    """
    _check_counts(num_workers=num_workers, num_commits=num_commits, evaluate_every=evaluate_every)
    if learning_rate is None:
        learning_rate = getattr(algorithm, "learning_rate", 0.01)
    if not 0 <= learning_rate < float("inf"):
        raise ValueError(
            f"`learning_rate` must be at least 0 and finite. Received: learning_rate={learning_rate!r}"
        )
    recorder = Recorder(problem, num_commits, evaluate_every, keep_centers)
    if not until > 0:
        raise ValueError(f"`until` must be positive (virtual seconds). Received: until={until!r}")
    clock = VirtualClock()
    config = CenterConfig(
        algorithm, num_workers, num_trainable=problem.num_trainable, quorum=quorum, overlap=overlap
    )
    if record is not None and os.path.exists(record):
        raise FileExistsError(
            f"Expected a new file, since a record is one run's. Received: record={record!r}"
        )
    inner = Inner(
        learning_rate=learning_rate,
        momentum=algorithm.inner_momentum,
        window=algorithm.communication_window or problem.steps_per_epoch(num_workers),
        seed=seed,
    )
    chance, faults, failing = (np.random.default_rng((seed, stream)) for stream in (0, 1, 3))
    outages = outages or Outages()
    simulation = Simulation(
        make_center=partial(Center, config, problem.initial, clock=clock, num_shards=num_shards),
        record=record,
        clock=clock,
        problem=problem,
        inner=inner,
        window_time=(step_time or Gamma()).windows(num_workers, chance),
        network=network or Network(),
        failures=failures or Failures(),
        outages=outages,
        schedule=Schedule(outages, num_workers, failing),
        overlap=overlap,
        faults=faults,
        recorder=recorder,
    )
    # A diverging run overflows before the center refuses it: that is a result, not a warning.
    with _bar(algorithm, num_commits, progress) as advance, np.errstate(over="ignore", invalid="ignore"):
        for _ in simulation.commits(num_commits, until):
            advance()
        simulation.close()
        return simulation.result()


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


@contextmanager
def _bar(algorithm: Algorithm, num_commits: int, show: bool) -> Iterator[Callable[[], None]]:
    """Yield what is to be called after each commit."""
    if not show:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task(algorithm.name, total=num_commits)
        yield lambda: progress.advance(task)
