"""The methods that `language.py` compares, and their runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from distkeras.algorithms import REGISTRY, Algorithm
from distkeras.wire.codecs import ChunkTopK

WINDOW = 10
"""Steps between two exchanges of the same weights, of every method."""
WORKERS = 8
BATCH_SIZE = 2
ALONE, TOGETHER = "one worker", "data-parallel"
OVERLAP: dict[str, Any] = {"overlap": 3}
"""Of the 5 steps between the exchanges of two fragments."""


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        rule: name of the algorithm.
        arguments: of the algorithm, beside its window.
        options: further arguments of `simulate`.
        optimizer: Keras optimizer of the workers.
        num_workers: simulated workers.
        batch_size: sequences of a worker's minibatch.
    """

    rule: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "AdamW"
    num_workers: int = WORKERS
    batch_size: int = BATCH_SIZE

    def algorithm(self) -> Algorithm:
        """Return the algorithm."""
        return REGISTRY[self.rule](communication_window=WINDOW, **self.arguments)


METHODS: dict[str, Method] = {
    ALONE: Method("DOWNPOUR", num_workers=1),
    TOGETHER: Method("DOWNPOUR", num_workers=1, batch_size=WORKERS * BATCH_SIZE),
    "LocalSGD": Method("LocalSGD"),
    "SlowMo": Method("SlowMo"),
    "DiLoCo": Method("DiLoCo"),
    "EagerDiLoCo": Method("EagerDiLoCo"),
    "StreamingDiLoCo": Method("StreamingDiLoCo", {"fragments": 2}, OVERLAP),
    "DecoupledDiLoCo": Method("DecoupledDiLoCo", {"fragments": 2}, OVERLAP | {"quorum": 6, "grace": 1.0}),
    "SparseLoCo": Method("SparseLoCo", options={"compression": ChunkTopK()}),
    "MuLoCo": Method("DiLoCo", options={"compression": ChunkTopK(density=1.0, bits=2)}, optimizer="Muon"),
    "DelayedNesterov": Method("DelayedNesterov"),
    "DyLU": Method("DyLU"),
}
"""By name. One worker trains as many tokens as all, in so many steps more; data-parallel training is computed
as one worker with the minibatches of all, and its exchange of every step costs nothing."""


@dataclass(frozen=True)
class Case:
    """One run to make.

    Attributes:
        method: name of the method.
        rate: learning rate of the workers' optimizer.
        tokens: trained by all workers together.
        machines: "gamma" for machines alike, "heterogeneous" for unequal ones.
        seed: random seed.
    """

    method: str
    rate: float
    tokens: int
    machines: str = "gamma"
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """A run that was made.

    Attributes:
        case: what was run.
        perplexity: of the held-out text at the end; infinity where it diverged.
        curve: virtual seconds, tokens, bytes and perplexity at each evaluation.
        cpu_seconds: what it took.
    """

    case: Case
    perplexity: float
    curve: list[tuple[float, int, int, float]]
    cpu_seconds: float

    @classmethod
    def read(cls, row: dict[str, Any]) -> Outcome:
        """Return the outcome that was written as `row`."""
        curve = [(float(a), int(b), int(c), float(d)) for a, b, c, d in row["curve"]]
        found = math.inf if row["perplexity"] is None else float(row["perplexity"])
        return cls(**row | {"case": Case(**row["case"]), "curve": curve, "perplexity": found})


@dataclass(frozen=True)
class Plan:
    """What `language.py` runs. Written into its results.

    Attributes:
        methods: names.
        rates: learning rates on which each method is tuned, with seed 0.
        tuning_tokens: tokens of a run that tunes.
        tokens: tokens of a run at a method's best rate.
        seeds: runs at the best rate on equal machines; on unequal ones there is one.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    tuning_tokens: int = 100_000
    tokens: int = 600_000
    seeds: int = 3

    def tuning(self) -> Iterator[Case]:
        """Yield every rate of every method."""
        for method in self.methods:
            for rate in self.rates:
                yield Case(method, rate, self.tuning_tokens)

    def chosen(self, outcomes: Iterable[Outcome]) -> Iterator[Case]:
        """Yield the runs at the best rates: of each method, on unequal machines, with other seeds."""
        best = self.best_rates(outcomes)
        first = [Case(method, rate, self.tokens) for method, rate in best.items()]
        yield from first
        for case in first:
            if METHODS[case.method].num_workers > 1:
                yield replace(case, machines="heterogeneous")
        for seed in range(1, self.seeds):
            for case in first:
                yield replace(case, seed=seed)

    def best_rates(self, outcomes: Iterable[Outcome]) -> dict[str, float]:
        """Return the rate of each method that was best when it was tuned."""
        best: dict[str, Outcome] = {}
        for outcome in outcomes:
            method = outcome.case.method
            tuned = outcome.case.tokens == self.tuning_tokens
            if tuned and (method not in best or outcome.perplexity < best[method].perplexity):
                best[method] = outcome
        return {method: best[method].case.rate for method in self.methods if method in best}


QUICK = Plan(("one worker", "DiLoCo", "DyLU"), (0.003,), 20_000, 40_000, 1)
"""A plan for a glance."""
