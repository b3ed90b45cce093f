"""TensorBoard: the curves of a training as event files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distkeras.events import ServerRestored
from distkeras.monitor.curves import Curves, Point
from distkeras.monitor.event_file import EventFile, parts
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts

MOST_WORKERS = 64
_OURS = re.compile(r"center|worker-\d+")


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
        if type(workers) is not int or workers < 0:
            raise ValueError(f"`workers` must be an integer from 0. Received: workers={workers!r}")
        parts()  # Here, before the training, where an error is seen.
        self._given = None if folder is None else Path(folder)
        self._most_workers = workers
        self._files: dict[str, EventFile] = {}

    def begin(self, training: TrainingFacts) -> None:
        """Open the file of the center, with the settings as a text."""
        self._curves, self._files = Curves(training), {}
        self._folder = self._given or _folder_of(training)
        training.notes.put("tensorboard", {"folder": str(self._folder)})
        # What an earlier session has drawn of the epochs that are trained again does not count. One that
        # goes on from a snapshot learns from the server how far it is.
        self._knows_place = training.source != "snapshot"
        if training.is_resumed and self._knows_place:
            self._drop()
        settings = json.dumps(training.settings, indent=1, default=str)
        code = "\n".join(f"    {line}" for line in settings.splitlines())  # As Markdown has it.
        self._file("center").text("settings", f"{training.title}\n\n{code}")
        self._flush()

    def take(self, events: Sequence[Shown]) -> None:
        """Draw the points that are complete."""
        for event in events:
            self._draw(self._curves.add(event))
            if isinstance(event, ServerRestored):
                self._knows_place = True
                self._drop()
        self._flush()

    def end(self, result: Mapping[str, Any]) -> None:
        """Draw what is left, and close the files."""
        self._draw(self._curves.flush())
        for file in self._files.values():
            file.close()
        self._files = {}

    def _draw(self, points: Iterable[Point]) -> None:
        for point in points:
            if self._knows_place and point.values and (point.worker or 0) < self._most_workers:
                name = "center" if point.worker is None else f"worker-{point.worker}"
                self._file(name).scalars(point.values, point.samples, point.timestamp)

    def _drop(self) -> None:
        """Let TensorBoard drop the points after the rows that the center has now."""
        for name in [path.name for path in self._folder.glob("*") if _OURS.fullmatch(path.name)]:
            worker = None if name == "center" else int(name.removeprefix("worker-"))
            self._file(name).drop(self._curves.samples(worker) + 1)

    def _file(self, name: str) -> EventFile:
        if name not in self._files:
            self._files[name] = EventFile(self._folder / name)
        return self._files[name]

    def _flush(self) -> None:
        for file in self._files.values():
            file.flush()


def _folder_of(training: TrainingFacts) -> Path:
    known = training.notes.get("tensorboard").get("folder")
    if known is not None:
        return Path(known)
    if training.run is not None and "://" not in training.run:
        return Path(training.run) / "tensorboard"
    return Path("tensorboard") / training.name
