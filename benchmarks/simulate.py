"""Speed of the simulator: commits a second on the 1-d quadratic, and memory a worker on an MLP. JSON out.

python benchmarks/simulate.py [--num-commits 20000] [--jobs 2] [--model]

`quadratic_commits_per_second` is that of one process; `center_alone` is how many commits the center handles
without a simulation, which no simulation can exceed. `numpy_alone` is the arithmetic of a commit with nothing
around it, which no loop over commits in Python can exceed. `processor_microseconds` says where the processor
time of a commit goes: a timer of the processor's time looks every millisecond at what runs. All these
figures are of processor time, so that other programs disturb them less. With `--jobs`, as many processes
simulate a seed each; this one is of real time.
`--model` measures a real model instead: see `simulate_model.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import recording

from distkeras.algorithms import AEASGD, DOWNPOUR, Algorithm, GapAware, LocalSGD, Vector
from distkeras.center import Center, CenterConfig
from distkeras.center.bad_updates import errors_noted_here
from distkeras.center.requests import Exchange, Join
from distkeras.simulation import Exponential, Quadratic, Replica, simulate

MLP_WEIGHTS = 784 * 500 + 500 + 500 * 500 + 500 + 500 * 10 + 10


@dataclass(frozen=True)
class Idle:
    """A model of the MLP's size whose training costs nothing but new weights."""

    initial: Vector

    @property
    def num_trainable(self) -> int:
        """All of it."""
        return self.initial.size

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return 1."""
        return 1

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Return a copy."""
        return weights.copy(), num_steps

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return a loss of 0."""
        return {"loss": 0.0}


def commits_per_second(num_workers: int, num_commits: int, seed: int = 0) -> float:
    """Measure one run of DOWNPOUR with a window of 1, everything recorded, by processor time."""
    began = time.process_time()
    simulate(
        DOWNPOUR(communication_window=1),
        Quadratic(),
        num_workers=num_workers,
        num_commits=num_commits,
        learning_rate=0.3 / num_workers,
        step_time=Exponential(),
        seed=seed,
    )
    return num_commits / (time.process_time() - began)


def center_alone(num_workers: int, num_commits: int) -> float:
    """Measure the commits of the same rule to a center without a simulation around it."""
    config = CenterConfig(DOWNPOUR(communication_window=1), num_workers)
    center = Center(config, np.ones(1, np.float32), clock=lambda: 0.0)
    for worker in range(num_workers):
        center.handle(Join(worker))
    center.event_log.windows = False  # As in a simulation that nobody watches.
    with errors_noted_here():
        began = time.process_time()
        for number in range(num_commits):
            sequence, worker = divmod(number, num_workers)
            center.handle(Exchange(worker, sequence + 1, 1, 1, 0, 1, np.zeros(1, np.float32)))
        return num_commits / (time.process_time() - began)


def numpy_alone(num_commits: int) -> float:
    """Measure the NumPy calls of a commit: draw, train, message, check, apply, reply, copy to evaluate."""
    random = np.random.default_rng(0)
    center, curvature, rate = np.ones(1, np.float32), np.ones(1, np.float32), np.array(-0.005, np.float32)
    weights, centers = center.copy(), []
    began = time.process_time()
    for _ in range(num_commits):
        random.standard_gamma(1)
        message = weights + rate * (curvature * weights) - weights
        np.vdot(message, message)
        center += message
        message[:] = center
        copy = np.empty(1, np.float32)
        copy[:] = center
        centers.append(copy)
        weights = message
    return num_commits / (time.process_time() - began)


PARTS = {
    ("center.py", "handle"): "center: the commit",
    ("center.py", "snapshot"): "center: the copy to evaluate",
    ("recorder.py", "evaluate"): "evaluation",
    ("recorder.py", "result"): "evaluation",
    ("recorder.py", "add"): "record of the trajectory",
    ("exchanges.py", "train"): "training and message",
    ("exchanges.py", "take_up"): "use of the reply",
    ("event_loop.py", "_begin_window"): "time and place of the next window",
}
"""Parts of a commit, by the file and the function that they are in."""


def processor_microseconds(num_workers: int, num_commits: int) -> dict[str, float]:
    """Return the processor time of a commit by part, and of all of it."""
    seen: Counter[str] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            code = frame.f_code
            if (part := PARTS.get((os.path.basename(code.co_filename), code.co_name))) is not None:
                seen[part] += 1
                return
            frame = frame.f_back
        seen["the loop over events"] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    began = time.process_time()
    commits_per_second(num_workers, num_commits)
    seconds = time.process_time() - began
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    all_of_it = 1e6 * seconds / num_commits
    shares = {part: round(all_of_it * count / seen.total(), 1) for part, count in seen.most_common()}
    return shares | {"all": round(all_of_it, 1)}


def side_by_side(jobs: int, num_commits: int) -> float:
    """Measure `jobs` seeds of 64 workers in as many processes, all commits together."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(commits_per_second, [8] * jobs, [1000] * jobs))  # import and warm
        began = time.perf_counter()
        list(pool.map(commits_per_second, [64] * jobs, [num_commits] * jobs, range(jobs)))
        return jobs * num_commits / (time.perf_counter() - began)


def megabytes_per_worker(algorithm: Algorithm, few: int = 8, many: int = 40) -> float:
    """Return what one more worker adds to the peak, once each holds weights of its own."""
    peaks = []
    for num_workers in (few, many):
        problem = Idle(np.zeros(MLP_WEIGHTS, np.float32))
        tracemalloc.start()
        num_commits = 2 if algorithm.synchronous else 3 * num_workers
        simulate(
            algorithm,
            problem,
            num_workers=num_workers,
            num_commits=num_commits,
            evaluate_every=num_commits,
            keep_centers=False,
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[1] - peaks[0]) / (many - few) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-commits", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one seed each")
    parser.add_argument("--model", action="store_true", help="a real model of 256 workers, on JAX")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    if options.model:
        import simulate_model

        print(json.dumps(simulate_model.report([1, 5, 32], turns=5, rounds=8), indent=2))
        return
    num_commits: int = options.num_commits
    commits_per_second(8, 1000)  # warm the caches
    report = {
        "num_commits": num_commits,
        "quadratic_commits_per_second": {
            num_workers: round(commits_per_second(num_workers, num_commits))
            for num_workers in (1, 8, 64, 1024)
        },
        "center_alone_commits_per_second": round(center_alone(64, num_commits)),
        "numpy_alone_commits_per_second": round(numpy_alone(num_commits)),
        "processor_microseconds": processor_microseconds(64, 5 * num_commits),
        "side_by_side": {
            "jobs": options.jobs,
            "commits_per_second": round(side_by_side(options.jobs, num_commits)),
        },
        "mlp_megabytes": round(4 * MLP_WEIGHTS / 1e6, 2),
        "mlp_megabytes_per_worker": {
            algorithm.name: round(megabytes_per_worker(algorithm), 2)
            for algorithm in (DOWNPOUR(), AEASGD(), GapAware(), LocalSGD())
        },
    }
    print(json.dumps(report, indent=2))
    if options.out is not None:
        run.write(report, options.out)


if __name__ == "__main__":
    main()
