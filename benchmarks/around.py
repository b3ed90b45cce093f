"""What goes around a training, and what it costs: validation, callbacks, checkpoints and a run directory.

The same training of the MNIST MLP's size runs in turns with nothing around it, and with validation at every
epoch, `EarlyStopping`, `ModelCheckpoint` and a run directory. The validation's own computing is not counted:
the processor time of the process that validates, between `on_test_begin` and `on_test_end`. One worker waits
for it: at most the time between these two is taken off. Several train on meanwhile, and may lose the
processor to it: its processor time over the number of cores is taken off. The start of that process is
counted: of the first validation no more is taken off than of the median one.

The time of a training is that from its first window to the end of `train`, so that the start of Spark's
tasks, which differs from turn to turn, is not in it. `before` are the seconds of `train` before that. JSON
out.

python benchmarks/around.py [--pairs 7] [--rows 60000] [--epochs 8] [--workers 1] [--no-run]
    [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import psutil
import recording
from wide_mlp import data, model

from distkeras import DistributedTrainer, algorithms


class TimeOfTests(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures the validations.

    Args:
        workers: number of workers that train.
    """

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers
        self._began = (0.0, 0.0)
        self.elapsed: list[float] = []
        self.computed: list[float] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self._began = time.perf_counter(), seconds_of_validating_process()

    def on_test_end(self, logs: Any = None) -> None:
        elapsed = time.perf_counter() - self._began[0]
        computed = seconds_of_validating_process() - self._began[1]
        self.elapsed.append(elapsed)
        self.computed.append(
            min(elapsed, computed) if self._workers == 1 else computed / (os.cpu_count() or 1)
        )

    @property
    def seconds(self) -> float:
        """The seconds of computing that are not counted."""
        usual = statistics.median(self.computed) if self.computed else 0.0
        return sum(min(each, usual) if place == 0 else each for place, each in enumerate(self.computed))


def seconds_of_validating_process() -> float:
    """Return the processor time so far of the process that validates beside this one; 0 without one."""
    total = 0.0
    for child in psutil.Process().children():
        if "distkeras.worker.side_evaluation" in child.cmdline():
            for thread in Path(f"/proc/{child.pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return total


def seconds(args: argparse.Namespace, rows: Any, validation: Any, folder: Path | None) -> dict[str, float]:
    """Train once, with everything around it in `folder`, or with nothing; return where the time went."""
    rule = algorithms.Sequential(50) if args.workers == 1 else algorithms.ADAG(50)
    trainer = DistributedTrainer(
        model("adam"),
        rule,
        num_workers=args.workers,
        num_epoch=args.epochs,
        batch_size=128,
        seed=1,
        verbose=0,
    )
    tests, options = TimeOfTests(args.workers), {}
    if folder is not None:
        stopping = keras.callbacks.EarlyStopping("val_loss", patience=args.epochs, restore_best_weights=True)
        saving = keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True)
        options = {
            "validation_data": validation,
            "callbacks": [stopping, saving, tests],
        }
        if args.run:
            options["run"] = folder / "run"
    began = time.time()
    trainer.train(rows, **options)
    ended = time.time()
    windows = trainer.get_history()
    whole = ended - windows[0].timestamp
    return {
        "whole": whole,
        "before": windows[0].timestamp - began,
        "validation": tests.seconds,
        "validation elapsed": sum(tests.elapsed),
        "counted": whole - tests.seconds,
        "after": ended - windows[-1].timestamp,
    }


def rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--run", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    run = recording.begin(__file__)
    rows, validation = data(args.rows, 0), data(args.rows // 6, 1)
    seconds(args, rows, validation, None)  # Spark starts, and the step is compiled.
    pairs = []
    for number in range(args.pairs):
        with tempfile.TemporaryDirectory() as folder:
            order = (None, Path(folder)) if number % 2 == 0 else (Path(folder), None)
            found = {side is not None: seconds(args, rows, validation, side) for side in order}
        pairs.append({"without": found[False], "with": found[True]})
        ratio = found[True]["counted"] / found[False]["counted"]
        print(
            f"pair {number}: {rounded(found[False])} without, {rounded(found[True])} with: {ratio:.3f}",
            flush=True,
        )
    ratios = [pair["with"]["counted"] / pair["without"]["counted"] for pair in pairs]
    result = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "backend": keras.backend.backend(),
        "pairs": pairs,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }
    print(json.dumps(result["ratio"]))
    if args.out is not None:
        run.write(result, args.out)


if __name__ == "__main__":
    main()
