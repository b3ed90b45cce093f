"""Holds back answers to workers until the driver has decided how the training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from distkeras.algorithms import Vector
from distkeras.center.answers import Answer, Exchanged, Joined, Rejoin, Reply, Skipped
from distkeras.center.requests import DRIVER, Dismiss, Join, Keep, Order, Report, Request
from distkeras.center.standing_orders import StandingOrders


class Holding:
    """The answers to workers that wait for the driver, from a number of rows of the center on.

    Answers to `Exchange` and `Join` are held, and the one to the last part of an evaluation, until the driver
    orders a larger `until`, or `stop`. An order to evaluate a copy of the center from that number of rows on
    reaches the workers meanwhile: an answer with that order goes out, once to each process. So do answers to
    commits that a worker repeats because another server has lost them, except the last.

    Args:
        first: number of rows before the driver's first order; `None` for never.
        orders: the orders in force.
        samples: returns the rows of the center.
        last: returns the number of a worker's last commit.
    """

    def __init__(
        self,
        first: int | None,
        orders: StandingOrders,
        samples: Callable[[], int],
        last: Callable[[int], int],
    ) -> None:
        self._first, self._standing = first, orders
        self._samples, self._last = samples, last
        self._lock = threading.Lock()
        self._held: dict[int, Reply] = {}
        # By worker: the last copy that its process was ordered to evaluate.
        self._evaluates: dict[int, int] = {}

    @property
    def until(self) -> int | None:
        """Number of rows from which answers are held; `None` for never."""
        orders = self._standing.orders
        if orders is None:
            return self._first
        return None if orders.stop else orders.until or self._first

    @property
    def workers(self) -> set[int]:
        """The workers whose answers are held."""
        with self._lock:
            return set(self._held)

    def pass_on(self, answers: list[Answer], request: Request | Dismiss | None = None) -> list[Answer]:
        """Return those of the `answers` to `request` that go out now; keep the others."""
        if not self._held and self.until is None:  # It takes no lock then.
            return answers
        with self._lock:
            if isinstance(request, Join):  # By a new process, perhaps.
                self._held.pop(request.worker, None)
                self._evaluates.pop(request.worker, None)
            passed = []
            for worker, reply in answers:
                if worker == DRIVER or not _waits(reply, request):
                    passed.append((worker, reply))
                elif not self._is_held(worker, reply):
                    self._held.pop(worker, None)
                    passed.append((worker, reply))
                elif isinstance(request, Join) and isinstance(reply, Joined) and not request.waits:
                    passed.append((worker, replace(reply, held=True)))
                else:
                    self._keep(worker, reply)
            return passed

    def look(self) -> list[Answer]:
        """Return the answers that are held no longer: the orders have changed, or there is another copy."""
        with self._lock:
            free = [worker for worker in sorted(self._held) if not self._is_held(worker, self._held[worker])]
            return [(worker, self._held.pop(worker)) for worker in free]

    def rewrite(self, joined: Callable[[int], Vector]) -> set[int]:
        """Let the answers that are held start the workers from a new center.

        Args:
            joined: returns that center, for a worker that waits in `Join`.

        Returns:
            These workers. All others have to join again.
        """
        with self._lock:
            for worker, reply in self._held.items():
                if isinstance(reply, Joined):
                    self._held[worker] = replace(reply, center=joined(worker))
                else:
                    self._held[worker] = Rejoin()
            return {worker for worker, reply in self._held.items() if isinstance(reply, Joined)}

    def dismiss(self) -> list[Answer]:
        """Drop the answers that are held, and return those by which their workers join again."""
        with self._lock:
            held, self._held = self._held, {}
            return [(worker, Rejoin()) for worker in sorted(held)]

    def _is_held(self, worker: int, reply: Reply) -> bool:
        until = self.until
        if until is None or self._samples() < until:
            return False
        if isinstance(reply, Exchanged | Joined | Skipped) and self._is_to_evaluate(worker, until):
            return False
        return not (isinstance(reply, Exchanged) and reply.restart and reply.sequence < self._last(worker))

    def _is_to_evaluate(self, worker: int, until: int) -> bool:
        """Return whether `worker` has yet to be told to evaluate a copy of now; it is, with this answer."""
        orders = self._standing.now
        wanted = None if orders is None else orders.evaluate
        if wanted is None or wanted < until or self._evaluates.get(worker) == wanted:
            return False
        self._evaluates[worker] = wanted
        return True

    def _keep(self, worker: int, reply: Reply) -> None:
        before = self._held.get(worker)
        repeated = isinstance(reply, Exchanged) and reply.restart and isinstance(before, Exchanged)
        if not repeated:  # Else its connection was cut, and it has asked again for what it is to get.
            self._held[worker] = _own(reply)


def _waits(reply: Reply, request: Request | Dismiss | None) -> bool:
    """Return whether a reply may be held: not one to a heartbeat, or to a worker that leaves."""
    if isinstance(request, Order | Keep):  # It has been, until now.
        return False
    ends = isinstance(request, Report) and request.kind == "evaluation" and request.part == request.parts - 1
    return ends or isinstance(reply, Exchanged | Joined | Skipped)


def _own(reply: Reply) -> Reply:
    """Return `reply` with a vector that is not in the memory of a message, which others need meanwhile."""
    if isinstance(reply, Exchanged) and reply.reply.flags.writeable:
        return replace(reply, reply=reply.reply.copy())
    if isinstance(reply, Skipped) and reply.center.flags.writeable:
        return replace(reply, center=reply.center.copy())
    return reply
