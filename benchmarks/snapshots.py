"""For how long a snapshot stops the exchange, beside a copy of the same bytes; and how long writing takes.

A worker commits again and again while snapshots are taken one after the other. JSON out.

python benchmarks/snapshots.py [--sizes 2.6 40] [--repeats 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recording

from distkeras.algorithms import DiLoCo, Vector
from distkeras.center import Center, CenterConfig, take_snapshot
from distkeras.center.requests import Exchange, Join
from distkeras.wire.store import Store


class Committer(threading.Thread):
    """One worker that commits until it is told to stop, and notes how long each commit took."""

    def __init__(self, center: Center) -> None:
        super().__init__(daemon=True)
        self._center = center
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Commit."""
        message: Vector = np.zeros(self._center.size, np.float32)
        sequence = 0
        while not self._ended.is_set():
            sequence += 1
            message.fill(0)
            started = time.perf_counter()
            self._center.handle(Exchange(0, sequence, 1, 1, 0, sequence, message))
            self.seconds.append(time.perf_counter() - started)
            time.sleep(0.002)  # A worker trains in between.

    def end(self) -> None:
        """Stop after the commit that is under way."""
        self._ended.set()
        self.join()


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(size: int, repeats: int) -> dict[str, float]:
    """Return figures of a center of `size` elements, whose rule keeps as many again."""
    center = Center(CenterConfig(DiLoCo()), np.zeros(size, np.float32), clock=time.time)
    center.handle(Join(0))
    twice = np.ones(2 * size, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, keep=1)
        copies, takes = [], []
        for _ in range(repeats):  # In turn, so that what else the machine does falls on both.
            copies.append(seconds(twice.copy))
            takes.append(seconds(lambda: take_snapshot(center, {})))
        snapshot = take_snapshot(center, {})
        writes = [seconds(lambda: store.write(snapshot)) for _ in range(repeats)]
        committer = Committer(center)
        committer.start()
        time.sleep(0.5)
        quiet = list(committer.seconds)
        for _ in range(repeats):
            store.write(take_snapshot(center, {}))
        busy = committer.seconds[len(quiet) :]
        committer.end()
    return {
        "copy_ms": 1e3 * statistics.median(copies),
        "take_ms": 1e3 * statistics.median(takes),
        "take_over_copy": statistics.median(takes) / statistics.median(copies),
        "write_ms": 1e3 * statistics.median(writes),
        "longest_commit_ms": 1e3 * max(quiet),
        "longest_commit_beside_snapshots_ms": 1e3 * max(busy),
    }


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=float, nargs="+", default=[2.6, 40.0], help="MB of float32")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    results: dict[str, Any] = {}
    for megabytes in options.sizes:
        results[f"{megabytes:g} MB"] = measure(int(megabytes * 1e6 / 4), options.repeats)
    print(json.dumps(results, indent=2))
    if options.out is not None:
        run.write(results, options.out)


if __name__ == "__main__":
    main()
