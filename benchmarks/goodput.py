"""Goodput over the rate of failures: a thousand learners, decoupled, in rounds, and as one data-parallel job.

    python benchmarks/goodput.py [--learners 1024] [--hours 3] [--restart 60] [--seeds 3] [--out FILE]
        [--figure FILE]

Schemes that `--out` holds with the same settings are not run again.

Goodput is the share of the steps that count in the center, of those that learners without failures train in
the same time. Learners fail on their own, at random times; one that fails loses its window, and its
replacement trains after `--restart` seconds. The failures are those of a year's life of a chip, and 10 times
fewer to 10 times more: a learner of 1,172 chips fails every 7.5 hours.

- Data-parallel: all learners step together, so that each failure stops all of them. They are simulated as one
  learner that fails as often as all of them.
- In rounds (DiLoCo): all wait for the learner that has failed, and for its repeated window.
- Decoupled: a round needs a quorum of the learners, and stays open for a grace. Learners train on while they
  wait for its end; one that comes late waits for the next round.
- Asynchronous: nobody waits for anybody.

Reference: Douillard et al. 2026, Decoupled DiLoCo for Resilient Distributed Pre-training (2604.21428): 0.88
decoupled and 0.27 data-parallel, with other learners and recovery times.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import recording

from distkeras.algorithms import REGISTRY, Algorithm, Vector
from distkeras.plots.style import charts, legend, line_style, save
from distkeras.simulation import Constant, Network, Outages, Replica, simulate

ROOT = Path(__file__).parents[1]
YEAR = 365 * 24 * 3600.0
CHIPS = 1172
WINDOW = 100
"""Steps of 1 second between two exchanges."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Failures of a chip in a year."""
NETWORK = Network(latency=0.05)


@dataclass(frozen=True)
class Scheme:
    """A way to train.

    Attributes:
        name: as in the table.
        rule: name of the algorithm.
        window: steps between two exchanges.
        together: whether all learners are one, which fails with each of them.
        quorum: share of the learners that a round needs; `None` for all, or for no rounds.
        grace: seconds for which it stays open after the quorum.
        overlap: steps that a learner trains while its message is exchanged.
    """

    name: str
    rule: str
    window: int = WINDOW
    together: bool = False
    quorum: float | None = None
    grace: float = 0.0
    overlap: int = 0

    def algorithm(self) -> Algorithm:
        """Return the rule."""
        return REGISTRY[self.rule](communication_window=self.window)


SCHEMES = (
    Scheme("asynchronous", "DelayedNesterov"),
    Scheme("decoupled", "DecoupledDiLoCo", quorum=0.5, grace=5.0, overlap=50),
    Scheme("rounds", "DiLoCo"),
    Scheme("data-parallel", "LocalSGD", window=1, together=True),
)


class Steps:
    """A problem that is none: every step sees one row, and moves nothing."""

    initial = np.zeros(16, np.float32)
    num_trainable = 16

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return 1."""
        return 1

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Return `weights`, and a row a step."""
        return weights, num_steps

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return a loss of 0."""
        return {"loss": 0.0}


def steps_of_a_learner(scheme: Scheme, learners: int, seconds: float, failing: Outages, seed: int) -> float:
    """Return how many steps of each learner count after so many virtual seconds."""
    count = 1 if scheme.together else learners
    result = simulate(
        scheme.algorithm(),
        Steps(),
        num_workers=count,
        until=seconds,
        learning_rate=0.0,
        step_time=Constant(1.0),
        network=NETWORK,
        outages=failing,
        quorum=None if scheme.quorum is None else max(1, int(scheme.quorum * count)),
        grace=scheme.grace,
        overlap=scheme.overlap,
        evaluate_every=10**9,
        keep_centers=False,
        seed=seed,
    )
    return float(result.samples[-1]) / count


def outages(scheme: Scheme, factor: float, options: argparse.Namespace) -> Outages:
    """Return what fails where chips fail `factor` times a year."""
    learner = YEAR / CHIPS / factor
    mean = learner / options.learners if scheme.together else learner
    return Outages(worker=mean, worker_restart=options.restart)


def goodputs(scheme: Scheme, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a record for each rate of failures and each seed."""
    seconds = 3600 * options.hours
    calm = steps_of_a_learner(scheme, options.learners, seconds, Outages(), 0)
    for factor in FACTORS:
        failing = outages(scheme, factor, options)
        for seed in range(options.seeds):
            steps = steps_of_a_learner(scheme, options.learners, seconds, failing, seed)
            yield {
                "scheme": asdict(scheme),
                "factor": factor,
                "seed": seed,
                "goodput": round(steps / calm, 4),
            }


def draw(rows: list[dict[str, Any]], learners: int, path: Path) -> None:
    """Draw goodput over the failures of a chip in a year."""
    figure, [[axes]] = charts(1, 1, f"Goodput of {learners:,} learners (simulated)", width=6, height=3.6)
    for number, scheme in enumerate(SCHEMES):
        own = [row for row in rows if row["scheme"] == asdict(scheme)]
        factors = sorted({row["factor"] for row in own})
        means = [
            statistics.mean(row["goodput"] for row in own if row["factor"] == factor) for factor in factors
        ]
        axes.plot(factors, means, marker="o", label=scheme.name, **line_style(number))
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="failures of a chip in a year", ylabel="goodput")
    legend(axes)
    save(figure, path)


def main() -> None:
    """Simulate, print a table, and write JSON and a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=1024)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--restart", type=float, default=60.0, help="seconds until a replacement trains")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "goodput.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "goodput.png")
    options = parser.parse_args()
    run = recording.begin(__file__)
    settings = {
        "learners": options.learners,
        "hours": options.hours,
        "restart": options.restart,
        "seeds": options.seeds,
        "chips": CHIPS,
    }
    rows: list[dict[str, Any]] = []
    print("| scheme | " + " | ".join(f"{factor:g} a year" for factor in FACTORS) + " |")
    print("|---" * (len(FACTORS) + 1) + "|")
    for scheme in SCHEMES:
        own = list(goodputs(scheme, options))
        rows += own
        run.write({**settings, "runs": rows}, options.out)
        found: dict[float, list[float]] = defaultdict(list)
        for row in own:
            found[row["factor"]].append(row["goodput"])
        means = " | ".join(f"{statistics.mean(each):.2f}" for each in found.values())
        print(f"| {scheme.name} | {means} |", flush=True)
    draw(rows, options.learners, options.figure)


if __name__ == "__main__":
    main()
