"""A worker's connections to a center that is spread over several servers, used like one connection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Done, Exchanged, Joined, Polled, Pulled, Refused, Rejoin, Skipped
from distkeras.center.bad_updates import is_finite, is_too_large
from distkeras.center.requests import (
    Beat,
    Exchange,
    Fail,
    Fetch,
    Join,
    Keep,
    Leave,
    MayJoin,
    Order,
    Poll,
    Pull,
    Report,
    Request,
    Write,
)
from distkeras.events import CenterFailed, RecordFailed, ServerStatus, SnapshotFailed, WorkerFailed
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.traffic import Traffic

if TYPE_CHECKING:
    from distkeras.wire.mailbox import Mailbox

CALLS = 2**24
"""Most requests of one process."""
PART_SECONDS = 10.0
"""Longest time for another server to make its part of a copy that the first one has."""
END_SECONDS = 5.0
"""Longest time for a call to end after its connection was closed."""


Numbered = TypeVar("Numbered", Join, Exchange, Leave, Write)


class Group:
    """Several clients that act as one. Each server holds a part of the center and has its own ledger.

    A message may reach only some of the servers, because a connection failed or a server restarted from a
    snapshot. The ledgers complete it: a worker that joins continues from the earliest place that a server
    returns, and the servers that are ahead answer repeated commits without applying them.

    The first server leads: it decides on every message, and the others handle theirs in its order (see
    `distkeras.center.follower`). The job uses its events, its count of updates, its orders and its view of
    the workers. Of the other servers' events, only failures count, and how they do.

    Args:
        addresses: the servers, in the order of their parts.
        patience: as for `Client`.
        clients: the conversations with the servers, in the same order, such as a driver's mailboxes; default:
            a `Client` each.
    """

    def __init__(
        self,
        addresses: Sequence[ServerAddress],
        patience: float = 60.0,
        clients: Sequence[Client] | Sequence[Mailbox] | None = None,
    ) -> None:
        self._addresses = tuple(addresses)
        edges = list(accumulate((address.size for address in addresses), initial=0))
        self._buffer = np.empty(edges[-1], addresses[0].dtype)
        self._slices = [slice(*pair) for pair in pairwise(edges)]
        # A driver's requests need of a client only what a mailbox has too: call, close, end and successor.
        self._clients = cast("list[Client]", [*(clients or ())]) or [
            Client(address, patience=patience, buffer=self._buffer[part])
            for address, part in zip(addresses, self._slices, strict=True)
        ]
        self._since = [0] * len(addresses)
        self._calls = 0
        self._threads = ThreadPoolExecutor(len(addresses), "distkeras-servers")

    @property
    def clients(self) -> tuple[Client, ...]:
        """The client of each server."""
        return tuple(self._clients)

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """The addresses of the servers, in the order of their parts."""
        return self._addresses

    @property
    def traffic(self) -> Traffic:
        """What the connections to all servers have carried."""
        return Traffic.sum_of(client.traffic for client in self._clients)

    def receive_into(self, buffer: Vector) -> None:
        """Receive vectors in `buffer`, shape (size,), from the next call on."""
        self._buffer = buffer
        for client, part in zip(self._clients, self._slices, strict=True):
            client.receive_into(buffer[part])

    def call(self, request: Request) -> Any:
        """Send `request` to all servers that need it, in parallel, and return one reply.

        Raises:
            JobStopped, ServerLost, AuthenticationError: as for `Client.call`, from any server.
        """
        match request:
            case Exchange():
                return self._exchange(self._numbered(request))
            case Write():
                return self._write(self._numbered(request))
            case Join():
                return self._join(self._numbered(request))
            case Leave():
                replies = self._all([self._numbered(request)] * len(self._clients))
                return next((reply for reply in replies if isinstance(reply, Rejoin)), Done())
            case Pull():
                return self._pull(request)
            case Poll():
                return self._poll(request)
            case Fail() | Order() | Keep() | Report() | Fetch() | MayJoin():
                return self._clients[0].call(request)

    def _join(self, request: Join) -> Any:
        # The other servers know then whose requests they have to wait for.
        beat = Beat(request.worker, request.ticket)
        self._all([None, *[beat] * (len(self._clients) - 1)])
        while True:
            joined = self._all([replace(request, waits=False)] * len(self._clients))
            if (refused := next((each for each in joined if isinstance(each, Refused)), None)) is not None:
                return refused
            place = min(joined, key=lambda reply: reply.sequence)
            # Who is behind at a server repeats commits there, while the first server holds back the others.
            if not joined[0].held or place.sequence < joined[0].sequence:
                break
            self._clients[0].call(request)  # Under its number the others have had it, and wait for nothing.
            request = self._numbered(request)  # The center may be another one after the wait.
        center = self._whole([reply.center for reply in joined])
        return Joined(center, place.sequence, place.epoch, place.step, joined[0].orders)

    def _pull(self, request: Pull) -> Pulled | Refused:
        pulled: list[Any] = [None] * len(self._clients)
        if request.kept:  # The first server knows whether there is such a copy.
            pulled[0] = self._clients[0].call(request)
            if isinstance(pulled[0], Refused):
                return pulled[0]
        deadline = time.monotonic() + PART_SECONDS
        while not all(isinstance(reply, Pulled) for reply in pulled):
            missing = [None if isinstance(reply, Pulled) else request for reply in pulled]
            replies = self._all(missing)
            pulled = [old if new is None else new for old, new in zip(pulled, replies, strict=True)]
            refused = next((reply for reply in pulled if isinstance(reply, Refused)), None)
            if refused is not None:
                if not request.kept or time.monotonic() > deadline:
                    return refused
                time.sleep(0.01)  # The other servers make their parts a moment later.
        return Pulled(self._whole([reply.center for reply in pulled]), pulled[0].num_updates)

    def _write(self, request: Write) -> Done | Refused:
        if not is_finite(request.center):  # A part of it may be.
            return Refused("the center to write holds NaN or infinity")
        parts = [replace(request, center=request.center[..., elements]) for elements in self._slices]
        replies: list[Any] = [self._clients[0].call(parts[0])]
        if isinstance(replies[0], Done):  # It knows whether workers train.
            replies += self._all([None, *(replace(part, allowed=True) for part in parts[1:])])[1:]
        return next((reply for reply in replies if isinstance(reply, Refused)), Done())

    def _numbered(self, request: Numbered) -> Numbered:
        """Give `request` its number, larger than those of earlier requests and earlier processes."""
        started = request.ticket * CALLS if isinstance(request, Join) else 0
        self._calls = max(self._calls, started) + 1
        return replace(request, call=self._calls)

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        for client in self._clients:
            client.close()
        self._since = [0] * len(self._clients)  # A restarted server counts from the start.

    def successor(self) -> Client:
        """Return a client of the leading server for the same worker, to use in place of this group."""
        return self._clients[0].successor()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.end()
        self._threads.shutdown(wait=False)

    def _exchange(self, request: Exchange) -> Any:
        replies = self._all(self._encoded_parts(request))
        for reply in replies:
            if isinstance(reply, Refused | Rejoin):
                return reply  # Others may have no reply.
        centers = [_center_in(reply) for reply in replies]
        if all(center is None for center in centers):
            whole = self._whole([reply.reply for reply in replies])
            first = replies[0]
            return Exchanged(whole, first.staleness, orders=first.orders, held=first.held)
        # Some servers did not apply it and answered with the center: the worker restarts from it.
        missing = [Pull(request.worker) if center is None else None for center in centers]
        pulled = self._all(missing)
        center = self._whole(
            [pull.center if own is None else own for own, pull in zip(centers, pulled, strict=True)]
        )
        if isinstance(replies[0], Skipped):
            return Skipped(center, replies[0].reason, replies[0].orders)
        return Exchanged(center, 0, restart=True, orders=replies[0].orders)

    def _encoded_parts(self, request: Exchange) -> list[Exchange]:
        """Return each server's part; if the message is too large, parts that every server refuses."""
        parts = [
            replace(request, message=request.message[elements], states=b"" if index else request.states)
            for index, elements in enumerate(self._slices)
        ]
        self._encode(parts)
        if is_too_large(request.message):
            request.message.fill(np.nan)
            self._encode(parts)
        return parts

    def _encode(self, parts: Sequence[Exchange]) -> None:
        for client, part in zip(self._clients, parts, strict=True):
            client.encode(part)

    def _poll(self, request: Poll) -> Polled:
        self._since[0] = request.since
        replies: list[Polled] = self._all([Poll(since) for since in self._since])
        self._since = [reply.next for reply in replies]
        failures = [
            event
            for reply in replies[1:]
            for event in reply.events
            if isinstance(event, WorkerFailed | SnapshotFailed | RecordFailed | CenterFailed | ServerStatus)
        ]
        return replace(replies[0], events=[*replies[0].events, *failures])

    def _all(self, requests: Sequence[Request | None]) -> list[Any]:
        """Send each server its request, in parallel; return the replies, `None` where there was none.

        If a server asks the worker to join again, or refuses, those that have not answered yet are given up:
        they may wait for a round that is complete only when the worker has joined.
        """
        calls = {
            self._threads.submit(client.call, request): index
            for index, (client, request) in enumerate(zip(self._clients, requests, strict=True))
            if request is not None
        }
        replies: list[Any] = [None] * len(requests)
        under_way = set(calls)
        while under_way:
            # A failed call does not wait for the others, either.
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for call in done:
                replies[calls[call]] = call.result()
            if any(isinstance(replies[calls[call]], Rejoin | Refused) for call in done):
                break
        for call in under_way:
            self._give_up(calls[call], call)
        return replies

    def _give_up(self, index: int, call: Future[Any]) -> None:
        """End a call that is under way, and connect to its server anew at the next one."""
        client = self._clients[index]
        self._clients[index] = client.successor()
        client.end()
        wait([call], END_SECONDS)  # It may not write to the buffer any more.

    def _whole(self, parts: Sequence[Vector]) -> Vector:
        """Return the vector made of `parts`; those that arrived in place are not copied."""
        for part, place in zip(parts, self._slices, strict=True):
            own = self._buffer[place]
            if part.ctypes.data != own.ctypes.data:
                own[:] = part
        return self._buffer


def _center_in(reply: Exchanged | Skipped) -> Vector | None:
    """Return the center from a server that did not apply the message; `None` from one that did."""
    if isinstance(reply, Skipped):
        return reply.center
    return reply.reply if reply.restart else None


def connect(addresses: Sequence[ServerAddress], *, patience: float = 60.0) -> Client | Group:
    """Return a client of the center at `addresses`.

    Args:
        addresses: the servers, in the order of their parts.
        patience: as for `Client`.
    """
    if len(addresses) == 1:
        return Client(addresses[0], patience=patience)
    return Group(addresses, patience)
