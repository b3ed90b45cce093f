"""Take and restore snapshots of a center: all members, the ledger and the events, at one moment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from distkeras.center.making import AnyCenter
from distkeras.center.regional import Regional
from distkeras.center.snapshot import Snapshot, SnapshotError
from distkeras.events import ServerRestored


def take_snapshot(center: AnyCenter, settings: Mapping[str, Any]) -> Snapshot:
    """Return a snapshot of `center`. Commits wait while it is copied to memory."""
    with contextlib.ExitStack() as stack:
        for member in center.members:
            stack.enter_context(member.paused())
        states = [member.state() for member in center.members]
        above = center.state_above() if isinstance(center, Regional) else None
        return Snapshot(states, center.event_log.unread(), settings, above)


def restore_snapshot(center: AnyCenter, snapshot: Snapshot, since: int = 0) -> None:
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
    if isinstance(center, Regional):
        center.restore_above(snapshot.above)
    workers = _ledger(center, snapshot)
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
    # The driver may have died before it had decided about them.
    known, lasts = center.event_log.unread().events, [member.last_epoch for member in center.members]
    if isinstance(center, Regional):  # Its members share one count.
        lasts = lasts[:1]
    center.event_log.add(*(last for last in lasts if last is not None and last not in known))


def _ledger(center: AnyCenter, snapshot: Snapshot) -> list[dict[str, int]]:
    """Return the record of each worker, over all members: a worker commits to each fragment."""
    found: dict[int, dict[str, int]] = {}
    for member, state in zip(center.members, snapshot.members, strict=True):
        for worker, record in zip(member.workers, state.workers, strict=True):
            before = found.get(worker, {"sequence": 0, "left": 1, "samples": 0})
            found[worker] = {
                "sequence": max(before["sequence"], record["sequence"]),
                "left": before["left"] and record["left"],
                "samples": before["samples"] + record["samples"],
            }
    return [found[worker] for worker in sorted(found)]
