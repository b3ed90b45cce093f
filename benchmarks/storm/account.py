"""What a run has come to: rows that count, and how long each fault held it up."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storm.run import Struck


@dataclass(frozen=True)
class History:
    """What the drivers of a run were told, and what its servers have counted.

    Attributes:
        windows: (time at which the center took it, worker), in the order of their times.
        counts: (time, rows at the first server, rows at the second), in the order of their times.
        kinds: events by their kind.
    """

    windows: tuple[tuple[float, int], ...]
    counts: tuple[tuple[float, ...], ...]
    kinds: dict[str, int]

    def first_windows(self) -> dict[int, float]:
        """Return when each worker had its first window."""
        first: dict[int, float] = {}
        for at, worker in self.windows:
            first.setdefault(worker, at)
        return first

    def rows_at(self, moment: float) -> float:
        """Return how many rows counted at `moment`, at that server which had fewer.

        Of the counts before and after, the smaller: a server that was down goes back to its last snapshot.

        Raises:
            ValueError: nothing was counted before, or after.
        """
        before = [min(rows) for at, *rows in self.counts if at <= moment]
        after = [min(rows) for at, *rows in self.counts if at > moment]
        if not before or not after:
            raise ValueError(
                f"Expected counts before and after {moment}. Received: {len(self.counts)} counts"
            )
        return min(before[-1], after[0])

    def recovery(self, fault: Struck, num_workers: int) -> float | None:
        """Return the seconds from a fault to the next window of what it hit; `None`: there is none to tell.

        For a fault of the driver, that is the last worker's next window. A server has recovered when it has
        counted what it had before, and more: what it has lost is trained again. A worker that is hit
        before it has trained again has not recovered from the fault before: that one's time counts, not this
        one's.
        """
        if fault.missed:
            return None
        if fault.fault.kind == "kill server":
            had = max((min(rows) for at, *rows in self.counts if at <= fault.at), default=0.0)
            again = next((at for at, *rows in self.counts if at > fault.at and min(rows) > had), None)
            return None if again is None else again - fault.at
        hit: Sequence[int | None] = (
            range(num_workers) if fault.fault.kind in ("kill driver", "delay", "cut") else [fault.worker]
        )
        over = fault.at + fault.fault.lasts
        times = [
            next((at for at, worker in self.windows if worker == one and at > over), None) for one in hit
        ]
        found = [at for at in times if at is not None]
        return max(found) - fault.at if len(found) == len(times) else None


class Traces:
    """The files that the drivers of a run append to.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> History:
        """Return what has been written until now."""
        events = list(_lines(self._folder / "events.jsonl"))
        kinds: dict[str, int] = defaultdict(int)
        for event in events:
            kinds[event["kind"]] += 1
        windows = sorted((e["timestamp"], e["worker"]) for e in events if e["kind"] == "Window")
        counts = sorted(tuple(record) for record in _lines(self._folder / "counts.jsonl"))
        return History(tuple(windows), tuple(counts), dict(kinds))


def _lines(path: Path) -> Iterable[Any]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # Whoever wrote it was killed over it.


def rate_between(history: History, start: float, end: float) -> float:
    """Return the rows a second that counted between two moments."""
    return (history.rows_at(end) - history.rows_at(start)) / (end - start)


def summary(seconds: Iterable[float]) -> dict[str, float]:
    """Return number, median and maximum of some times."""
    times = sorted(seconds)
    if not times:
        return {"count": 0}
    return {"count": len(times), "median": round(statistics.median(times), 2), "longest": round(times[-1], 2)}
