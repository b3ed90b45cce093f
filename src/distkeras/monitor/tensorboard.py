"""TensorBoard: event files of a training, written by tensorboardX."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distkeras.events import ServerRestored
from distkeras.monitor.curves import Curves, Point
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

MOST_WORKERS = 64
_number = count()


class TensorBoard(Monitor):
    """Writes TensorBoard's event files: a folder `center`, and one for each worker.

    The step is the number of rows of the center, so that runs with other batch sizes compare. There is at
    most one point a second of each worker. When a restarted server takes windows back, TensorBoard drops
    their points. A resumed training goes on in the same folder.

    Args:
        folder: a local folder. Default: `tensorboard` in the run directory if that is on a local disk, else
            `./tensorboard/` and the run's name.
        workers: most workers that get a folder. TensorBoard gets slow with hundreds of them.

    Raises:
        ImportError: tensorboardX is not installed.
        ValueError: `workers` is negative.

    Example:
        ```python
        trainer.train(df, run="runs/mnist-7", monitor="tensorboard")  # tensorboard --logdir runs
        ```
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, workers: int = MOST_WORKERS) -> None:
        if find_spec("tensorboardX") is None:
            raise ImportError(
                "TensorBoard's files are written by tensorboardX: pip install 'distkeras[tensorboard]'"
            )
        if type(workers) is not int or workers < 0:
            raise ValueError(f"`workers` must be an integer from 0. Received: workers={workers!r}")
        self._given = None if folder is None else Path(folder)
        self._most_workers = workers
        self._files: dict[str, EventsWriter] = {}

    def begin(self, training: TrainingFacts) -> None:
        """Open the file of the center, with the settings as a text."""
        from tensorboardX.summary import text

        self._curves, self._files = Curves(training), {}
        self._purged: int | None = None
        self._folder = self._given or self._folder_of(training)
        training.notes.put("tensorboard", {"folder": str(self._folder)})
        # What an earlier session has drawn of the epochs that are trained again does not count. One that
        # goes on from a snapshot learns from the server how far it is.
        self._knows_place = training.source != "snapshot"
        if training.is_resumed and self._knows_place:
            self._purge()
        settings = json.dumps(training.settings, indent=1, default=str)
        code = "\n".join(f"    {line}" for line in settings.splitlines())  # As Markdown has it.
        self._add("center", text("settings", f"{training.title}\n\n{code}"), 0, time.time())
        self._flush()

    def take(self, events: Sequence[Shown]) -> None:
        """Draw the points that are complete."""
        for event in events:
            self._draw(self._curves.add(event))
            if isinstance(event, ServerRestored):
                self._knows_place = True
                self._purge()
        self._flush()

    def end(self, result: Mapping[str, Any]) -> None:
        """Draw what is left, and close the files."""
        self._draw(self._curves.flush())
        for file in self._files.values():
            file.close()
        self._files = {}

    def _folder_of(self, training: TrainingFacts) -> Path:
        known = training.notes.get("tensorboard").get("folder")
        if known is not None:
            return Path(known)
        if training.run is not None and "://" not in training.run:
            return Path(training.run) / "tensorboard"
        return Path("tensorboard") / training.name

    def _draw(self, points: Any) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        for point in points:
            if self._knows_place and point.values and (point.worker or 0) < self._most_workers:
                values = [Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
                self._add(_name_of(point), Summary(value=values), point.samples, point.timestamp)

    def _add(self, name: str, summary: Any, step: int, timestamp: float) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file(name).write_event(Event(summary=summary, step=step, wall_time=timestamp))

    def _purge(self) -> None:
        """Let TensorBoard drop the points after the rows that the center has now."""
        self._purged = self._curves.samples + 1
        for name in [path.name for path in self._folder.glob("*") if path.is_dir()]:
            if name not in self._files:
                self._file(name)
            else:
                self._begin_again(self._files[name])

    def _file(self, name: str) -> EventsWriter:
        from tensorboardX.event_file_writer import EventsWriter

        if name not in self._files:
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads files in the order of their names, which have the time in seconds.
            self._files[name] = EventsWriter(str(folder / "events"), f".{os.getpid()}.{next(_number):06d}")
            if self._purged is not None:
                self._begin_again(self._files[name])
        return self._files[name]

    def _begin_again(self, file: EventsWriter) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        file.write_event(
            Event(step=self._purged, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        )

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()


def _name_of(point: Point) -> str:
    return "center" if point.worker is None else f"worker-{point.worker}"
