"""Writes runs as a driver writes them, of trainings that never were: with many workers, and faults."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distkeras.events import (
    EpochEnded,
    ServerStatus,
    SnapshotWritten,
    Timing,
    Window,
    WorkerAbout,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)
from distkeras.runs import Run

SETUP = (("starting", 0.0), ("importing", 0.6), ("loading", 4.0), ("waiting", 5.0), ("compiling", 6.0))
STARTED = 8.0


@dataclass(frozen=True)
class Synthetic:
    """A training to make up.

    Attributes:
        workers: number of workers.
        windows: windows of all workers together.
        seconds: duration of the training.
        epochs: epochs of the center.
        rows: rows of a window.
        faults: whether a worker is lost and replaced, one comes back, and one fails.
        ends: whether the training ends, or the last driver still holds the run.
        began: when it began, in seconds since the Unix epoch.
        seed: of all that is random.
        rule: name of the algorithm.
        rate: how fast it learns.
    """

    workers: int = 8
    windows: int = 4000
    seconds: float = 200.0
    epochs: int = 5
    rows: int = 160
    faults: bool = True
    ends: bool = False
    began: float = 1_790_000_000.0
    seed: int = 7
    rule: str = "ADAG"
    rate: float = 1.0

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch."""
        return self.windows * self.rows // self.epochs


def write_run(address: str | Path, made: Synthetic, stop_after: float = math.inf) -> Run | None:
    """Write the run; return it, still open, if it does not end.

    Args:
        address: where to.
        made: the training.
        stop_after: seconds of the training after which nothing more is written.
    """
    run = Run.open(str(address))
    begin(run, made)
    for step in steps(made):
        if step[0] > stop_after:
            break
        perform(run, step)
    if made.ends:
        result = {"reason": "finished", "detail": "the last epoch has ended", "epochs": made.epochs}
        run.finish({**result, "best": logs_of(made, made.epochs - 1), "seconds": made.seconds}, [])
        run.close()
        return None
    return run


def begin(run: Run, made: Synthetic) -> None:
    """Write what is known at the start."""
    settings = {
        "algorithm": {"name": made.rule, "communication_window": 5},
        "num_workers": made.workers,
        "batch_size": made.rows // 5,
        "num_epoch": made.epochs,
        "num_rows": made.epoch_rows,
        "backend": "jax",
        "seed": made.seed,
    }
    run.begin(settings, facts={"trainer": made.rule})


def perform(run: Run, step: tuple[float, Any]) -> None:
    """Write one step."""
    _, event = step
    if isinstance(event, tuple):
        epoch, logs, samples = event
        run.epoch(epoch, logs, samples=samples)
    else:
        run.write(event)


def steps(made: Synthetic) -> Iterator[tuple[float, Any]]:
    """Yield the time and the event, or (epoch, logs, rows) of an epoch's end, of each step in order."""
    source = random.Random(made.seed)
    others = sorted(
        [*_beginnings(made, source), *_faults(made), *_statuses(made, source)], key=lambda step: step[0]
    )
    place, samples, epoch = 0, 0, 0
    ends = {}
    speeds = [source.uniform(0.75, 1.25) for _ in range(made.workers)]
    iterations = [0] * made.workers
    for number in range(made.windows):
        at = STARTED + (made.seconds - STARTED) * (number + 0.5) / made.windows
        while place < len(others) and others[place][0] <= at:
            yield others[place]
            place += 1
        worker = _worker_at(made, at, number, source, speeds)
        window = _window(made, worker, number, at, iterations[worker], source)
        iterations[worker] += 1
        samples += window.samples
        yield at, window
        ends[worker] = at
        if samples >= (epoch + 1) * made.epoch_rows:
            counts = {
                "samples": samples,
                "number": number + 1,
                "num_updates": number + 1,
                "steps": number * 5,
            }
            further = {"states": b"", "windows": number, "staleness_mean": 2.0, "member": 0, "whole": True}
            yield at, EpochEnded(epoch, **counts, **further, timestamp=made.began + at)
            yield at, (epoch, logs_of(made, epoch), samples)
            epoch += 1
    if made.ends:
        failed = {made.workers - 1} if made.faults else set()
        for worker in sorted(set(ends) - failed):
            yield made.seconds, WorkerLeft(worker, made.began + made.seconds)


def logs_of(made: Synthetic, epoch: int) -> dict[str, float]:
    """Return the logs of an epoch."""
    part = made.rate * (epoch + 1) / made.epochs
    loss = 0.25 + 2.05 * math.exp(-3 * part)
    accuracy = 0.95 - 0.85 * math.exp(-3.2 * part)
    return {
        "accuracy": accuracy,
        "loss": loss,
        "val_accuracy": accuracy - 0.012 - 0.01 * part,
        "val_loss": loss + 0.03 + 0.05 * part,
    }


def _worker_at(made: Synthetic, at: float, number: int, source: random.Random, speeds: list[float]) -> int:
    """Return whose window it is: of those that are there, in proportion to their speeds."""
    while True:
        worker = number % made.workers
        if source.random() * 1.3 > speeds[worker] or not _is_there(made, worker, at):
            number += 1 + source.randrange(made.workers)
            continue
        return worker


def _is_there(made: Synthetic, worker: int, at: float) -> bool:
    return not (made.faults and any(of == worker and since <= at < until for of, since, until in _gaps(made)))


def _gaps(made: Synthetic) -> list[tuple[int, float, float]]:
    """Return who is away, from when until when."""
    length = made.seconds
    return [
        (1 % made.workers, 0.3 * length, 0.42 * length),
        (made.workers // 2, 0.55 * length, 0.6 * length),
        (made.workers - 1, 0.8 * length, 2 * length),
    ]


def _window(
    made: Synthetic, worker: int, number: int, at: float, iteration: int, source: random.Random
) -> Window:
    part = made.rate * number / made.windows
    loss = 0.25 + 2.05 * math.exp(-3 * part) + source.gauss(0, 0.06)
    accuracy = min(1.0, 0.95 - 0.85 * math.exp(-3.2 * part) + source.gauss(0, 0.02))
    whole = made.workers * (made.seconds - STARTED) / made.windows
    computing = whole * (0.62 + 0.1 * math.sin(worker) + source.uniform(-0.05, 0.05))
    waiting, exchanging = whole * 0.06, whole * source.uniform(0.12, 0.2)
    return Window(
        worker=worker,
        epoch=number * made.rows // made.epoch_rows,
        iteration=iteration,
        steps=5,
        samples=made.rows,
        metrics={"loss": max(0.05, loss), "accuracy": accuracy},
        staleness=int(abs(source.gauss(0, 0.35 * made.workers**0.8))),
        timestamp=made.began + at,
        number=number + 1,
        timing=Timing(computing, waiting, exchanging, 0.15 * exchanging, 813_000, 813_000),
    )


def _beginnings(made: Synthetic, source: random.Random) -> Iterator[tuple[float, Any]]:
    for worker in range(made.workers):
        late = source.uniform(0, 1.2)
        for phase, at in SETUP:
            yield at + late, WorkerPhase(worker, phase, made.began + at + late)
        yield 4.5 + late, _joined(made, worker, 0, 4.5 + late)


def _joined(made: Synthetic, worker: int, attempt: int, at: float) -> WorkerJoined:
    about = WorkerAbout(
        f"node-{worker // 4 + 1}", 4000 + worker, str(worker // 4), "jax", "cpu", 4, made.rows, 2**29
    )
    return WorkerJoined(worker, attempt, 0, 0, made.began + at, about=about)


def _faults(made: Synthetic) -> Iterator[tuple[float, Any]]:
    """One worker is killed and replaced, one is silent and comes back, the last one fails for good."""
    if not made.faults:
        return
    (killed, since, until), (silent, gone, back), (failing, failed, _) = _gaps(made)
    yield since, WorkerLost(killed, 10.0, made.began + since)
    replaced = since + 0.7 * (until - since)
    yield replaced, WorkerPhase(killed, "starting", made.began + replaced)
    yield replaced + 0.5, _joined(made, killed, 1, replaced + 0.5)
    yield gone, WorkerLost(silent, 10.0, made.began + gone)
    yield back, WorkerBack(silent, made.began + back)
    trace = "Traceback (most recent call last):\n  ...\nValueError: a column has no values"
    yield failed, WorkerFailed(failing, trace, made.began + failed)


def _statuses(made: Synthetic, source: random.Random) -> Iterator[tuple[float, Any]]:
    for second in range(1, int(made.seconds)):
        done = max(0, round(made.windows * (second - STARTED) / (made.seconds - STARTED)))
        at, number = made.began + second, second / made.seconds
        memory, cpu = int(2e8 + 4e7 * number), 0.02 * second
        costs = {
            "exchange_seconds": done * 2e-4,
            "apply_p50": 1.6e-4,
            "apply_p99": source.uniform(6e-4, 1e-3),
        }
        sent = {"bytes_out": done * 813_000, "bytes_in": done * 813_000}
        norms = {"center_norm": 18 + 6 * number, "message_norm": 0.4 + math.exp(-3 * number)}
        yield (
            float(second),
            ServerStatus(0, memory, cpu, made.workers, done, **costs, **sent, **norms, timestamp=at),
        )
        if second % 30 == 0:
            yield float(second), SnapshotWritten(13_000_000, 0.08, done, at)
