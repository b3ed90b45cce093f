"""Decides which connection may act for a worker, and passes replies to waiting connections. No I/O."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from distkeras.center.answers import Answer, Refused, Rejoin, Reply
from distkeras.center.requests import Exchange, Join, Leave, Report, Request
from distkeras.wire import frames

REPLACED = frames.Stopped("Another process, or a newer connection, acts for this worker now.", replaced=True)


@dataclass(eq=False)
class Caller:
    """One connection that has proved the token, and its queue of replies.

    Attributes:
        hang_up: ends the connection, from any thread.
        session: shared by all connections of one client.
        wake: lets the connection look for replies, from any thread.
        replies: replies that came from the requests of others.
    """

    hang_up: Callable[[], None]
    session: bytes
    wake: Callable[[], None]
    replies: deque[Reply | frames.Stopped] = field(default_factory=deque)

    def answer(self, reply: Reply | frames.Stopped) -> None:
        """Give the connection a reply for which it waits."""
        self.replies.append(reply)
        self.wake()


class Admission:
    """Decides which connection may act for each worker.

    If several processes train as one worker, the server accepts the last one started and its newest
    connection: Spark does not always end a task's process before it starts the next. The others must stop.

    Args:
        max_connections: most connections at one time.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._waiting: dict[int, Caller] = {}  # by worker
        self._newest: dict[bytes, Caller] = {}  # by session
        self._owners: dict[int, bytes] = {}  # sessions, by worker
        self._replaced: set[bytes] = set()
        self._beating: dict[bytes, int] = {}  # workers, by session
        self._asking: dict[bytes, int] = {}  # workers, by session of a process that waits
        self._tickets: defaultdict[int, int] = defaultdict(int)  # of the last process, by worker
        self._stopped: frames.Stopped | None = None

    def enter(self, caller: Caller) -> bool:
        """Add `caller` to the connections, and end the previous connection of its session.

        Returns:
            Whether there was room.
        """
        with self._lock:
            before = self._newest.get(caller.session)
            if before is None and len(self._newest) >= self._max_connections:
                return False
            self._newest[caller.session] = caller
        if before is not None:
            before.hang_up()
        return True

    def leave(self, caller: Caller) -> None:
        """Remove a connection that has ended."""
        with self._lock:
            if self._newest.get(caller.session) is caller:
                del self._newest[caller.session]
                self._beating.pop(caller.session, None)
                self._asking.pop(caller.session, None)

    def hear(self, caller: Caller, worker: int, ticket: int) -> frames.Stopped | None:
        """Return why a heartbeat of the process with `ticket` does not count; `None` if it does."""
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            if ticket < self._tickets[worker] or caller.session in self._replaced:
                return REPLACED
            self._beating[caller.session] = worker
            return None

    def workers(self) -> dict[bytes, int]:
        """Return which worker each session acts for, or will as far as its heartbeats say."""
        with self._lock:
            return self._acting()

    def _acting(self) -> dict[bytes, int]:
        return self._beating | {session: worker for worker, session in self._owners.items()}

    def present(self, caller: Caller, worker: int) -> tuple[set[int], set[int]]:
        """Return for which workers processes with a connection act, and for which others wait to.

        Args:
            caller: a connection of a process that waits from now on.
            worker: the worker as which it would train.
        """
        with self._lock:
            self._asking[caller.session] = worker
            known = self._newest.keys() - self._replaced
            acting = {acts for session, acts in self._acting().items() if session in known}
            return acting, {waits for session, waits in self._asking.items() if session in known}

    def take_over(
        self, caller: Caller, worker: int, ticket: int, *, heard: bool, expected: bool
    ) -> int | frames.Stopped | None:
        """Let `caller` alone act for `worker` from now on, unless another process does.

        Args:
            caller: a connection of the process that asks.
            worker: index of the worker.
            ticket: of that process.
            heard: whether the worker has not been silent for too long. If it has, its process may hang.
            expected: whether a process that this server does not know yet is expected to come back.

        Returns:
            The ticket with which it is to join: `ticket`, or more if a process before had more. `None` if
            there is another process.
        """
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            others = {session for session, acts in self._acting().items() if acts == worker}
            others -= self._replaced | {caller.session}
            unknown = expected and worker not in self._owners
            if heard and (unknown or others & self._newest.keys()):
                return None
            self._replaced |= others  # They may come back.
            self._owners[worker] = caller.session
            self._beating[caller.session] = worker
            self._asking.pop(caller.session, None)
            self._tickets[worker] = max(ticket, self._tickets[worker] + 1)
            return self._tickets[worker]

    def admit(self, caller: Caller, worker: int, request: Request) -> Rejoin | frames.Stopped | None:
        """Let `caller` act for `worker` and wait for an answer, or return the reply that turns it away."""
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            owner = self._owners.setdefault(worker, caller.session)
            if owner != caller.session and caller.session not in self._replaced:
                if isinstance(request, Exchange | Leave | Report):
                    return Rejoin()  # Another process, possibly an older one, sent to this server first.
                if isinstance(request, Join):
                    late = request.ticket < self._tickets[worker]
                    self._replaced.add(caller.session if late else owner)
                    self._owners[worker] = owner if late else caller.session
            if isinstance(request, Join):
                self._tickets[worker] = max(request.ticket, self._tickets[worker])
            if caller.session in self._replaced or self._newest.get(caller.session) is not caller:
                return REPLACED
            cut = self._waiting.get(worker)
            self._waiting[worker] = caller
            if cut is not None and cut is not caller:
                cut.answer(REPLACED)  # Its thread may still wait for a round: let it end.
            return None

    def deliver(self, answers: list[Answer], caller: Caller | None, worker: int) -> Reply | None:
        """Pass the `answers` to the waiting connections; return the answer to `caller`, if there is one."""
        own: Reply | None = None
        with self._lock:
            for receiver, reply in answers:
                if receiver == worker:
                    own = reply
                elif (waiting := self._waiting.pop(receiver, None)) is not None:
                    waiting.answer(reply)
            if own is not None and caller is not None:
                if self._waiting.get(worker) is caller:
                    del self._waiting[worker]
                # A round's answer meant for the previous connection may have come too: drop it.
                caller.replies.clear()
        return own

    def fail(self, caller: Caller | None, refused: Refused) -> None:
        """Answer all waiting connections except `caller` with `refused`."""
        self._answer_all(refused, caller)

    def stop(self, reason: str) -> None:
        """Answer every waiting request and all later ones with `Stopped`."""
        with self._lock:
            self._stopped = frames.Stopped(reason)
        self._answer_all(self._stopped)

    def waiting(self) -> set[int]:
        """Return the workers that wait for an answer: their silence is expected."""
        with self._lock:
            return set(self._waiting)

    def _answer_all(self, reply: Refused | frames.Stopped, but: Caller | None = None) -> None:
        with self._lock:
            for caller in self._waiting.values():
                if caller is not but:
                    caller.answer(reply)
            self._waiting.clear()
