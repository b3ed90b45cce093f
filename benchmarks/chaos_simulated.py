"""The storm of `chaos.py` on a thousand workers, in the simulator: which share of the speed is left?

Faults come as often as there for every worker, server and driver, and recovery takes as long as `chaos.py`
has measured. An asynchronous rule goes on without the worker that failed; the workers of a synchronous one
all start again, as Spark has them. Both count rows, so that the center says whether each counts once.

python benchmarks/chaos_simulated.py MEASURED.json ... [--workers 16 1024] [--minutes 30] [--levels 1 3 10]
    [--seed 0] [--out FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recording
from storm.plan import MEAN_SECONDS, MINUTE, SHARES
from storm.training import Config, Count, CountRounds

from distkeras.algorithms import Algorithm, Vector
from distkeras.simulation import Constant, Network, Outages, Replica, simulate

CONFIG = Config(folder="", ports=())
"""What `chaos.py` trains."""
NETWORK = Network(latency=0.0005, service=0.00002)
"""Half a millisecond one way, and 20 microseconds of the server for a message: two servers of 40 each."""
STEP_SECONDS, WINDOW = 0.1, 50
"""Windows of 5 s: with so many workers, nobody exchanges every 20 steps of 20 ms."""


class Rows:
    """A problem that is none: every step sees one row, and moves nothing."""

    initial = np.zeros(1, np.float32)
    num_trainable = 1

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return 1."""
        return 1

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Return `weights`, and a row a step."""
        return weights, num_steps

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return the rows that the center has counted."""
        return {"loss": float(weights[0])}


def measured(paths: list[Path]) -> dict[str, dict[str, float]]:
    """Return the seconds to recover, by rule and by what fails, of records of `chaos.py`.

    Of a worker the mean: now it is killed, now its machine, now it stands still. Of the others the median:
    some were hit while a worker stood still. The window that ends a recovery is no part of it here.

    Raises:
        ValueError: of a rule, nothing was measured for one of the faults.
    """
    window = CONFIG.window * CONFIG.step_seconds
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        for record in json.loads(path.read_text())["storms"]:
            for fault in record["storm"]:
                struck = next(name for name, kinds in SHARES.items() if fault["kind"] in dict(kinds))
                if fault["recovery"] is not None:
                    found[record["rule"]][struck].append(max(0.0, fault["recovery"] - window))
    for rule in ("asynchronous", "synchronous"):
        missing = sorted({"worker", "server", "driver", "network"} - {*found[rule]})
        if missing:
            raise ValueError(
                f"Expected records in which each kind of fault struck the {rule} rule: let chaos.py run for "
                f"longer, or at a higher level. Received: none of {', '.join(missing)}"
            )
    return {
        rule: {
            name: statistics.fmean(times) if name == "worker" else statistics.median(times)
            for name, times in by.items()
        }
        for rule, by in found.items()
    }


def outages(recoveries: dict[str, float], synchronous: bool) -> Outages:
    """Return what fails at level 1."""
    return Outages(
        worker=MEAN_SECONDS["worker"],
        worker_restart=recoveries["worker"],
        server=MEAN_SECONDS["server"] / CONFIG.num_servers,
        server_restart=recoveries["server"],
        snapshot=CONFIG.snapshot_seconds,
        job=MEAN_SECONDS["driver"],
        job_restart=recoveries["driver"],
        # There, one network for a few workers is cut; here each has as many cuts as one of those.
        cut=MEAN_SECONDS["network"] * CONFIG.num_workers,
        cut_restart=recoveries["network"],
        together=synchronous,
    )


def rows_in_time(rule: Algorithm, num_workers: int, seconds: float, failing: Outages, seed: int) -> int:
    """Return the rows that count after so many virtual seconds; they are also what the center has counted."""
    result = simulate(
        rule,
        Rows(),
        num_workers=num_workers,
        num_commits=10**9,
        until=seconds,
        learning_rate=0.0,
        step_time=Constant(STEP_SECONDS),
        network=NETWORK,
        outages=failing,
        evaluate_every=10**9,
        keep_centers=False,
        seed=seed,
    )
    rows = int(result.samples[-1])
    # The center is of float32, and exact to 16.7 million.
    if rows < 2**24 and result.losses[-1] != rows:
        raise AssertionError(f"Expected a center that has counted {rows} rows. Received: {result.losses[-1]}")
    return rows


def goodputs(
    rule: Algorithm, workers: int, seconds: float, failing: Outages, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield a record for each level."""
    calm = rows_in_time(rule, workers, seconds, Outages(), options.seed)
    for level in options.levels:
        each = failing.times_as_often(level)
        rows = rows_in_time(rule, workers, seconds, each, options.seed)
        yield {
            "workers": workers,
            "minutes": options.minutes,
            "level": level,
            "seed": options.seed,
            "goodput": round(rows / calm, 4),
            "outages": dataclasses.asdict(each),
        }


def main() -> None:
    """Simulate the storms and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("measured", type=Path, nargs="+", help="records that chaos.py wrote, of both rules")
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 1024])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--levels", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    recoveries = measured(options.measured)
    found: list[dict[str, Any]] = []
    print("| rule | workers | level | goodput |\n|---|---|---|---|")
    for name, rule in (("asynchronous", Count(WINDOW)), ("synchronous", CountRounds(WINDOW))):
        failing = outages(recoveries[name], rule.synchronous)
        for workers in options.workers:
            for record in goodputs(rule, workers, options.minutes * MINUTE, failing, options):
                found.append({"rule": name, **record})
                print(f"| {name} | {workers} | {record['level']:g} | {record['goodput']:.3f} |", flush=True)
    if options.out is not None:
        run.write({"storms": found}, options.out)


if __name__ == "__main__":
    main()
