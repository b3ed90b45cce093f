"""The measurements behind `recommend`. `benchmarks/convergence.py --stage draw` writes the file."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Literal

import msgspec

from distkeras.algorithms import REGISTRY

Machines = Literal["alike", "unequal"]
Data = Literal["alike", "skewed"]


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one rule reached in the simulator at its best learning rate and batch size.

    Attributes:
        rule: name of the algorithm.
        num_workers: simulated workers.
        machines: "alike", or "unequal": their speeds differ by a factor of several.
        data: "alike", or "skewed": workers have different shares of the labels.
        window: steps between two exchanges.
        batch_size: rows of a worker's minibatch.
        learning_rate: of the worker's plain gradient descent.
        accuracy: on the test set of MNIST after `rows` rows, mean of `seeds` runs.
        in_time: accuracy at the moment when the fastest rule under the same conditions had trained `rows`.
            Rules in rounds have trained fewer rows by then: they wait for the slowest worker. A step takes as
            long as its rows.
        rows: of all workers together.
        seeds: runs of which the means are taken.
    """

    rule: str
    num_workers: int
    machines: Machines
    data: Data
    window: int
    batch_size: int
    learning_rate: float
    accuracy: float
    in_time: float
    rows: int
    seeds: int

    @property
    def synchronous(self) -> bool:
        """Whether the workers wait for each other."""
        return REGISTRY[self.rule].synchronous


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All measurements, and what was measured.

    Attributes:
        task: the model and data.
        single: best accuracy of one worker after as many rows.
        measured: one entry for each rule, number of workers, kind of machines and data, and class of windows.
    """

    task: str
    single: float
    measured: tuple[Measured, ...]


@functools.cache
def measurements() -> Table:
    """Return the measurements that this version of the package comes with."""
    text = files("distkeras.guidance").joinpath("measured.json").read_bytes()
    return msgspec.json.decode(text, type=Table)
