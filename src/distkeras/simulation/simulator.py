"""Runs simulations: many workers in one process, with the production code's algorithms and center."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import partial
from typing import Any

from distkeras.algorithms import Algorithm
from distkeras.center import Center, CenterConfig, Fragmented, Layout, fragments_of, shard_bounds
from distkeras.center.bad_updates import errors_noted_here
from distkeras.center.elastic import Elastic
from distkeras.monitor.monitors import Given, monitors_of
from distkeras.runs import RunOptions
from distkeras.simulation.accidents import Accidents
from distkeras.simulation.conditions import Failures, Length, Network, Outages, Seconds
from distkeras.simulation.event_loop import Simulation
from distkeras.simulation.links import Links
from distkeras.simulation.problem import Problem
from distkeras.simulation.recorder import Recorder
from distkeras.simulation.result import Result
from distkeras.simulation.run import kept
from distkeras.simulation.server import Server
from distkeras.simulation.server_queue import ServerQueue
from distkeras.simulation.shares import Shares
from distkeras.simulation.shown import shown
from distkeras.simulation.state import Inner, VirtualClock
from distkeras.simulation.step_time import Gamma, StepTime
from distkeras.wire import codecs
from distkeras.wire.codecs import Codec


def simulate(
    algorithm: Algorithm,
    problem: Problem,
    *,
    num_workers: int,
    num_commits: int | None = None,
    learning_rate: float | None = None,
    step_time: StepTime | None = None,
    network: Network | None = None,
    failures: Failures | None = None,
    outages: Outages | None = None,
    until: float = math.inf,
    num_epoch: int | None = None,
    elastic: bool = False,
    num_samples: int | None = None,
    compression: str | Codec | None = None,
    quorum: int | None = None,
    grace: float = 0.0,
    overlap: bool | int = False,
    num_shards: int | None = None,
    evaluate_every: int | Seconds = 1,
    keep_centers: bool = True,
    seed: int = 0,
    progress: bool = False,
    record: str | None = None,
    run: str | os.PathLike[str] | RunOptions | None = None,
    monitor: Given = None,
) -> Result:
    """Train `problem` with `num_workers` simulated workers until the center has `num_commits` commits.

    Every window is really trained, and the center of real jobs applies every message; only time is virtual.
    The same arguments give the same trajectory, bit for bit. If a message holds NaN or infinity, the center
    refuses it and the run ends: see `result.diverged`.

    Memory: one float32 vector of the model's size per worker, shared by workers with the same version of the
    center; a second one for algorithms that need the pulled center; three more for a worker that waits for
    its round to close; one more if exchanges overlap.

    Args:
        algorithm: the algorithm. Its `communication_window` counts steps; `None` is one epoch of the problem.
        problem: the problem to train.
        num_workers: simulated workers, all alive from time 0.
        num_commits: commits to the center, or rounds of a synchronous algorithm, after which the run ends;
            `None` for other limits alone.
        learning_rate: learning rate of the inner optimizer, which is gradient descent unless the problem has
            its own. By default the algorithm's `learning_rate` if it has one, else 0.01.
        step_time: seconds per step; `Gamma()` by default, a homogeneous cluster with 1 second per step.
        network: latency, bandwidth, and service time and number of the servers; all 0 or unlimited, and one
            server, by default.
        failures: crashes, stragglers and lost replies, by window; none by default.
        outages: failing processes and lost connections, by time; none by default.
        until: virtual seconds after which the run ends in any case.
        num_epoch: epochs of each worker's share, after which it leaves, as on Spark; the run ends when all
            have left. `None` for shares without end.
        elastic: whether the rows lie in four shares for each worker, of which a worker takes the next one
            when it has trained one for an epoch, as in an elastic training on Spark. Needs `num_epoch`; the
            shares are then the workers that `problem` sees.
        num_samples: rows of all workers; the run ends with the commit that reaches them. So algorithms whose
            commits have different numbers of rows are compared at the same number.
        compression: codec of the messages, or its name, as of a trainer: messages lose and take as many bytes
            as on the wire. `None` for none.
        quorum: messages that complete a synchronous round; those of all workers by default.
        grace: virtual seconds for which a round stays open after its quorum; by default 0.
        overlap: steps that a worker trains while a message is exchanged, fewer than its window has; `True`
            for the whole next window. By default it waits for the reply.
        num_shards: shards of the center; chosen by size by default, and by tensor for algorithms that need
            tensors.
        evaluate_every: commits between two evaluations of the center, or `Seconds`; always includes the first
            and last version.
        keep_centers: whether to keep every evaluated center, not only the last.
        seed: seed of all random generators.
        progress: whether to show a progress bar.
        record: a new file for every request, in order, for `distkeras.record.replay`; `None` for no record.
        run: a new run directory for settings, events and evaluations, as a training writes it: its address on
            any filesystem, or `RunOptions`. Times in it are virtual seconds. `None` for no run.
        monitor: what shows the simulation, in virtual seconds: a name such as "tensorboard", a
            `distkeras.monitor.Monitor`, or a list of these.

    Returns:
        The trajectory.

    Raises:
        FileExistsError: the file `record` exists.
        ValueError: a number is out of range, the run has no end, the kept centers would take more than 1 GiB,
            the algorithm does not fit `compression`, `elastic` or `num_epoch`, or the address holds a run.

    Example:
        >>> from distkeras.algorithms import DOWNPOUR
        >>> from distkeras.simulation import Constant, Quadratic, simulate
        >>> result = simulate(DOWNPOUR(communication_window=1), Quadratic(), num_workers=1,
        ...                   num_commits=2, learning_rate=0.5, step_time=Constant(1.0))
        >>> result.centers.ravel().tolist(), result.times.tolist()
        ([1.0, 0.5, 0.25], [0.0, 1.0, 2.0])
    """
    _check_counts(num_workers=num_workers)
    if not isinstance(evaluate_every, Seconds):
        _check_counts(evaluate_every=evaluate_every)
    length = Length(num_commits, until, num_epoch, elastic, num_samples)
    monitors = monitors_of(monitor)
    recorder = Recorder(problem, length, evaluate_every, keep_centers)
    clock = VirtualClock()
    config = _config_of(algorithm, problem, num_workers, elastic, quorum=quorum, grace=grace, overlap=overlap)
    inner = _inner_of(algorithm, problem, config, learning_rate, seed)
    if record is not None and os.path.exists(record):
        raise FileExistsError(f"Expected a new file: a record holds one run. Received: record={record!r}")
    _check_shares(length, config)
    kind = Center if config.fragments is None else Fragmented
    step_time, network = step_time or Gamma(), network or Network()
    failures, outages = failures or Failures(), outages or Outages()
    codec = codecs.get(compression)
    make_center = partial(kind, config, problem.initial, clock=clock, num_shards=num_shards)
    simulation = Simulation(
        server=Server(make_center, record),
        clock=clock,
        problem=problem,
        inner=inner,
        accidents=Accidents.drawn(num_workers, seed, step_time, failures, outages),
        links=Links(network, config, problem.initial.size, codec),
        queue=ServerQueue(network),
        shares=Shares(problem, config, num_epoch),
        config=config,
        recorder=recorder,
    )
    conditions = [
        repr(each) if is_dataclass(each) else type(each).__name__
        for each in (step_time, network, failures, outages, *([] if codec is None else [codec]))
    ]
    settings: dict[str, Any] = {"learning_rate": inner.learning_rate, "seed": seed}
    settings |= {"quorum": quorum, "overlap": overlap, "problem": type(problem).__name__}
    settings |= {"conditions": conditions, **length.told}
    # A diverging run overflows before the center refuses it: this is a result, not worth a warning.
    with (
        kept(run, config, settings, simulation),
        shown(monitors, RunOptions.of(run), config, settings, simulation),
        _bar(algorithm, num_commits, progress) as advance,
        errors_noted_here(),
    ):
        for _ in simulation.commits(length, num_workers):
            advance()
        simulation.server.close()
        return simulation.result()


def _config_of(
    algorithm: Algorithm, problem: Problem, num_workers: int, elastic: bool, **rounds: Any
) -> CenterConfig:
    """Return the settings of the center, with those of its `rounds` and of overlap."""
    workers = Elastic(num_workers, num_workers) if elastic else None
    return CenterConfig(
        algorithm,
        num_workers if workers is None else workers.num_shares,
        elastic=workers,
        num_trainable=problem.num_trainable,
        tensors=tuple(getattr(problem, "tensors", ())),
        fragments=fragments_of(_layout_of(problem, algorithm), algorithm),
        **rounds,
    )


def _inner_of(
    algorithm: Algorithm, problem: Problem, config: CenterConfig, learning_rate: float | None, seed: int
) -> Inner:
    """Return the settings of the workers' training.

    Raises:
        ValueError: the learning rate is out of range.
    """
    if learning_rate is None:
        learning_rate = getattr(algorithm, "learning_rate", 0.01)
    if not 0 <= learning_rate < math.inf:
        raise ValueError(
            f"`learning_rate` must be at least 0 and finite. Received: learning_rate={learning_rate!r}"
        )
    return Inner(
        learning_rate=learning_rate,
        momentum=algorithm.inner_momentum,
        averaging=algorithm.inner_averaging,
        window=algorithm.communication_window or problem.steps_per_epoch(config.num_workers),
        seed=seed,
    )


def _layout_of(problem: Problem, algorithm: Algorithm) -> Layout:
    """Return the layout of a problem's weights; one without layers is cut into equal ones."""
    if (layout := getattr(problem, "layout", None)) is not None:
        return layout  # type: ignore[no-any-return]
    size, num_trainable = problem.initial.size, problem.num_trainable
    bounds = shard_bounds(num_trainable, algorithm.fragments or 1)
    trainable = tuple((f"part {low}", (high - low,)) for low, high in bounds)
    return Layout(trainable, (("statistics", (size - num_trainable,)),) if size > num_trainable else ())


def _check_shares(length: Length, config: CenterConfig) -> None:
    """Raise ValueError if shares are to run out where windows overlap their exchanges."""
    if length.num_epoch is not None and (config.overlap or config.fragments is not None):
        raise ValueError(
            "`num_epoch` cannot be combined with overlap or fragments: end the run "
            f"with `num_commits` or `until`. Received: num_epoch={length.num_epoch}, "
            f"overlap={config.overlap!r}, fragments={config.num_fragments}"
        )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


@contextmanager
def _bar(algorithm: Algorithm, num_commits: int | None, show: bool) -> Iterator[Callable[[], None]]:
    """Yield the function to call after each commit."""
    if not show:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task(algorithm.name, total=num_commits)
        yield lambda: progress.advance(task)
