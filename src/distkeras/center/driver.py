"""What the driver asks of a center, and a server that follows it."""

from __future__ import annotations

from distkeras.center.answers import Answer, Done, LogEntry, Pulled, Refused, Reply
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Decisions
from distkeras.center.event_log import EventLog
from distkeras.center.holding import Holding
from distkeras.center.orders import check_orders
from distkeras.center.records import Records
from distkeras.center.reports import Reports
from distkeras.center.requests import DRIVER, Fetch, Follow, Keep, Order, Poll, Pull, Write
from distkeras.center.sharded import Sharded
from distkeras.center.standing_orders import StandingOrders
from distkeras.center.writing import write
from distkeras.events import CenterKept

Asked = Pull | Poll | Follow | Order | Keep | Write | Fetch
"""Requests of senders that are not workers."""


class ForDriver:
    """Answers those who do not train.

    Args:
        config: settings of the center.
        vector: the center.
        records: the records of its workers.
        decisions: its decisions, with the copies that are kept and the log of requests.
        orders: the orders in force.
        holding: the answers that wait for the driver.
        reports: what the workers have reported.
        event_log: the events.
        num_fragments: number of fragments, of which this is the center of one.
    """

    def __init__(
        self,
        config: CenterConfig,
        vector: Sharded,
        records: Records,
        decisions: Decisions,
        orders: StandingOrders,
        holding: Holding,
        reports: Reports,
        event_log: EventLog,
        num_fragments: int,
    ) -> None:
        self._config = config
        self._vector = vector
        self._records = records
        self._decisions = decisions
        self._orders = orders
        self._holding = holding
        self._reports = reports
        self._event_log = event_log
        self._num_fragments = num_fragments

    def handle(self, request: Asked) -> list[Answer]:
        """Return the answers to `request`: to its sender, and to workers that have waited for it.

        Raises:
            ProtocolError: it makes no sense, or no server may follow this one.
        """
        if isinstance(request, Order):
            self._order(request)
            return [(DRIVER, Done()), *self._holding.look()]
        answer = DRIVER, self._reply(request)
        return [answer, *self._holding.look()] if isinstance(request, Keep) else [answer]

    def keep_what_is_due(self) -> bool:
        """Copy the center for the numbers of rows that have come, if all workers wait or have left.

        Returns:
            Whether there is a new copy.
        """
        training = {worker for worker, record in self._records.by_worker.items() if not record.left}
        if not training <= self._holding.workers:  # The next message brings the copy.
            return False
        numbers = self._decisions.kept.reached(self._decisions.samples)
        if numbers:
            self._keep(numbers)
            if self._decisions.log is not None:
                self._decisions.log.add(LogEntry(DRIVER, kept=list(numbers)))
        return bool(numbers)

    def _keep(self, numbers: tuple[int, ...]) -> None:
        center, counts = self._vector.read(self._decisions.read()), self._decisions.counts
        self._decisions.kept.add(numbers, center, counts.updates)
        time = self._event_log.clock()
        kept = [CenterKept(samples, counts.commits, counts.updates, time) for samples in numbers]
        self._event_log.add(*kept)

    def _reply(self, request: Pull | Poll | Follow | Keep | Write | Fetch) -> Reply:
        match request:
            case Pull():
                return self._pull(request.kept)
            case Poll():
                return self._event_log.read(request.since)
            case Follow():
                return self._follow(request)
            case Keep():
                if request.samples < 1:
                    raise ProtocolError(f"Expected a number of rows. Received: samples={request.samples}")
                if request.now:
                    self._keep((request.samples,))
                else:
                    self._decisions.kept.want(request.samples)
                    self.keep_what_is_due()
                return Done()
            case Write():
                return self._write(request)
            case Fetch():
                return self._reports.fetch(request)

    def _order(self, request: Order) -> None:
        try:
            check_orders(request.orders)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        if request.orders.until is not None and (self._num_fragments > 1 or self._config.overlap):
            raise ProtocolError("Expected no `until` for a center with fragments or overlap.")
        self._orders.change(request.orders)

    def _pull(self, kept: int) -> Pulled | Refused:
        return (
            self._decisions.kept.pulled(kept)
            if kept
            else Pulled(self._vector.read(self._decisions.read()), self._event_log.num_updates)
        )

    def _follow(self, request: Follow) -> Reply:
        log = self._decisions.log
        if log is None:
            raise ProtocolError("Expected no server to follow this one.")
        page = log.read(request.leader, request.since)
        if page.anew:  # The other server may have lost its parts of the copies.
            self._decisions.kept.make_again()
        return page

    def _write(self, request: Write) -> Done | Refused:
        if request.center.shape != (self._vector.size,) or self._num_fragments > 1:
            raise ProtocolError(f"Expected one whole vector. Received: shape {request.center.shape}")
        with self._records.paused():
            reply = write(request, self._vector, self._decisions, self._holding, self._records.by_worker)
            self._event_log.touch()
            return reply
