"""The state of a center as arrays and plain numbers, and its file format. It contains no code and no pickle.

A snapshot is a NumPy `.npz` archive: `facts`, a JSON text, one array per center, and one array per array of
the algorithm's state. The archive's end is written last and every array has a CRC-32, so truncated or changed
files are detected.
"""

from __future__ import annotations

import base64
import contextlib
import json
import typing
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from distkeras import events
from distkeras.algorithms import State, Vector
from distkeras.center.answers import Polled
from distkeras.center.orders import Orders, after_resume
from distkeras.center.reports import Whole, parts_of

VERSION = 2
"""Version of the format, raised when older releases cannot read it. Releases read all older versions."""
ABOVE = "above"
"""Takes the place of a member's index in the names of the global center's arrays."""
REPORT = "report"
"""Takes the place of a shard's index in the names of the workers' states."""
_EVENTS = {cls.__name__: cls for cls in typing.get_args(events.Event)}


class SnapshotError(ValueError):
    """The file is not a complete snapshot, or the snapshot does not fit this job."""


@dataclass(frozen=True)
class CenterState:
    """One center with its ledger, between two commits.

    Attributes:
        center: a copy, shape (size,).
        states: copies of the algorithm's state, one per shard.
        counts: counts of the decisions so far, plain JSON.
        workers: the ledger: one record per worker, plain JSON.
        orders: the driver's orders in force; `None` for no orders.
        epochs: counts of the epochs, plain JSON; `None` for none.
        reports: the local states that workers have sent, by worker.
    """

    center: Vector
    states: list[State]
    counts: dict[str, Any]
    workers: list[dict[str, Any]]
    orders: Orders | None = None
    epochs: dict[str, Any] | None = None
    reports: dict[int, Whole] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every worker has committed its last window."""
        return all(worker["left"] for worker in self.workers)


@dataclass(frozen=True)
class Snapshot:
    """Everything that a server needs to continue after a crash of its process or machine.

    Attributes:
        members: the center; in an ensemble, one per member.
        unread: the events that the driver may not have read, and the number of updates.
        settings: the job's settings, plain JSON: only a job with the same settings may continue.
        above: the global center, whose workers are the members; `None` for one level of servers.
    """

    members: list[CenterState]
    unread: Polled
    settings: Mapping[str, Any]
    above: CenterState | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the arrays, in bytes."""
        centers = [center for _, center in self._centers()]
        states = (state for center in centers for state in center.states)
        arrays = [np.asarray(value) for state in states for value in state.values()]
        reports = sum(report.facts[1] for center in centers for report in center.reports.values())
        return reports + sum(array.nbytes for array in (*arrays, *(each.center for each in centers)))

    def resumed(self) -> Snapshot:
        """Return what a new training of another driver continues from: without an old order to stop."""
        members = [
            member if member.orders is None else replace(member, orders=after_resume(member.orders))
            for member in self.members
        ]
        return replace(self, members=members)

    def write(self, file: IO[bytes]) -> None:
        """Write to `file`, which need not be seekable, without another copy of the arrays.

        Raises:
            TypeError: the algorithm's state holds something other than numbers.
        """
        arrays: dict[str, Any] = {}
        for owner, center in self._centers():
            arrays[f"{owner}/center"] = center.center
            for shard, state in enumerate(center.states):
                for name, value in state.items():
                    arrays[f"{owner}/{shard}/{name}"] = _checked(name, value)
            for worker, report in center.reports.items():
                arrays[f"{owner}/{REPORT}/{worker}"] = np.frombuffer(b"".join(report.parts), np.uint8)
        facts = {
            "version": VERSION,
            "finished": all(member.finished for member in self.members),
            "settings": dict(self.settings),
            "num_updates": self.unread.num_updates,
            "next": self.unread.next,
            "events": [[type(event).__name__, _plain(event)] for event in self.unread.events],
            "members": [_facts_of(member) for member in self.members],
        }
        if self.above is not None:
            facts[ABOVE] = _facts_of(self.above)
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        np.savez(file, **arrays)

    def _centers(self) -> list[tuple[str, CenterState]]:
        """Return all centers, by the first part of the names of their arrays."""
        members = [(str(index), member) for index, member in enumerate(self.members)]
        return members if self.above is None else [*members, (ABOVE, self.above)]


def read_facts(file: IO[bytes]) -> dict[str, Any]:
    """Return only the facts of a snapshot: `settings`, `finished`, `num_updates` and the ledger.

    Raises:
        SnapshotError: `file` is not a complete snapshot.
    """
    with _opened(file) as archive:
        return _facts(archive)


def read(file: IO[bytes]) -> Snapshot:
    """Return the snapshot in `file`.

    Raises:
        SnapshotError: `file` is not a complete snapshot.
    """
    with _opened(file) as archive:
        facts = _facts(archive)
        known = {str(index): each for index, each in enumerate(facts["members"])}
        count = len(known)
        if ABOVE in facts:
            known[ABOVE] = facts[ABOVE]
        _check_names(archive.files, known)
        members = [_center(archive, str(index), known[str(index)]) for index in range(count)]
        above = _center(archive, ABOVE, known[ABOVE]) if ABOVE in known else None
        unread = [_event(name, fields) for name, fields in facts["events"]]
        polled = Polled(unread, facts["next"], facts["num_updates"])
        return Snapshot(members, polled, facts["settings"], above)


@contextlib.contextmanager
def _opened(file: IO[bytes]) -> Iterator[Any]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            yield archive
    except SnapshotError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, TypeError, AttributeError),
        RuntimeError,  # A changed byte can ask for decryption or an unknown compression.
    ) as error:
        raise SnapshotError(f"Expected a whole snapshot. Received: {error!r}") from error


def _facts(archive: Any) -> dict[str, Any]:
    facts = json.loads(archive["facts"].tobytes())
    version = facts.get("version") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise SnapshotError(
            f"Expected a snapshot of format {VERSION} or earlier, which this release of distkeras reads. "
            f"Received: format {version}, of a later release. Upgrade distkeras to resume that training, "
            "or train from the start with another address for snapshots."
        )
    if version == 1:
        facts["members"] = [_upgraded(member) for member in facts["members"]]
    elif version != VERSION:
        raise SnapshotError(f"Expected a snapshot of version {VERSION}. Received: {str(facts)[:100]}")
    known: dict[str, Any] = facts
    return known


def _upgraded(member: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a center in version 1, which counted updates by shard and knew no buffered ones."""
    versions = member["versions"]
    samples = sum(worker["samples"] for worker in member["lines"])
    counts = {"commits": max(versions), "updates": max(versions), "buffered": 0, "samples": samples}
    return {"shards": len(versions), "counts": counts, "workers": member["lines"]}


def _facts_of(center: CenterState) -> dict[str, Any]:
    """Return all of a center but its arrays, as plain JSON."""
    return {
        "shards": len(center.states),
        "counts": center.counts,
        "workers": center.workers,
        "orders": center.orders,
        "epochs": center.epochs,
        "reports": {worker: report.tag for worker, report in center.reports.items()},
    }


def _center(archive: Any, name: str, known: dict[str, Any]) -> CenterState:
    states: list[State] = [{} for _ in range(known["shards"])]
    reports: dict[int, Whole] = {}
    for key in archive.files:
        owner, _, rest = key.partition("/")
        shard, _, array = rest.partition("/")
        if owner == name and shard == REPORT:
            reports[int(array)] = Whole(known["reports"][array], parts_of(archive[key].tobytes()))
        elif owner == name and array:
            states[int(shard)][array] = archive[key]
    orders = known.get("orders")
    return CenterState(
        archive[f"{name}/center"],
        states,
        known["counts"],
        known["workers"],
        None if orders is None else Orders(*orders),
        known.get("epochs"),
        reports,
    )


def _check_names(names: list[str], centers: Mapping[str, dict[str, Any]]) -> None:
    """Raise SnapshotError for an array of no center: the archive has no checksum of its names."""
    for name in names:
        owner, _, rest = name.partition("/")
        shard, _, array = rest.partition("/")
        known = centers.get(owner)
        if name != "facts" and not (known and (rest == "center" or _is_array(known, shard, array))):
            raise SnapshotError(f"Expected arrays of {len(centers)} centers. Received: {name[:100]!r}")


def _is_array(member: dict[str, Any], shard: str, name: str) -> bool:
    """Return whether a member has an array of this name, of one of its shards or of a report."""
    if shard == REPORT:
        return name in member.get("reports", {})
    return bool(name) and shard in map(str, range(member["shards"]))


def _plain(event: events.Event) -> dict[str, Any]:
    """Return the fields of `event` as plain JSON."""
    fields = asdict(event)
    if isinstance(event, events.EpochEnded):
        fields["states"] = base64.b64encode(event.states).decode()
    return fields


def _event(name: str, fields: dict[str, Any]) -> events.Event:
    cls: Any = _EVENTS[name]
    if cls is events.EpochEnded:
        fields = fields | {"states": base64.b64decode(fields["states"])}
    if (timing := fields.get("timing")) is not None:
        fields = fields | {"timing": events.Timing(*timing)}
    if (about := fields.get("about")) is not None:
        fields = fields | {"about": events.WorkerAbout(**about)}
    event: events.Event = cls(**fields)
    return event


def _checked(name: str, value: object) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(
            f"Expected arrays of numbers in the algorithm's state, so that a snapshot can hold them. "
            f"Received: {name}={value!r}"
        )
    return array
