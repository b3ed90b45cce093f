"""Resume a training whose driver has died, from its snapshots or its run, and say what has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.cluster.options import ServerOptions
from distkeras.record.entries import records_in
from distkeras.runs import Run
from distkeras.wire.lease import Holder
from distkeras.wire.redaction import hidden_in_errors, without_secrets
from distkeras.wire.store import Store

MAX_DIFFERENCES, MAX_SHOWN = 8, 120

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """What a resumed training does otherwise than the one before it.

    Attributes:
        said: each change in words, such as "num_epoch=5, which was 3".
        rates: whether a learning rate has changed.
        workers: whether the number of workers has changed.
    """

    said: tuple[str, ...] = ()
    rates: bool = False
    workers: bool = False


@dataclass(frozen=True)
class Interrupted:
    """A training that was interrupted.

    Attributes:
        settings: settings of the training.
        next: number of the event after its last snapshot.
        unread: number of events in that snapshot which its driver may not have read.
        samples: rows in the snapshot by its centers: one, or one for each member of an ensemble or fragment.
    """

    settings: Mapping[str, Any]
    next: int
    unread: int = 0
    samples: tuple[int, ...] = ()

    @property
    def first_unread(self) -> int:
        """Number of the first event that the driver may not have read."""
        return self.next - self.unread

    def check(self, settings: Mapping[str, Any], *, other_workers: bool = False) -> Changes:
        """Return what `settings` change: more epochs, learning rates, and the number of workers if allowed.

        Args:
            settings: the settings of the resumed training.
            other_workers: whether the number of workers may change.

        Raises:
            ValueError: another setting differs.
        """
        then, now = (json.loads(json.dumps(dict(each))) for each in (self.settings, settings))
        said: list[str] = []
        if now.get("num_epoch", 0) > then.get("num_epoch", 0):
            said += _differ("num_epoch", now["num_epoch"], then.pop("num_epoch", None))
        rates = list(_differ("", now.pop("rates", None), then.pop("rates", now.get("rates"))))
        said += [text.removeprefix(".") for text in rates]
        workers = list(
            _differ("num_workers", now.get("num_workers"), then.get("num_workers", now.get("num_workers")))
        )
        if workers and other_workers:
            said += workers
            # The fitted rule and its quorum follow the number; the rule as it was given is compared.
            for name in ("num_workers", "algorithm", "quorum"):
                then.pop(name, None)
        # Settings that an earlier version did not store cannot be compared.
        both = sorted({*then} & {*now})
        differences = [found for name in both for found in _differ(name, now[name], then[name])]
        if differences:
            named = "; ".join(differences[:MAX_DIFFERENCES])
            more = f"; and {len(differences) - MAX_DIFFERENCES} more" * (len(differences) > MAX_DIFFERENCES)
            raise ValueError(
                "A training can be resumed only with the same data and settings. You may change the "
                "number of epochs and the learning rates and, from a checkpoint of a run, the number of "
                "workers if the algorithm keeps no state on the server. For other changes, start a new "
                f"training with another address for snapshots. Received: {named}{more}"
            )
        return Changes(tuple(said), bool(rates), bool(workers))


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes:
        source: "start" for the given model, "snapshot" for the server's last snapshot, "checkpoint" for the
            run's last checkpoint, whose weights and optimizer a new job begins with.
        epochs: whole epochs before it, by member of an ensemble; one number otherwise.
        next: number of the first event to read from a server that continues from a snapshot; else `None`.
        changes: what is otherwise than before.
    """

    source: Literal["start", "snapshot", "checkpoint"] = "start"
    epochs: tuple[int, ...] = (0,)
    next: int | None = None
    changes: Changes = Changes()


def start_of(
    run: Run | None,
    interrupted: Interrupted | None,
    settings: Mapping[str, Any],
    algorithm: Algorithm,
    epoch_rows: Sequence[Sequence[int]],
) -> Start:
    """Return what a training begins with: the newest state that its settings allow.

    Args:
        run: the run, before `begin`; `None` for none.
        interrupted: what `find_interrupted` has found.
        settings: the settings of the training.
        algorithm: its rule.
        epoch_rows: for each member of an ensemble, or for the one model, the rows of its first epochs, after
            which they begin again.

    Raises:
        ValueError: the settings differ in something that may not change.
    """
    earlier, members = interrupted, len(epoch_rows)
    if earlier is None and run is not None and run.earlier is not None:
        earlier = Interrupted(run.earlier, 0)
    if earlier is None:
        return Start(epochs=(0,) * members)
    resumed = run is not None and run.resumed
    last = run.checkpoints().last if run is not None and resumed and members == 1 else None
    stateless = not algorithm.init_with(np.zeros(1, np.float32), 1)
    changes = earlier.check(settings, other_workers=last is not None and stateless)
    base = run.base if run is not None and resumed else 0
    if interrupted is not None and not changes.workers:
        rows = interrupted.samples if members > 1 else (sum(interrupted.samples),)
        next_event = interrupted.first_unread if resumed else interrupted.next
        epochs = (base + whole_epochs(*each) for each in zip(rows, epoch_rows, strict=True))
        return Start("snapshot", tuple(epochs), next_event, changes)
    if last is not None:
        return Start("checkpoint", (last + 1,), None, changes)
    return Start(epochs=(base,) * members, changes=changes)


def whole_epochs(samples: int, rows: Sequence[int]) -> int:
    """Return how many whole epochs are in `samples` rows of a center.

    Args:
        samples: the rows.
        rows: rows of the first epochs, after which they begin again.
    """
    rounds, rest = divmod(samples, sum(rows))
    return rounds * len(rows) + sum(end <= rest for end in accumulate(rows))


def _differ(name: str, now: Any, then: Any) -> Iterator[str]:
    """Yield each difference, with its path."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in sorted({*now, *then}):
            yield from _differ(f"{name}.{key}", now.get(key), then.get(key))
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for index, (mine, theirs) in enumerate(zip(now, then, strict=True)):
            yield from _differ(f"{name}[{index}]", mine, theirs)
    elif now != then or isinstance(now, bool) != isinstance(then, bool):  # 1 equals True.
        yield f"{name}={_short(now)}, which was {_short(then)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def find_interrupted(options: ServerOptions, resume: bool) -> Interrupted | None:
    """Return the training to resume; `None` if there is none, and a new one starts.

    A new training removes the snapshots of one that has finished.

    Raises:
        ValueError: `resume` has no address for snapshots; or the address holds snapshots of an unfinished
            training that is not to be resumed.
    """
    snapshots = options.snapshots
    if options.record is not None and not resume and (found := records_in(options.record)):
        raise ValueError(
            "Expected a folder for `record` without a record: each training needs its own. Resume that "
            f"training with train(..., resume=True), or pass another folder. Received: {found[0]}"
        )
    if snapshots is None or snapshots.address is None:
        if resume:
            raise ValueError(
                "Expected an address for snapshots to resume from: server=ServerOptions(snapshots="
                f"SnapshotOptions('/a/folder')). Received: resume=True, snapshots={snapshots!r}"
            )
        return None
    store = Store(snapshots.address, snapshots.keep, storage_options=snapshots.storage_options)
    shown = without_secrets(snapshots.address)
    with hidden_in_errors(snapshots.address, snapshots.storage_options):
        facts, holder = store.newest_facts(), store.holder()
    if resume:
        if holder is not None:
            logger.warning(
                "The snapshots at %s are taken over from %s, which did not end cleanly. If it still "
                "trains, it ends.",
                shown,
                holder,
            )
        return None if facts is None else _interrupted(facts)
    if holder is not None if facts is None else not facts["finished"]:
        raise ValueError(
            f"{shown} holds snapshots of a training that did not end{_by(holder)}. Resume it "
            "with train(..., resume=True), remove the folder, or use another address. Received: resume=False"
        )
    with hidden_in_errors(snapshots.address, snapshots.storage_options):
        store.clear()
    return None


def _interrupted(facts: Mapping[str, Any]) -> Interrupted:
    samples = tuple(sum(worker["samples"] for worker in member["workers"]) for member in facts["members"])
    return Interrupted(facts["settings"], facts["next"], len(facts["events"]), samples)


def _by(holder: Holder | None) -> str:
    return "" if holder is None else f", or that still runs: {holder}"
