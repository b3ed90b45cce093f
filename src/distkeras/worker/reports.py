"""What a worker sends besides its windows: its local state, and evaluations of copies of the center."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distkeras.center.answers import Pulled
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Pull
from distkeras.wire.reports import fetch_report, send_report
from distkeras.worker.local_state import LocalState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distkeras.algorithms import Vector
    from distkeras.center.answers import Joined
    from distkeras.center.orders import Orders
    from distkeras.wire.client import Client
    from distkeras.wire.group import Group
    from distkeras.worker.cached_replica import CachedReplica
    from distkeras.worker.epochs import StateAt
    from distkeras.worker.exchanges import Window
    from distkeras.worker.metric_states import Sums

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
        self.restored = False

    def start(self, joined: Joined) -> Sequence[Sums]:
        """Take up the local state after the last commit, if each commit has left one.

        Without it a new process begins with the optimizer that the training began with.

        Returns:
            The sums of the metrics of the last epoch so far, if it has begun.
        """
        self._epochs = self._ended_by(self._place(joined.epoch, joined.step))
        begun, self._begun = self._begun, True
        self._orders = NO_ORDERS  # A restarted server may have lost what was reported.
        if self._state_at != "commits":
            return ()
        if joined.sequence:
            return self._restore(joined.sequence)
        if begun:
            self._cached.reset(self._worker)
        return ()

    def _restore(self, sequence: int) -> Sequence[Sums]:
        data = fetch_report(self._client, self._worker, "state", sequence)
        if data is None:
            logger.warning(
                "The center has no local state of worker %d after window %d. The worker goes on with the "
                "state that it has, so its steps are not those of an undisturbed training.",
                self._worker,
                sequence - 1,
            )
            return ()
        state = LocalState.of(data)
        self._cached.restore(state)
        self.restored = True
        return state.metrics

    def obey(self, orders: Orders) -> None:
        """Do what new orders ask of this worker besides its training, between two windows."""
        before, self._orders = self._orders, orders
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

    def commit(self, window: Window) -> None:
        """Send the local state after `window`, which is about to be committed, if it is due."""
        epochs = self._ended_by(self._place(window.next_epoch, window.next_step))
        ended, self._epochs = epochs > self._epochs, epochs
        due = self._asked or self._state_at == "commits" or (self._state_at == "epochs" and ended)
        if due and self._sends_state:
            self._asked = False
            data = self._cached.local_state().packed()
            send_report(self._client, self._worker, "state", window.sequence, data)
