"""The history of a training: one record per communication window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from distkeras.events import Window
from distkeras.lifecycle.result import counted, listed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Averaged:
    """The windows of one iteration, averaged over all workers that have reached it.

    Attributes:
        iteration: number of the window within its worker, 0-based.
        workers: number of workers that have this iteration.
        samples: total rows in these windows.
        metrics: mean of each metric over the workers, weighted by their rows; NaN stays NaN.
        staleness: mean staleness.
        timestamp: time of the last of these windows, in seconds since the Unix epoch.
    """

    iteration: int
    workers: int
    samples: int
    metrics: dict[str, float]
    staleness: float
    timestamp: float


MOST_WINDOWS = 100_000
"""Windows that a history keeps; the older ones are in the run directory, if there is one."""


class History(list[Window]):
    """The committed windows of a training, a list in the order in which the center applied them.

    It keeps the newest 100,000 windows at least, and the means of each epoch for ever.

    Attributes:
        epoch: the epochs of the center that have ended, in order, as in Keras's history.
        history: by name, a value for each epoch in which the logs had it: metrics over the rows of the epoch,
            those of the validation (`val_...`), and what callbacks have added, such as the learning rate.
        dropped: number of windows that were dropped.
        earlier: number of windows that workers made before they began anew at a checkpoint.
    """

    def __init__(self, windows: Iterable[Window] = (), most: int = MOST_WINDOWS) -> None:
        super().__init__(windows)
        self._most = most
        self.dropped = self.earlier = 0
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def __repr__(self) -> str:
        windows = counted(self.dropped + len(self), "window")
        last = {name: values[-1] for name, values in self.history.items() if values}
        if not last and len(self):
            last = self[-1].metrics
        return f"History({windows}, {counted(len(self.epoch), 'epoch')}{'; ' if last else ''}{listed(last)})"

    def append(self, window: Window) -> None:
        """Add a window; from time to time, drop the oldest ones that are too many."""
        super().append(window)
        if len(self) >= self._most + self._most // 10 + 1:
            self.dropped += len(self) - self._most
            del self[: len(self) - self._most]

    def add_epoch(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add the logs of an epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def roll_back(self, commits: list[int]) -> None:
        """Drop the windows that a restored server does not have: those of worker i from `commits[i]` on."""
        kept = max(0, self.earlier - self.dropped)
        self[kept:] = [window for window in self[kept:] if window.iteration < commits[window.worker]]

    def executor(self, worker: int) -> History:
        """Return the windows of one worker, in order."""
        return History(window for window in self if window.worker == worker)

    def averaged(self) -> list[Averaged]:
        """Return one record per iteration, averaged over all workers that have it."""
        groups: defaultdict[int, list[Window]] = defaultdict(list)
        for window in self:
            groups[window.iteration].append(window)
        return [_average(iteration, groups[iteration]) for iteration in sorted(groups)]

    def to_pandas(self) -> pd.DataFrame:
        """Return a table: one row per window, one column per field and metric; `time` in seconds from 0.

        The fields of `timing` are columns of their own.
        """
        import pandas as pd

        rows = []
        for window in self:
            row = asdict(window)
            metrics, timing = row.pop("metrics"), row.pop("timing")
            rows.append({**row, **({} if timing is None else timing._asdict()), **metrics})
        table = pd.DataFrame(rows)
        if len(table):
            table.insert(0, "time", table["timestamp"] - table["timestamp"].min())
        return table

    def plot(self, smooth: int = 10) -> Figure:
        """Return a picture of every metric against time, samples and bytes.

        The bold line is the mean of all workers, dots are the validation at the ends of epochs, and against
        time each of up to 12 workers has a thin line. `distkeras.compare` puts trainings side by side.

        Args:
            smooth: number of windows in the running mean of a worker's line.

        Raises:
            ImportError: Matplotlib is missing (`pip install 'distkeras[plot]'`).
        """
        from distkeras.plots.history import plot_history

        return plot_history(self, smooth)


def _average(iteration: int, windows: list[Window]) -> Averaged:
    samples = sum(window.samples for window in windows)
    names = dict.fromkeys(name for window in windows for name in window.metrics)
    metrics = {}
    for name in names:
        having = [window for window in windows if name in window.metrics]
        weight = sum(window.samples for window in having)
        metrics[name] = sum(window.metrics[name] * window.samples for window in having) / weight
    return Averaged(
        iteration=iteration,
        workers=len(windows),
        samples=samples,
        metrics=metrics,
        staleness=sum(window.staleness for window in windows) / len(windows),
        timestamp=max(window.timestamp for window in windows),
    )
