"""The checkpoints of a run: Keras's own files, and an index that says which is the best."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from distkeras.runs.direction import known_mode
from distkeras.runs.folder import Folder, RunError
from distkeras.runs.packing import to_text

if TYPE_CHECKING:
    import keras

VERSION = 1
FOLDER = "checkpoints"
INDEX = "index.json"
ASKED = "asked-"
"""In the names of checkpoints that a person has requested; the time in UTC follows."""


@dataclass(frozen=True)
class Checkpoints:
    """Which models of a run are kept, as files that Keras opens too.

    Attributes:
        keep: number of the newest checkpoints to keep. The best one is kept besides.
        monitor: the value in an epoch's logs that says which is the best. If the logs have no such value, it
            is "loss".
        mode: "min" if less of `monitor` is better, "max" if more is. With "auto", as in Keras's callbacks the
            compiled metric decides, else the name. A training refuses a name of which neither tells it.
        every: epochs between two checkpoints.

    Raises:
        ValueError: a number is not a positive integer, or `mode` is another one.
    """

    keep: int = 3
    monitor: str = "val_loss"
    mode: Literal["auto", "min", "max"] = "auto"
    every: int = 1

    def __post_init__(self) -> None:
        for name in ("keep", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f'`mode` must be "auto", "min" or "max". Received: mode={self.mode!r}')
        if not isinstance(self.monitor, str) or not self.monitor:
            raise ValueError(
                f"`monitor` must be the name of a value in the logs. Received: monitor={self.monitor!r}"
            )

    def for_metrics(self, metrics: Iterable[Any]) -> Checkpoints:
        """Return the same options with the mode that a model's compiled `metrics` give the monitored value.

        Raises:
            ValueError: `mode` is "auto", and neither a metric nor its name tells whether more is better.
        """
        if self.mode != "auto":
            return self
        to_say_it = f'Checkpoints(monitor={self.monitor!r}, mode="max"), or "min"'
        return replace(self, mode=known_mode(self.monitor, metrics, to_say_it))


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        epoch: the epoch after which it was taken, 0-based.
        file: name of its file.
        logs: logs of that epoch.
        timestamp: seconds since the Unix epoch.
    """

    epoch: int
    file: str
    logs: Mapping[str, float]
    timestamp: float


@dataclass(frozen=True)
class CheckpointIndex:
    """The checkpoints that exist, by epoch.

    Attributes:
        entries: the checkpoints.
        best: epoch of the best one, which may be older than all others; `None` if there is none.
        monitor: the value by which it is the best.
    """

    entries: tuple[Checkpoint, ...] = ()
    best: int | None = None
    monitor: str = ""

    @property
    def last(self) -> int | None:
        """Epoch of the newest checkpoint; `None` if there is none."""
        return self.entries[-1].epoch if self.entries else None

    def entry(self, epoch: int) -> Checkpoint | None:
        """Return the checkpoint of an epoch; `None` if there is none."""
        return next((entry for entry in self.entries if entry.epoch == epoch), None)


@dataclass
class CheckpointFolder:
    """The checkpoints of one model.

    Attributes:
        folder: the folder of the run.
        options: which are kept; `None` for a reader, and where there are none.
        member: in an ensemble, the member.
    """

    folder: Folder
    options: Checkpoints | None = None
    member: int | None = None
    index: CheckpointIndex = field(init=False)

    def __post_init__(self) -> None:
        if self.options is not None:
            self.options = self.options.for_metrics(())
        self.index = self._read()

    @property
    def name(self) -> str:
        """Name of the folder in the run."""
        return FOLDER if self.member is None else f"{FOLDER}/member-{self.member}"

    def add(
        self, epoch: int, logs: Mapping[str, Any], model: keras.Model, *, force: bool = False
    ) -> str | None:
        """Save `model` if a checkpoint is due after `epoch`, and return its path; else `None`.

        The index names a file only once it is complete, and a file is removed only once the index no longer
        names it.

        Args:
            epoch: the epoch, 0-based.
            logs: its logs.
            model: the model with its optimizer.
            force: save it even if none is due.
        """
        options = self.options
        if options is None or not (force or (epoch + 1) % options.every == 0):
            return None
        file = f"epoch-{epoch + 1:04d}.keras"  # As `ModelCheckpoint` counts.
        with self.folder.writing(f"{self.name}/{file}") as path:
            model.save(path)
        plain = {name: float(value) for name, value in logs.items()}
        others = [entry for entry in self.index.entries if entry.epoch < epoch]
        self._change((*others, Checkpoint(epoch, file, plain, time.time())), options)
        return self.folder.of(f"{self.name}/{file}")

    def add_asked(self, model: keras.Model) -> str:
        """Save `model` for a person who wants it now, and return the name of the file.

        It is not in the index, since no training goes on from the middle of an epoch; nothing removes it.
        """
        file = f"{ASKED}{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.keras"
        with self.folder.writing(f"{self.name}/{file}") as path:
            model.save(path)
        return file

    def asked(self) -> list[str]:
        """Return the names of the files that people have asked for, the newest last."""
        return [name for name in self.folder.names(self.name) if name.startswith(ASKED)]

    def roll_back(self, epochs: int) -> None:
        """Remove the checkpoints of all but the first `epochs` epochs."""
        kept = tuple(entry for entry in self.index.entries if entry.epoch < epochs)
        if kept != self.index.entries:
            self._change(kept, self.options or Checkpoints())

    def load(self, epoch: int, **options: Any) -> keras.Model:
        """Return the model of a checkpoint.

        Args:
            epoch: its epoch.
            **options: of `keras.saving.load_model`.

        Raises:
            RunError: there is no such checkpoint.
        """
        import keras

        entry = self.index.entry(epoch)
        if entry is None:
            have = [entry.epoch for entry in self.index.entries]
            raise RunError(f"Expected an epoch with a checkpoint: {have}. Received: epoch={epoch}")
        with self.folder.reading(f"{self.name}/{entry.file}") as path:
            return keras.saving.load_model(path, **options)

    def _change(self, entries: tuple[Checkpoint, ...], options: Checkpoints) -> None:
        """Write the index of `entries` without those that are not kept, and then remove their files."""
        monitor, best = _best(entries, options)
        kept = tuple(entry for entry in entries if entry in entries[-options.keep :] or entry.epoch == best)
        before, self.index = self.index, CheckpointIndex(kept, best, monitor)
        text = {"version": VERSION, "options": asdict(options), "best": best, "monitor": monitor}
        text["checkpoints"] = [
            asdict(entry) | {"logs": {name: to_text(value) for name, value in entry.logs.items()}}
            for entry in kept
        ]
        self.folder.write(f"{self.name}/{INDEX}", json.dumps(text, indent=1).encode())
        names = {entry.file for entry in kept}
        for entry in before.entries:
            if entry.file not in names:
                self.folder.remove(f"{self.name}/{entry.file}")

    def _read(self) -> CheckpointIndex:
        try:
            facts = json.loads(self.folder.read(f"{self.name}/{INDEX}"))
        except FileNotFoundError:
            return CheckpointIndex()
        if facts.get("version", 0) > VERSION:
            raise RunError(
                f"Expected an index of checkpoints of version {VERSION} or earlier. Received: version "
                f"{facts['version']}, of a later release of distkeras: use that release"
            )
        entries = tuple(
            Checkpoint(**entry | {"logs": {name: float(value) for name, value in entry["logs"].items()}})
            for entry in facts["checkpoints"]
        )
        return CheckpointIndex(entries, facts["best"], facts["monitor"])


def _best(entries: tuple[Checkpoint, ...], options: Checkpoints) -> tuple[str, int | None]:
    """Return the value that says which checkpoint is the best, and the epoch of that one."""
    for monitor in (options.monitor, "loss"):
        sign = 1 if monitor == options.monitor and options.mode == "max" else -1
        values = {entry.epoch: entry.logs.get(monitor, math.nan) for entry in entries}
        found = [(sign * value, -epoch) for epoch, value in values.items() if math.isfinite(value)]
        if found:
            return monitor, -max(found)[1]
    return options.monitor, None
