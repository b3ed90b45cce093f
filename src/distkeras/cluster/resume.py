"""Resume a training whose driver has died, from its snapshots and with the same settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distkeras.cluster.options import ServerOptions
from distkeras.record.entries import records_in
from distkeras.wire.lease import Holder
from distkeras.wire.redaction import hidden_in_errors, without_secrets
from distkeras.wire.store import Store

MAX_DIFFERENCES, MAX_SHOWN = 8, 120

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interrupted:
    """A training that was interrupted.

    Attributes:
        settings: settings of the training.
        next: number of the event after its last snapshot.
    """

    settings: Mapping[str, Any]
    next: int

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError unless `settings` equal those of the training, except for more epochs."""
        then, now = (json.loads(json.dumps(dict(each))) for each in (self.settings, settings))
        if now.get("num_epoch", 0) > then.get("num_epoch", 0):
            then["num_epoch"] = now["num_epoch"]
        # Settings that an earlier version did not store cannot be compared.
        both = sorted({*then} & {*now})
        differences = [found for name in both for found in _differ(name, now[name], then[name])]
        if differences:
            named = "; ".join(differences[:MAX_DIFFERENCES])
            more = f"; and {len(differences) - MAX_DIFFERENCES} more" * (len(differences) > MAX_DIFFERENCES)
            raise ValueError(
                "A training can only be resumed with its own data and settings, except for more epochs "
                "and other learning rates. Otherwise start a new training, with another address "
                f"for snapshots. Received: {named}{more}"
            )


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
            f"training by train(..., resume=True), or give another folder. Received: {found[0]}"
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
        return None if facts is None else Interrupted(facts["settings"], facts["next"])
    if holder is not None if facts is None else not facts["finished"]:
        raise ValueError(
            f"{shown} holds snapshots of a training that did not end{_by(holder)}. Resume it "
            "by train(..., resume=True), remove the folder, or give another address. Received: resume=False"
        )
    with hidden_in_errors(snapshots.address, snapshots.storage_options):
        store.clear()
    return None


def _by(holder: Holder | None) -> str:
    return "" if holder is None else f", or that still runs: {holder}"
