"""What a worker sends besides its windows: its local state, and evaluations of copies of the center."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from distkeras.center.answers import Pulled
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import NEWEST, Pull
from distkeras.wire.reports import fetch_report, send_report
from distkeras.worker.local_state import LocalState

if TYPE_CHECKING:
    from collections.abc import Callable

    from distkeras.algorithms import Vector
    from distkeras.center.answers import Joined
    from distkeras.center.orders import Orders
    from distkeras.wire.client import Client
    from distkeras.wire.group import Group
    from distkeras.worker.cached_replica import CachedReplica
    from distkeras.worker.epochs import StateAt
    from distkeras.worker.exchanges import Window

STATE_SECONDS = 5.0
"""Seconds from one state to the next, within an epoch. A replacement trains at most so long again."""

logger = logging.getLogger(__name__)


class Reports:
    """Sends the reports of one worker, and starts a replacement from its predecessor's.

    Args:
        client: the worker's connection to the center.
        worker: index of the worker.
        cached: its replica.
        state_at: when the local state is sent without being asked for.
        place: returns the number of minibatches before a minibatch, by epoch and number in it.
        ended_by: returns the number of epochs that end with or before so many minibatches.
        connect: opens another connection to the center, to pull a copy: the worker goes on from the vector
            that the last reply over its own connection has brought.
        evaluate: returns the states of the metrics at a vector over the worker's validation rows; `None` if
            there are none.
        sends_state: whether the driver needs the local state of this worker.
        clock: returns seconds from any origin.

    Attributes:
        restored: whether the worker goes on with the state of its last window.
    """

    def __init__(
        self,
        client: Client | Group,
        worker: int,
        cached: CachedReplica,
        state_at: StateAt,
        place: Callable[[int, int], int],
        ended_by: Callable[[int], int],
        connect: Callable[[], Client | Group],
        evaluate: Callable[[Vector], bytes] | None = None,
        sends_state: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._worker = worker
        self._cached = cached
        self._state_at = state_at
        self._place = place
        self._ended_by = ended_by
        self._connect = connect
        self._sends_state = sends_state
        self._evaluate = evaluate
        self._orders: Orders = NO_ORDERS
        self._asked = False
        self._epochs = 0
        self._begun = False
        self._clock = clock
        self._due = 0.0  # When the next state is due.
        self._moves = False  # Whether the last exchange has changed the weights.
        self._repeatable = False  # Whether the windows since the last state can be repeated from it.
        self.restored = False

    def start(self, joined: Joined) -> LocalState | None:
        """Take up the newest local state, if the worker leaves such states.

        Without it a new process begins with the optimizer that the training began with.

        Returns:
            That state. The windows between its place and that of `joined` are to be repeated.
        """
        self._repeatable = False
        self._epochs = self._ended_by(self._place(joined.epoch, joined.step))
        begun, self._begun = self._begun, True
        self._orders = NO_ORDERS  # A restarted server may have lost what was reported.
        if self._state_at not in ("seconds", "commits"):
            return None
        if joined.sequence:
            return self._restore(joined.sequence)
        if begun:
            self._cached.reset()
        return None

    def _restore(self, sequence: int) -> LocalState | None:
        data = fetch_report(self._client, self._worker, "state", NEWEST)
        state = None if data is None else LocalState.of(data)
        if state is None or ("weights" not in state.start and state.place[0] != sequence):
            logger.warning(
                "The center has no local state of worker %d after window %d. The worker continues with "
                "its current state, so its steps differ from those of an uninterrupted training.",
                self._worker,
                sequence - 1,
            )
            return None
        self._cached.restore(state)
        self.restored = True
        return state

    def obey(self, orders: Orders) -> None:
        """Do what new orders ask of this worker besides its training, between two windows."""
        before, self._orders = self._orders, orders
        if _training_by(orders) != _training_by(before):
            self._repeatable = False
        if orders.send_optimizer is not None and orders.send_optimizer != before.send_optimizer:
            self._asked = True
        if orders.evaluate is not None and orders.evaluate != before.evaluate:
            self._report_evaluation(orders.evaluate)

    def _report_evaluation(self, samples: int) -> None:
        """Evaluate the copy of the center at `samples` rows; a copy that is gone is not missed any more."""
        if self._evaluate is None:
            return
        with self._connect() as other:
            pulled = other.call(Pull(self._worker, kept=samples))
            if not isinstance(pulled, Pulled):
                logger.info("Worker %d has nothing to evaluate at %d rows: %s", self._worker, samples, pulled)
                return
            states = self._evaluate(pulled.center)
        send_report(self._client, self._worker, "evaluation", samples, states)

    def exchanged(self, moved: bool) -> None:
        """Take note of an exchange, and whether it has changed the weights."""
        self._moves = moved
        self._repeatable = self._repeatable and not moved

    def commit(self, window: Window, local: Vector) -> None:
        """Send the local state after `window`, which is about to be committed at `local`, if it is due."""
        epochs = self._ended_by(self._place(window.next_epoch, window.next_step))
        ended, self._epochs = epochs > self._epochs, epochs
        if not self._sends_state or not (self._asked or self._is_due(ended)):
            return
        self._asked = False
        self._due = self._clock() + STATE_SECONDS
        start = {"place": np.array([window.sequence, window.next_epoch, window.next_step])}
        self._repeatable = self._state_at == "seconds" and not self._moves
        if self._repeatable:
            start["weights"] = local
        state = replace(self._cached.local_state(), start=start)
        send_report(self._client, self._worker, "state", window.sequence, state.packed())

    def _is_due(self, ended: bool) -> bool:
        if self._state_at == "seconds":
            return ended or not self._repeatable or self._clock() >= self._due
        return self._state_at == "commits" or (self._state_at == "epochs" and ended)


def _training_by(orders: Orders) -> tuple[float | int | None, ...]:
    """Return the orders that change how a worker trains."""
    return orders.learning_rate, orders.window, orders.step
