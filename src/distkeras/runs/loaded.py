"""A run to read: finished, interrupted, or still written to by its driver."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from distkeras.events import Window
from distkeras.runs.checkpoints import CheckpointFolder, CheckpointIndex
from distkeras.runs.counted import counted_windows
from distkeras.runs.event_files import Written, read_events
from distkeras.runs.facts import MODEL, RESULT, SNAPSHOTS, final_of, json_of, read_facts
from distkeras.runs.folder import Folder, RunError, find_filesystem, hiding
from distkeras.runs.models import with_snapshot
from distkeras.runs.records import EpochRecord, read_records
from distkeras.runs.rollup import Rolled
from distkeras.runs.rollup_reader import read_rollups
from distkeras.wire.lease import find_holder

if TYPE_CHECKING:
    import keras


class LoadedRun:
    """A run directory to read. Nothing in it is changed, and its driver is not disturbed.

    Args:
        address: address of the run.
        storage_options: arguments of fsspec's driver.

    Attributes:
        address: the address, without secrets.
        facts: what its drivers have said: `settings`, and `sessions` with their machines and versions.

    Raises:
        RunError: there is no run, or one of a later release.
        ValueError: the address has no driver.
    """

    def __init__(self, address: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._given, self._storage_options = address, storage_options
        self.address = hiding(address, storage_options)(address)
        self._folder = Folder(*find_filesystem(address, storage_options))
        facts = read_facts(self._folder)
        if facts is None:
            raise RunError(f"Expected a run: a folder with run.json. Received: {self.address}")
        self.facts: Mapping[str, Any] = facts

    def __repr__(self) -> str:
        return f"LoadedRun({self.address!r}, {self.status}, epochs: {len(self.records())})"

    @property
    def status(self) -> Literal["finished", "running", "interrupted"]:
        """ "running" if a driver holds the run, or was killed while it did; else how it ended."""
        if self.result is not None:
            return "finished"
        return "interrupted" if find_holder(self._folder.fs, self._folder.path) is None else "running"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the training."""
        settings: Mapping[str, Any] = self.facts["settings"]
        return settings

    @property
    def result(self) -> Mapping[str, Any] | None:
        """How the training ended; `None` if it has not."""
        return json_of(self._folder, RESULT)

    def records(self, member: int | None = None) -> list[EpochRecord]:
        """Return the record of each epoch so far."""
        return read_records(self._folder, member)

    @property
    def history(self) -> dict[str, list[float | None]]:
        """The logs by name, one value an epoch, as `keras.callbacks.History` has them.

        An epoch without a value, such as one without validation, has `None`.
        """
        return self.history_of(None)

    def history_of(self, member: int | None) -> dict[str, list[float | None]]:
        """Return the logs of a member of an ensemble, as `history` has them."""
        records = self.records(member)
        names = dict.fromkeys(name for record in records for name in record.logs)
        return {name: [record.logs.get(name) for record in records] for name in names}

    def checkpoints(self, member: int | None = None) -> CheckpointIndex:
        """Return the checkpoints that exist."""
        return CheckpointFolder(self._folder, member=member).index

    def events(self) -> Iterator[Written]:
        """Yield all events in order, also those that were rolled back."""
        return read_events(self._folder)

    def windows(self) -> Iterator[Window]:
        """Yield the windows that count: without those that a restored server or a resumed driver repeated."""
        return counted_windows(self.events)

    def rollups(self) -> Iterator[Rolled]:
        """Yield the windows added up by second, the epochs, and every rare event, in order."""
        return read_rollups(self._folder)

    def model(
        self,
        which: int | Literal["best", "last", "asked", "final", "snapshot", "initial"] = "best",
        *,
        member: int | None = None,
        **options: Any,
    ) -> keras.Model:
        """Return a model of the run.

        Args:
            which: "best" or "last" for that checkpoint, or the epoch of one, 0-based; "asked" for the newest
                that a person has requested, such as by a button of the page; "final" for the model that the
                training has returned; "snapshot" for the center in the newest snapshot of the
                parameter server, with a new optimizer; "initial" for the model as it was given.
            member: in an ensemble, the member.
            **options: `custom_objects`, `compile` and `safe_mode`, as `keras.saving.load_model` takes them.

        Raises:
            RunError: the run has no such model.
        """
        if which == "final":
            if self.result is None:
                raise RunError(f"Expected a run that has ended. Received: which='final', {self!r}")
            return self._saved(final_of(member), options)
        if which in ("initial", "snapshot"):
            model = self._saved(MODEL, options)
            if which == "initial":
                return model
            address = f"{self._given.rstrip('/')}/{SNAPSHOTS}"
            return with_snapshot(model, address, member=member, storage_options=self._storage_options)
        folder = CheckpointFolder(self._folder, member=member)
        if which == "asked":
            asked = folder.asked()
            return self._saved(f"{folder.name}/{asked[-1] if asked else 'asked-*.keras'}", options)
        named: dict[Any, Any] = {"best": folder.index.best, "last": folder.index.last}
        epoch = named.get(which, which)
        if isinstance(epoch, bool) or not isinstance(epoch, int):
            raise RunError(
                'Expected "best", "last", "asked", "final", "snapshot", "initial" or the epoch of a '
                "checkpoint. "
                f"Received: which={which!r}; epochs with checkpoints: "
                f"{[entry.epoch for entry in folder.index.entries]}"
            )
        return folder.load(epoch, **options)

    def _saved(self, name: str, options: Mapping[str, Any]) -> keras.Model:
        import keras

        try:
            with self._folder.reading(name) as path, warnings.catch_warnings():
                # An optimizer that has not trained has no state in the file, and Keras warns of it.
                warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
                return keras.saving.load_model(path, **options)
        except FileNotFoundError:
            raise RunError(f"Expected the run's model, {name}. Received: none at {self.address}") from None


def load_run(
    address: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> LoadedRun:
    """Return the run at `address`, to read its history, events and models.

    Args:
        address: the folder that `train(..., run=address)` wrote.
        storage_options: arguments of fsspec's driver.

    Raises:
        RunError: there is no run, or one of a later release.
        ValueError: the address has no driver.
    """
    return LoadedRun(os.fspath(address), storage_options)
