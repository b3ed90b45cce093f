"""Adds the orders in force to the answers that a center gives to its workers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

from distkeras.algorithms import Algorithm
from distkeras.center.answers import Answer, Exchanged, Joined, Skipped
from distkeras.center.kept import Kept
from distkeras.center.ledger import WorkerRecord
from distkeras.center.orders import NO_ORDERS, Orders, changed


class StandingOrders:
    """The orders in force: those of the driver, for all workers, and the windows that the algorithm chooses.

    The length of a window is the driver's if its orders have one, else what the algorithm's `window` returns.

    A copy of the center to be evaluated is named to the workers while there is one: a restarted server may
    have lost it, or may not have come so far again.

    Args:
        algorithm: the algorithm. Its `window` is called for each answer to a worker, if it defines one.
        records: the records of the workers, by worker.
        kept: the copies of the center.

    Attributes:
        orders: the driver's last orders; `None` before the first.
        chooses_windows: whether the algorithm chooses the length of windows.
    """

    def __init__(self, algorithm: Algorithm, records: Mapping[int, WorkerRecord], kept: Kept) -> None:
        self.orders: Orders | None = None
        self._kept = kept
        self._algorithm = algorithm
        self._records = records
        self.chooses_windows = type(algorithm).window is not Algorithm.window

    def change(self, orders: Orders) -> None:
        """Put `orders` in force under the next number. Where they are `None`, the last ones stay in force."""
        self.orders = changed(self.orders or NO_ORDERS, orders)

    @property
    def now(self) -> Orders | None:
        """The orders for the workers."""
        orders = self.orders
        if orders is None or orders.evaluate is None or self._kept.get(orders.evaluate) is not None:
            return orders
        return orders._replace(evaluate=None)

    def added_to(self, answers: list[Answer]) -> list[Answer]:
        """Return `answers`, of which those to training workers carry the orders in force."""
        return [
            (worker, replace(reply, orders=self._for(worker)))
            if isinstance(reply, Exchanged | Joined | Skipped)
            else (worker, reply)
            for worker, reply in answers
        ]

    def _for(self, worker: int) -> Orders | None:
        orders = self.now
        if not self.chooses_windows or (orders is not None and orders.window is not None):
            return orders
        speeds = {
            other: record.speed for other, record in self._records.items() if record.speed and not record.left
        }
        window = self._algorithm.window(worker, speeds)
        return orders if window is None else (orders or NO_ORDERS)._replace(window=_checked(window))


def _checked(window: object) -> int:
    try:
        steps = 0 if isinstance(window, bool) else operator.index(window)  # type: ignore[arg-type]
    except TypeError:
        steps = 0
    if steps < 1:
        raise ValueError(
            "`window(worker, speeds)` of the algorithm must return a positive integer (minibatch steps), or "
            f"None for `communication_window`. Received: {window!r}"
        )
    return steps
