"""Sends a worker's report in parts that fit into frames, and fetches one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkeras.center.messages import MAX_PART, MAX_PARTS, Fetch, Fetched, Kind, Report

if TYPE_CHECKING:
    from distkeras.wire.client import Client
    from distkeras.wire.group import Group


def send_report(client: Client | Group, worker: int, kind: Kind, tag: int, data: bytes) -> None:
    """Send the report `data` of a worker; the first of several servers keeps it.

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
    parts = max(1, -(-len(data) // MAX_PART))
    if parts > MAX_PARTS:
        raise ValueError(
            f"Expected a report of at most {MAX_PART * MAX_PARTS} bytes. Received: {len(data)} bytes"
        )
    view = memoryview(data)
    for part in range(parts):
        piece = bytes(view[part * MAX_PART : (part + 1) * MAX_PART])
        client.call(Report(worker, kind, tag, part, parts, piece))


def fetch_report(client: Client | Group, worker: int, kind: Kind, tag: int) -> bytes | None:
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
