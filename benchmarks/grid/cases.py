"""The runs of `convergence.py`: the grid on which rules are tuned, and the runs at the chosen points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distkeras.algorithms import REGISTRY

BASELINE = "DOWNPOUR"
"""With one worker, it is plain gradient descent."""
LEFT_OUT = ("Sequential", "GPA")
"""Several models, and primal averaging, which Keras models have on Spark only."""
TARGET = "DelayedNesterov"
"""The asynchronous rule that is run for longer, with few rows in flight."""
LEAST_WINDOWS = {"SparseLoCo": 5}
"""Where shorter ones are not what a rule is for: it chooses the largest changes of a long window."""

USUAL_BATCH = 32


CONDITIONS = (("gamma", "rows"), ("heterogeneous", "rows"), ("heterogeneous", "labels"))
"""Machines and data: all alike, unequal machines, and skewed labels as well."""


@dataclass(frozen=True)
class Case:
    """One run to make.

    Attributes:
        rule: name of the algorithm.
        window: steps between two exchanges.
        batch_size: rows of a worker's minibatch.
        rate: learning rate of the inner gradient descent.
        num_workers: simulated workers.
        samples: rows that are trained, of all workers together.
        step_time: "gamma" for machines alike, "heterogeneous" for unequal ones.
        partition: "rows" for shares alike, "labels" for skewed ones.
        seed: random seed.
    """

    rule: str
    window: int
    batch_size: int
    rate: float
    num_workers: int
    samples: int
    step_time: str = "gamma"
    partition: str = "rows"
    seed: int = 0

    @property
    def num_commits(self) -> int:
        """Commits, or rounds, in which these rows are trained."""
        rows = self.batch_size * self.window
        if REGISTRY[self.rule].synchronous:
            rows *= self.num_workers
        return max(1, -(-self.samples // rows))

    @property
    def point(self) -> tuple[float, int, int]:
        """The point of the grid."""
        return self.rate, self.batch_size, self.window


@dataclass(frozen=True)
class Outcome:
    """A run that was made.

    Attributes:
        case: what was run.
        accuracy: on the test set at the end; that of chance where it diverged.
        diverged: whether it did.
        staleness: commits by staleness: 0, 1, 2 to 3, 4 to 7, and so on.
        curve: virtual seconds, rows, bytes and accuracy at each evaluation.
        wall_seconds: how long it took.
    """

    case: Case
    accuracy: float
    diverged: bool
    staleness: list[int]
    curve: list[tuple[float, int, int, float]]
    wall_seconds: float

    def seconds(self, virtual: float) -> float:
        """Return a virtual time where a minibatch of `USUAL_BATCH` takes a second, and others by their rows.

        In the simulator each takes a second, so that small ones would seem slow.
        """
        return virtual * self.case.batch_size / USUAL_BATCH

    @classmethod
    def read(cls, row: dict[str, Any]) -> Outcome:
        """Return the outcome that was written as `row`."""
        curve = [(float(time), int(rows), int(size), float(hits)) for time, rows, size, hits in row["curve"]]
        return cls(**row | {"case": Case(**row["case"]), "curve": curve})


@dataclass(frozen=True)
class Grid:
    """What `convergence.py` runs. Written into its results.

    Attributes:
        rules: names of the algorithms.
        rates: learning rates.
        batch_sizes: rows of a minibatch.
        windows: steps between two exchanges.
        tuned: numbers of workers for which each rule is tuned, with seed 0 on `tuning_samples` rows.
        workers: numbers of workers that are run at the point of the nearest tuned number, where machines and
            data are alike.
        hard: the same where they are not.
        seeds: runs of each chosen point.
        tuning_samples: rows of a run on the grid.
        samples: rows of a run of a chosen point.
        target_samples: rows of a long run.
        targets: workers, rate and batch of the long runs.
        min_windows: a point of the grid is left out where fewer windows a worker fit into `tuning_samples`:
            nothing is learned in one or two.
    """

    rules: tuple[str, ...] = field(
        default_factory=lambda: tuple(name for name in REGISTRY if name not in LEFT_OUT)
    )
    rates: tuple[float, ...] = (0.005, 0.02, 0.1, 0.3, 1.0)
    batch_sizes: tuple[int, ...] = (8, 32)
    windows: tuple[int, ...] = (1, 5, 25)
    tuned: tuple[int, ...] = (64, 256, 8)
    workers: tuple[int, ...] = (64, 256, 8, 16, 2)
    hard: tuple[int, ...] = (64,)
    seeds: int = 3
    tuning_samples: int = 60_000
    samples: int = 120_000
    target_samples: int = 600_000
    targets: tuple[tuple[int, float, int], ...] = ((1, 0.1, 32), (64, 0.05, 2), (256, 0.1, 2))
    min_windows: int = 4

    def tuning(self) -> Iterator[Case]:
        """Yield every point of the grid, one worker first."""
        for rate in self.rates:
            for batch_size in self.batch_sizes:
                yield Case(BASELINE, 1, batch_size, rate, 1, self.tuning_samples)
        for num_workers in self.tuned:
            for rule in self.rules:
                for window in self.windows:
                    for batch_size in self.batch_sizes:
                        if num_workers * window * batch_size * self.min_windows > self.tuning_samples:
                            continue
                        if window < LEAST_WINDOWS.get(rule, 1):
                            continue
                        for rate in self.rates:
                            yield Case(rule, window, batch_size, rate, num_workers, self.tuning_samples)

    def chosen(self, outcomes: Iterable[Outcome]) -> Iterator[Case]:
        """Yield the runs at each rule's best point, under each of `CONDITIONS`."""
        best = self.best_points(outcomes)
        if (BASELINE, 1) in best:
            yield from self._seeds(replace(best[BASELINE, 1], samples=self.samples))
        for step_time, partition in CONDITIONS:
            counts = self.workers if (step_time, partition) == CONDITIONS[0] else self.hard
            for num_workers in counts:
                nearest = min(
                    self.tuned, key=lambda count: abs(count.bit_length() - num_workers.bit_length())
                )
                for rule in self.rules:
                    if (case := best.get((rule, nearest))) is not None:
                        here = replace(case, num_workers=num_workers, samples=self.samples)
                        yield from self._seeds(replace(here, step_time=step_time, partition=partition))

    def target(self) -> Iterator[Case]:
        """Yield long runs with few rows in flight, and of one worker."""
        for num_workers, rate, batch_size in self.targets:
            rule = TARGET if num_workers > 1 else BASELINE
            case = Case(rule, 1, batch_size, rate, num_workers, self.target_samples)
            for step_time in ("gamma",) if num_workers == 1 else ("gamma", "heterogeneous"):
                yield from self._seeds(replace(case, step_time=step_time))

    def best_points(self, outcomes: Iterable[Outcome]) -> dict[tuple[str, int], Case]:
        """Return each rule's best case of the grid, by number of workers."""
        best: dict[tuple[str, int], Outcome] = {}
        for outcome in outcomes:
            case = outcome.case
            key = case.rule, case.num_workers
            tuned = case.samples == self.tuning_samples and (case.step_time, case.partition) == CONDITIONS[0]
            if tuned and (key not in best or outcome.accuracy > best[key].accuracy):
                best[key] = outcome
        return {key: outcome.case for key, outcome in best.items()}

    def _seeds(self, case: Case) -> Iterator[Case]:
        for seed in range(self.seeds):
            yield replace(case, seed=seed)


QUICK = Grid(
    rules=("DOWNPOUR", "DelayedNesterov", "LocalSGD"),
    rates=(0.1, 0.3),
    batch_sizes=(8,),
    windows=(1, 5),
    tuned=(8,),
    workers=(8, 4),
    hard=(8,),
    seeds=1,
    tuning_samples=3_000,
    samples=6_000,
    target_samples=12_000,
    targets=((1, 0.1, 8), (8, 0.1, 8)),
)
"""A grid for a glance, and for a test that everything runs."""


def settings_of(grid: Grid) -> dict[str, Any]:
    """Return the grid as plain JSON."""
    return asdict(grid)
