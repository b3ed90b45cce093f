"""What workers report in parts: their local state, together with a commit, and results of evaluations."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from distkeras.center.answers import Fetched
from distkeras.center.requests import MAX_PART, MAX_PARTS, NEWEST, Fetch, Kind, Report


def parts_of(data: bytes) -> tuple[bytes, ...]:
    """Return `data` in parts that fit into frames; at least one."""
    return tuple(data[low : low + MAX_PART] for low in range(0, max(1, len(data)), MAX_PART))


class Whole(NamedTuple):
    """A report whose parts have all arrived.

    Attributes:
        tag: number of the commit, or of rows.
        parts: the parts.
    """

    tag: int
    parts: tuple[bytes, ...]

    @property
    def facts(self) -> tuple[int, int]:
        """Its tag and its size in bytes."""
        return self.tag, sum(map(len, self.parts))


@dataclass
class _Arriving:
    tag: int
    num_parts: int
    parts: list[bytes] = field(default_factory=list)

    def whole(self) -> Whole | None:
        return Whole(self.tag, tuple(self.parts)) if len(self.parts) == self.num_parts else None


class Reports:
    """The reports of all workers.

    A state counts from the commit on to which it belongs: until then the one before is kept beside it. A
    worker whose process ends in between so finds both its last commit and the state after it. Of evaluations
    the last one is kept.

    Attributes:
        arriving: reports that do not count yet, by worker and kind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.arriving: dict[tuple[int, Kind], _Arriving] = {}
        self._whole: dict[tuple[int, Kind], Whole] = {}

    def take(self, request: Report) -> Whole | None:
        """Add one part; return the evaluation that it completes, if it does.

        Raises:
            ValueError: no sender makes such a part, or parts before it are missing.
        """
        in_range = 0 <= request.part < request.parts <= MAX_PARTS and request.tag >= 0
        if not in_range or len(request.data) > MAX_PART:
            raise ValueError(
                f"Expected a part of at most {MAX_PART} bytes, of at most {MAX_PARTS} parts. Received: "
                f"part={request.part}, parts={request.parts}, tag={request.tag}, {len(request.data)} bytes"
            )
        place = request.worker, request.kind
        with self._lock:
            if request.part == 0:
                self.arriving[place] = _Arriving(request.tag, request.parts)
            coming = self.arriving.get(place)
            whole = self._whole.get(place)
            if coming is None and request.kind == "evaluation" and _repeats(whole, request):
                return None
            known = coming is not None and (coming.tag, coming.num_parts) == (request.tag, request.parts)
            if coming is None or not known or request.part > len(coming.parts):
                raise ValueError(f"Expected the parts of a report in order. Received: part={request.part}")
            coming.parts[request.part :] = [request.data]  # A part that is sent again replaces itself.
            if request.kind == "state" or (found := coming.whole()) is None:
                return None
            del self.arriving[place]
            self._whole[place] = found
            return found

    def applied(self, worker: int, sequence: int) -> Whole | None:
        """Let the state that was sent for commit `sequence` of `worker` count; return it, if there is one."""
        with self._lock:
            coming = self.arriving.get((worker, "state"))
            if coming is None or coming.tag > sequence:
                return None
            del self.arriving[worker, "state"]
            whole = coming.whole()
            if whole is None or whole.tag != sequence:  # Its process has ended, or its server restarted.
                return None
            self._whole[worker, "state"] = whole
            return whole

    def fetch(self, request: Fetch) -> Fetched:
        """Return one part of a report that is whole and, if it is a state, counts; else 0 parts."""
        with self._lock:
            whole = self._whole.get((request.worker, request.kind))
        if (
            whole is None
            or request.tag not in (whole.tag, NEWEST)
            or not 0 <= request.part < len(whole.parts)
        ):
            return Fetched(request.part, 0, b"")
        return Fetched(request.part, len(whole.parts), whole.parts[request.part])

    def states(self) -> dict[int, Whole]:
        """Return the states that count, by worker, for snapshots."""
        with self._lock:
            return {worker: whole for (worker, kind), whole in self._whole.items() if kind == "state"}

    def restore(self, states: Mapping[int, Whole]) -> None:
        """Continue with the `states` in a snapshot."""
        with self._lock:
            self._whole = {(worker, "state"): state for worker, state in states.items()}


def _repeats(whole: Whole | None, request: Report) -> bool:
    return whole is not None and (whole.tag, len(whole.parts)) == (request.tag, request.parts)
