"""The writer of a run directory: one driver's training, kept where another driver may go on with it.

run.json        format, settings, sessions: each driver that wrote here, with its machine and versions
model.keras     the model before the training: with it a snapshot opens as a model
events/         every event, in order, one a line: `[name, fields]`
rollups/        the same by second and by epoch
epochs/         one record an epoch: logs, and the state of callbacks and driver
checkpoints/    models as Keras saves them, and their index
snapshots/      the parameter servers' own
final.keras     the model that the training has returned
control/        what people ask of the driver while it trains
result.json     how the training ended; missing if it did not
lease-*.json    the driver that may write
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from distkeras.events import SnapshotWritten, Window
from distkeras.runs.check import not_writable
from distkeras.runs.checkpoints import Checkpoint, CheckpointFolder, CheckpointIndex
from distkeras.runs.control_files import ControlFiles, Request
from distkeras.runs.counted import Seen, counted_windows
from distkeras.runs.event_files import EventWriter, RequestTaken, RunResumed, Written, read_events
from distkeras.runs.facts import FACTS, MODEL, RESULT, SNAPSHOTS, VERSION, final_of, json_of, read_facts
from distkeras.runs.folder import Folder, RunError, find_filesystem, hiding
from distkeras.runs.mirror import SnapshotMirror, remote_snapshots
from distkeras.runs.notes import Notes
from distkeras.runs.options import RunOptions
from distkeras.runs.records import EpochRecord, EpochRecords
from distkeras.runs.rollup_reader import ROLLED_UP
from distkeras.runs.rollup_writer import RollupWriter
from distkeras.runs.settings import plain, this_process
from distkeras.wire.lease import Holder, Lease, find_holder
from distkeras.wire.store import SnapshotOptions

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


class Run:
    """A run directory to write to. One driver holds it at a time; its methods may be called by any thread.

    `open` takes the directory. Nothing of an earlier driver's changes before `begin`.

    Args:
        options: where the run is, and what it keeps.
        folder: the opened folder.
        facts: the contents of `run.json`, if there is a run.

    Attributes:
        id: name of this driver's part in the run.
        resumed: whether there is something to go on with.
        ended: whether that has ended.
        options: where the run is, and what it keeps.
        notes: what monitors keep in it.
        control: what people ask of the driver.
    """

    def __init__(self, options: RunOptions, folder: Folder, facts: dict[str, Any] | None) -> None:
        self.id = secrets.token_hex(4)
        self.resumed = facts is not None
        self.ended = facts is not None and folder.exists(RESULT)
        self.options, self._folder, self._facts = options, folder, facts or {}
        self.notes = Notes(folder)
        self.control = ControlFiles(folder)
        self._hide = hiding(options.address, options.storage_options)
        self._lease = Lease(folder.fs, folder.path, self.id)
        self._lease.take(0, 0)
        self._lock = threading.RLock()
        self._order = threading.Lock()  # So that events and rollups have one order; a checkpoint takes long.
        self._kept = 2
        self._records: dict[int | None, EpochRecords] = {}
        self._checkpoints: dict[int | None, CheckpointFolder] = {}
        self._events = EventWriter(folder, self._lease.check, self._hide)
        self._rollups = RollupWriter(folder, self._lease.check, self._hide)
        self._mirror: SnapshotMirror | None = None

    @classmethod
    def open(cls, run: RunOptions | str | os.PathLike[str], resume: bool | Literal["auto"] = False) -> Run:
        """Take a run directory, a new one or one to go on with.

        Args:
            run: its address or options.
            resume: False for a new run; True to go on with the run there; "auto" for what is there.

        Raises:
            ValueError: `resume` is False and the address holds a run; or it is True and there is none; or
                the address has no driver.
            RunError: a later release wrote the run.
            OSError: the folder cannot be written to.
        """
        if not isinstance(resume, bool) and resume != "auto":
            raise ValueError(f'`resume` must be True, False or "auto". Received: resume={resume!r}')
        options = run if isinstance(run, RunOptions) else RunOptions(os.fspath(run))
        folder = Folder(*find_filesystem(options.address, options.storage_options))
        shown_of = hiding(options.address, options.storage_options)
        shown = shown_of(options.address)
        facts, holder = read_facts(folder), find_holder(folder.fs, folder.path)
        if facts is None and resume is True:
            raise RunError(
                'Expected an existing run to resume; "auto" starts one if there is none. '
                f"Received: resume=True, {shown}"
            )
        if facts is not None and not resume:
            ended = (
                "a run that has ended" if folder.exists(RESULT) else f"a run that did not end{_by(holder)}"
            )
            raise RunError(
                f'{shown} holds {ended}. Resume it with resume="auto", or use another address. '
                "Received: resume=False"
            )
        if holder is not None:
            logger.warning("%s is taken over from %s. If it still trains, it ends.", shown, holder)
        try:
            folder.fs.makedirs(folder.path, exist_ok=True)
            return cls(options, folder, facts)
        except OSError as error:
            hides = shown_of(str(error)) != str(error)  # Secrets of the address.
            raise OSError(not_writable(options, error)) from (None if hides else error)

    def __repr__(self) -> str:
        return f"Run({self.address!r}{', resumed' if self.resumed else ''})"

    @property
    def address(self) -> str:
        """The address of the run, without secrets."""
        return self._hide(self.options.address)

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets of the address."""
        return self._hide(text)

    @property
    def earlier(self) -> Mapping[str, Any] | None:
        """The settings of the run to go on with; `None` for a new one."""
        return self._facts["settings"] if self.resumed else None

    @property
    def result(self) -> Mapping[str, Any] | None:
        """How the training ended; `None` if it has not."""
        return json_of(self._folder, RESULT)

    @property
    def snapshots(self) -> str:
        """Address of the snapshots, for readers."""
        return f"{self.options.address.rstrip('/')}/{SNAPSHOTS}"

    @property
    def base(self) -> int:
        """Epochs before the first row of the present center: it has begun there, anew or at a checkpoint."""
        own = [each["epochs"] for each in self._facts.get("sessions", ()) if each["source"] != "snapshot"]
        return int(own[-1]) if own else 0

    def begin(
        self,
        settings: Mapping[str, Any],
        *,
        facts: Mapping[str, Any] | None = None,
        model: keras.Model | None = None,
        epochs: int = 0,
        source: Literal["start", "snapshot", "checkpoint"] = "start",
    ) -> None:
        """Write what is known at the start, for people and for a driver that goes on.

        Args:
            settings: the settings that a resumed training compares, plain JSON.
            facts: anything else to know of the training; objects become dicts of their fields.
            model: the compiled model that is trained; kept from the first session on.
            epochs: whole epochs that the center has behind it.
            source: what a resumed training goes on from.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
        """
        self._lease.check()
        if source != "snapshot":
            self._remove_snapshots()  # They are of a center that no longer counts.
        session = {"id": self.id, "began": time.time(), "epochs": epochs, "source": source, **this_process()}
        session["facts"] = plain(facts or {}, self._hide)
        ended = json_of(self._folder, RESULT)
        sessions = [*self._facts.get("sessions", [])]
        if sessions and ended is not None:
            sessions[-1] = {**sessions[-1], "result": ended}
        self._facts = {
            "format": VERSION,
            "id": self._facts.get("id", self.id),
            "settings": dict(settings),
            "sessions": [*sessions, session],
            ROLLED_UP: True,
        }
        if model is not None and not self._folder.exists(MODEL):
            with self._folder.writing(MODEL) as path:
                model.save(path)
        self._folder.write(FACTS, json.dumps(self._facts, indent=1).encode())
        self._folder.remove(RESULT)
        for request in self.control.asked():
            self.control.remove(request)  # It was for an earlier driver.
        self._rollups.begin(self._facts["sessions"][0]["began"])
        if self.resumed:
            what = (0, "checkpoint") if source == "start" else (epochs, source)
            self._go_on(RunResumed(*what, time.time()))

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Add to the facts of this session what was not known at its beginning.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
        """
        with self._lock:
            self._lease.check()
            session = self._facts["sessions"][-1]
            session["facts"] = {**session["facts"], **plain(facts, self._hide)}
            self._folder.write(FACTS, json.dumps(self._facts, indent=1).encode())

    def _go_on(self, resumed: RunResumed) -> None:
        """Tell that this driver goes on with the run, after what earlier drivers have written."""
        self._rollups.catch_up(chain(read_events(self._folder), [resumed]))
        self._events.write(resumed)

    def roll_by(self, seconds: float) -> None:
        """Set the width of the first rollups, before the first event; one second by default."""
        self._rollups.roll_by(seconds)

    def _remove_snapshots(self) -> None:
        if self._mirror is not None:
            self._mirror.clear()
        for name in list(remote_snapshots(self._folder, SNAPSHOTS)):
            self._folder.remove(f"{SNAPSHOTS}/{name}")

    def snapshot_options(self, given: SnapshotOptions | None) -> SnapshotOptions | None:
        """Return the options of the server's snapshots: `given`, in the run unless they have an address."""
        if given is None or given.address is not None:
            return given
        self._kept = given.keep
        if not self._folder.is_shared:
            if self._mirror is None:
                self._mirror = SnapshotMirror(self._folder, SNAPSHOTS, self._lease.check)
            return replace(given, address=str(self._mirror.local))
        return replace(given, address=self.snapshots, storage_options=self.options.storage_options)

    def write(self, event: Written) -> None:
        """Write an event, now or, if the store refuses it, with a later one.

        Raises:
            Fenced: another driver has taken the run.
        """
        with self._order:
            self._events.write(event)
            self._rollups.write(event)
        if isinstance(event, SnapshotWritten):
            if self._mirror is not None:
                self._mirror.copy_soon()
            with self._lock:
                for records in self._records.values():
                    records.snapshot_written()

    def epoch(
        self,
        epoch: int,
        logs: Mapping[str, float],
        state: Any = None,
        *,
        samples: int = 0,
        member: int | None = None,
    ) -> None:
        """Write the record of an epoch, after all events so far.

        Args:
            epoch: the epoch, 0-based.
            logs: its logs.
            state: what a resumed training needs: numbers, texts, arrays, and lists and dicts of them.
            samples: rows of the center at its end.
            member: in an ensemble, the member.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
            TypeError: the state holds something else.
        """
        with self._lock:
            self._events.flush()
            self._lease.check()
            record = self._records_of(member).add(epoch, logs, state, samples)
            with self._order:
                self._rollups.close_epoch(record)

    def records(self, member: int | None = None) -> list[EpochRecord]:
        """Return the records of the epochs, in order."""
        with self._lock:
            return self._records_of(member).all

    def roll_back(self, epochs: int, member: int | None = None) -> EpochRecord | None:
        """Go on after `epochs` whole epochs: records and checkpoints of later ones do not count any more.

        Returns:
            The last record that is left, which may be of an earlier epoch than the last; `None` for none.
        """
        with self._lock:
            self._lease.check()
            self._checkpoints_of(member).roll_back(epochs)
            return self._records_of(member).roll_back(epochs)

    def checkpoint(
        self,
        epoch: int,
        logs: Mapping[str, Any],
        model: keras.Model,
        *,
        member: int | None = None,
        force: bool = False,
    ) -> str | None:
        """Save `model` if a checkpoint is due after `epoch`; return its address, or `None`.

        Args:
            epoch: the epoch, 0-based.
            logs: its logs, which say whether it is the best.
            model: the model, with its optimizer's state.
            member: in an ensemble, the member.
            force: save it even if none is due, as after the last epoch.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
            ValueError, TypeError: Keras cannot save the model.
        """
        with self._lock:
            self._lease.check()
            kept = self._checkpoints_of(member)
            if kept.add(epoch, logs, model, force=force) is None:
                return None
            entry = kept.index.entry(epoch)
            return None if entry is None else self.address_of(entry, member)

    def save_asked(self, model: keras.Model, member: int | None = None) -> str:
        """Save `model` as a checkpoint between epochs, which a person has requested; return its address.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
            ValueError, TypeError: Keras cannot save the model.
        """
        with self._lock:
            self._lease.check()
            kept = self._checkpoints_of(member)
            return f"{self.address.rstrip('/')}/{kept.name}/{kept.add_asked(model)}"

    def obeyed(self, request: Request, detail: str) -> None:
        """Remove a request, and write to the events what was done.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the request cannot be removed.
        """
        self.write(RequestTaken(request, self._hide(detail), time.time()))
        self.control.remove(request)

    def address_of(self, entry: Checkpoint, member: int | None = None) -> str:
        """Return the address of a checkpoint, without secrets."""
        return f"{self.address.rstrip('/')}/{self._checkpoints_of(member).name}/{entry.file}"

    def checkpoints(self, member: int | None = None) -> CheckpointIndex:
        """Return the checkpoints that exist."""
        with self._lock:
            return self._checkpoints_of(member).index

    def load_checkpoint(self, epoch: int, member: int | None = None, **options: Any) -> keras.Model:
        """Return the model of a checkpoint; `options` are those of `keras.saving.load_model`."""
        with self._lock:
            return self._checkpoints_of(member).load(epoch, **options)

    @property
    def has_final(self) -> bool:
        """Whether there is a model, or one of each member, that a training has returned."""
        return any(self._folder.exists(final_of(member)) for member in (None, 0))

    def load_final(self, member: int | None = None, **options: Any) -> keras.Model:
        """Return the model that the training has returned; `options` are those of `load_model` of Keras.

        Raises:
            FileNotFoundError: there is none, as in runs of earlier releases.
        """
        import keras

        with self._folder.reading(final_of(member)) as path:
            return keras.saving.load_model(path, **options)

    def events(self) -> Iterator[Written]:
        """Yield everything that was written, also what was rolled back."""
        with self._lock:
            self._events.flush()
        return read_events(self._folder)

    def windows(self, seen: Seen | None = None, until: int | None = None) -> Iterator[Window]:
        """Yield the windows that count: without those that a restored server or a resumed driver repeated.

        Args:
            seen: counts them, for those that follow.
            until: only those of so many epochs, at whose end workers are to begin anew.
        """
        if until is None:
            return counted_windows(self.events, seen)
        begin_anew = RunResumed(until, "checkpoint", 0.0)
        return counted_windows(lambda: chain(self.events(), [begin_anew]), seen)

    def finish(self, result: Mapping[str, Any], models: Sequence[keras.Model] = ()) -> None:
        """Write how the training ended.

        Args:
            result: the reason, epochs and whatever else is known; objects become dicts of their fields.
            models: the model that the training returns, or those of all members of an ensemble.
        """
        with self._lock:
            self._events.flush()
            self._lease.check()
            for member, model in enumerate(models):
                with self._folder.writing(final_of(member if len(models) > 1 else None)) as path:
                    model.save(path)
            self._folder.write(RESULT, json.dumps(plain(result, self._hide), indent=1).encode())

    def close(self) -> None:
        """Write what is left, and release the directory. Call it after the servers have ended."""
        with ExitStack() as stack:
            stack.callback(self._lease.release)
            if self._mirror is not None:
                stack.callback(self._mirror.close)
            stack.callback(self._rollups.close)
            stack.callback(self._events.close)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _records_of(self, member: int | None) -> EpochRecords:
        if member not in self._records:
            self._records[member] = EpochRecords(self._folder, member, self._kept)
        return self._records[member]

    def _checkpoints_of(self, member: int | None) -> CheckpointFolder:
        if member not in self._checkpoints:
            self._checkpoints[member] = CheckpointFolder(self._folder, self.options.checkpoints, member)
        return self._checkpoints[member]


def _by(holder: Holder | None) -> str:
    return "" if holder is None else f", or that still runs: {holder}"
