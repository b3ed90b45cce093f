"""Take and restore snapshots of a center: all members, the ledger and the events, at one moment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from distkeras.center.center import Center
from distkeras.center.independent import Independent
from distkeras.center.snapshot import Snapshot, SnapshotError
from distkeras.events import ServerRestored


def take_snapshot(center: Center | Independent, settings: Mapping[str, Any]) -> Snapshot:
    """Return a snapshot of `center`. Commits wait while it is copied to memory."""
    with contextlib.ExitStack() as stack:
        for member in center.members:
            stack.enter_context(member.paused())
        states = [member.state() for member in center.members]
        return Snapshot(states, center.event_log.unread(), settings)


def restore_snapshot(center: Center | Independent, snapshot: Snapshot, since: int = 0) -> None:
    """Bring a new `center` to the state of `snapshot`. Workers train again what came after it.

    Args:
        center: a center of the same job, before its first request.
        snapshot: taken from the center's predecessor.
        since: number of the predecessor's events that the driver has read.

    Raises:
        SnapshotError: the snapshot does not fit this job.
    """
    if len(snapshot.members) != len(center.members):
        raise SnapshotError(
            f"Expected a snapshot of {len(center.members)} centers. Received: {len(snapshot.members)}"
        )
    for member, state in zip(center.members, snapshot.members, strict=True):
        member.restore(state)
    workers = [worker for state in snapshot.members for worker in state.workers]
    center.event_log.restore(snapshot.unread, since)
    center.event_log.add(
        ServerRestored(
            commits=[worker["sequence"] for worker in workers],
            left=[bool(worker["left"]) for worker in workers],
            samples=sum(worker["samples"] for worker in workers),
            num_updates=snapshot.unread.num_updates,
            timestamp=center.event_log.clock(),
        )
    )
