"""Where the time of a whole job goes: the phases of each worker, from the events of its run.

python benchmarks/timeline.py RUN                       the address of a run that is recorded
python benchmarks/timeline.py --train [--rows 60000] [--epochs 5] [--workers 2] [--backend jax]

With `--train` it trains an MLP of MNIST's size first, with a new session of Spark, and also says what passed
in this process before the first worker and after the last one. Seconds; JSON with `--out`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import recording

from distkeras.events import Window, WorkerFailed, WorkerLeft, WorkerPhase


@dataclass
class Line:
    """What one worker has done, in seconds.

    Attributes:
        began: time of its first phase.
        ended: time of its last event.
        phases: seconds in each phase; where a process replaced another, of both.
        computing: in training steps, as `distkeras.events.Timing` has it; likewise `waiting`, `exchanging`,
            and `blocked`, which is a part of `exchanging`.
        windows: number of windows.
    """

    began: float
    ended: float
    phases: dict[str, float] = field(default_factory=dict)
    computing: float = 0.0
    waiting: float = 0.0
    exchanging: float = 0.0
    blocked: float = 0.0
    windows: int = 0
    _phase: str | None = None
    _since: float = 0.0

    def enter(self, phase: str | None, timestamp: float) -> None:
        """End the phase before, and begin `phase`."""
        if self._phase is not None:
            self.phases[self._phase] = self.phases.get(self._phase, 0.0) + timestamp - self._since
        self._phase, self._since, self.ended = phase, timestamp, timestamp

    def add(self, window: Window) -> None:
        """Add a window."""
        self.windows += 1
        self.ended = window.timestamp
        if window.timing is not None:
            self.computing += window.timing.computing
            self.waiting += window.timing.waiting
            self.exchanging += window.timing.exchanging
            self.blocked += window.timing.blocked


def lines(events: Iterable[object]) -> dict[int, Line]:
    """Return the line of each worker."""
    found: dict[int, Line] = {}
    for event in events:
        match event:
            case WorkerPhase(worker=worker, phase=phase, timestamp=timestamp):
                found.setdefault(worker, Line(timestamp, timestamp)).enter(phase, timestamp)
            case Window(worker=worker, timestamp=timestamp):
                found.setdefault(worker, Line(timestamp, timestamp)).add(event)
            case (
                WorkerLeft(worker=worker, timestamp=timestamp)
                | WorkerFailed(worker=worker, timestamp=timestamp)
            ):
                found.setdefault(worker, Line(timestamp, timestamp)).enter(None, timestamp)
    for line in found.values():
        line.enter(None, line.ended)  # Of a run that was cut off.
    return dict(sorted(found.items()))


def table(found: dict[int, Line]) -> str:
    """Return the lines as a table: a column for each worker."""
    names = list(dict.fromkeys(phase for line in found.values() for phase in line.phases))
    rows = [["seconds", *(f"worker {worker}" for worker in found)]]
    rows += [[name, *(f"{line.phases.get(name, 0.0):.2f}" for line in found.values())] for name in names]
    for name in ("computing", "waiting", "exchanging", "blocked"):
        rows.append([f"  {name}", *(f"{getattr(line, name):.2f}" for line in found.values())])
    rows.append(["windows", *(str(line.windows) for line in found.values())])
    rows.append(["in all", *(f"{line.ended - line.began:.2f}" for line in found.values())])
    return "\n".join(f"{row[0]:<14}" + "".join(f"{each:>12}" for each in row[1:]) for row in rows)


def train(options: argparse.Namespace, run: str) -> dict[str, float]:
    """Train a job that is recorded in `run`; return the times at which its parts in this process began."""
    marks = {"imports": time.time()}
    os.environ["KERAS_BACKEND"] = options.backend
    import keras
    import numpy as np
    import pyarrow as pa

    import distkeras
    from distkeras.cluster.session import local_session

    marks["session"] = time.time()
    spark = local_session(options.workers, backend=options.backend)
    draw = np.random.default_rng(0)
    images = draw.random((options.rows, 784), np.float32)
    offsets = pa.array(np.arange(options.rows + 1, dtype=np.int32) * 784)
    features = pa.ListArray.from_arrays(offsets, pa.array(images.ravel()))
    labels = pa.array(draw.integers(0, 10, options.rows))
    frame = spark.createDataFrame(pa.table({"features": features, "label": labels}))
    layers = [keras.layers.Dense(500, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    marks["train"] = time.time()
    trainer = distkeras.DistributedTrainer(
        model,
        distkeras.algorithms.ADAG(50),
        num_workers=options.workers,
        num_epoch=options.epochs,
        batch_size=128,
        verbose=0,
    )
    trainer.train(frame, run=run)
    marks["end"] = time.time()
    return marks


def driver(marks: dict[str, float], found: dict[int, Line]) -> dict[str, float]:
    """Return what passed in the driver's process outside of its workers, in seconds."""
    first, last = min(line.began for line in found.values()), max(line.ended for line in found.values())
    return {
        "imports": marks["session"] - marks["imports"],
        "session and rows": marks["train"] - marks["session"],
        "before the first worker": first - marks["train"],
        "after the last worker": marks["end"] - last,
        "whole": marks["end"] - marks["imports"],
    }


def main() -> None:
    """Print the timeline of a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", help="address of a run")
    parser.add_argument("--train", action="store_true", help="train first")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow", "torch"))
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    record = recording.begin(__file__)
    if (options.run is None) != options.train:
        parser.error("Give the address of a run, or --train.")
    with tempfile.TemporaryDirectory() as folder:
        address = options.run or os.path.join(folder, "run")
        marks = train(options, address) if options.train else None

        import distkeras

        found = lines(distkeras.load_run(address).events())
    report: dict[str, Any] = {"workers": {worker: asdict(line) for worker, line in found.items()}}
    print(table(found))
    if marks is not None:
        report["driver"] = driver(marks, found)
        print(*(f"{name + ':':<25}{seconds:8.2f} s" for name, seconds in report["driver"].items()), sep="\n")
    if options.out is not None:
        record.write(report, options.out)


if __name__ == "__main__":
    main()
