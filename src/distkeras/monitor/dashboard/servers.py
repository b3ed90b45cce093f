"""The parameter servers of a run as its page shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distkeras.events import ServerStatus, SnapshotWritten
    from distkeras.monitor.dashboard.buckets import Buckets

LEVELS = ("memory", "connections", "apply_p50", "apply_p99", "center_norm", "message_norm")
RATES = {"cpu": "cpu", "exchanges": "exchanges", "bytes_out": "bytes_out", "bytes_in": "bytes_in"}
"""Columns that are differences of totals, by the name of the total."""


class Servers:
    """The servers, by index, and what each has said last."""

    def __init__(self) -> None:
        self._newest: dict[int, ServerStatus] = {}
        self._snapshots: dict[str, Any] = {"count": 0}

    def take(self, status: ServerStatus, buckets: Buckets, index: int) -> None:
        """Put what a server says into bucket `index`."""
        number, before = status.server, self._newest.get(status.server)
        for name in LEVELS:
            value = float(getattr(status, name))
            if math.isfinite(value):
                buckets.put(index, f"server {number} {name}", value)
        seconds = 0.0 if before is None else status.timestamp - before.timestamp
        for name, total in RATES.items():
            more = 0.0 if before is None else getattr(status, total) - getattr(before, total)
            if seconds > 0 and more >= 0:  # The totals of a restarted server begin at zero.
                buckets.put(index, f"server {number} {name}", more / seconds)
        self._newest[number] = status

    def wrote(self, snapshot: SnapshotWritten, time: float) -> None:
        """Note a snapshot."""
        size = {"bytes": snapshot.num_bytes, "seconds": snapshot.seconds}
        self._snapshots = {"count": self._snapshots["count"] + 1, "t": time, **size}

    def columns(self, buckets: Buckets, since: int) -> dict[str, dict[str, list[float | None]]]:
        """Return the columns by name and server."""
        found = {}
        for name in (*LEVELS, *RATES):
            each = {
                str(number): buckets.states(f"server {number} {name}", since).tolist()
                for number in sorted(self._newest)
            }
            found[name] = {
                number: [None if math.isnan(value) else float(f"{value:.6g}") for value in values]
                for number, values in each.items()
            }
        return found

    def facts(self) -> dict[str, Any]:
        """Return the newest word of each server, and of their snapshots."""
        newest = [
            {name: _finite(getattr(self._newest[number], name)) for name in ("server", "exchanges", *LEVELS)}
            for number in sorted(self._newest)
        ]
        return {"newest": newest, "snapshots": self._snapshots}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
