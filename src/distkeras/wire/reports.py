"""Sends a worker's report in parts that fit into frames, and fetches one."""

from __future__ import annotations

from typing import Any, Protocol

from distkeras.center.answers import Done, Fetched, Refused, Rejoin
from distkeras.center.reports import parts_of
from distkeras.center.requests import MAX_PART, MAX_PARTS, Fetch, Kind, Report, Request


class Caller(Protocol):
    """A connection to the center, such as a `Client` or a `Group`."""

    def call(self, request: Request) -> Any:
        """Send `request` and return the reply."""


def send_report(client: Caller, worker: int, kind: Kind, tag: int, data: bytes) -> Done | Refused | Rejoin:
    """Send the report `data` of a worker; the first of several servers keeps it.

    Returns:
        `Done`; or a reply that the worker's next commit would get as well: `Rejoin` from a server that has
        restarted, or `Refused`.

    Args:
        client: the worker's connection.
        worker: its index.
        kind: "state" or "evaluation": see `Report`.
        tag: number of the commit that follows, or rows of the copy that was evaluated.
        data: the report; its parts have at most `MAX_PART` bytes.

    Raises:
        ValueError: the report is too large.
        JobStopped, ServerLost, AuthenticationError: as for `Client.call`.
    """
    if len(data) > MAX_PART * MAX_PARTS:
        raise ValueError(
            f"Expected a report of at most {MAX_PART * MAX_PARTS} bytes. Received: {len(data)} bytes"
        )
    parts = parts_of(data)
    for index, part in enumerate(parts):
        reply: Done | Refused | Rejoin = client.call(Report(worker, kind, tag, index, len(parts), part))
        if not isinstance(reply, Done):
            return reply
    return Done()


def fetch_report(client: Caller, worker: int, kind: Kind, tag: int) -> bytes | None:
    """Return the report of a worker; `None` if the center has none of this kind and tag, or no longer.

    Args:
        client: any connection to the center.
        worker: index of the worker that has reported.
        kind: as for `send_report`.
        tag: as for `send_report`.

    Raises:
        JobStopped, ServerLost, AuthenticationError: as for `Client.call`.
    """
    pieces: list[bytes] = []
    while True:
        fetched: Fetched = client.call(Fetch(worker, kind, tag, len(pieces)))
        if not fetched.parts:  # It was replaced by a newer one meanwhile, perhaps.
            return None
        pieces.append(fetched.data)
        if len(pieces) >= fetched.parts:
            return b"".join(pieces)
