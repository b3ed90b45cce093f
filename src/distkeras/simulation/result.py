"""The result of a simulation: the trajectory of the center, and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Algorithm, Vector

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Result:
    """The history of a center over n commits (a synchronous round is one commit), evaluated E times.

    With `evaluate_every=1`, E = n + 1, and row k of `centers` is the center after k commits. A diverged run
    ends at its last finite message: its n is smaller than `num_commits`. With evaluations at even times, the
    same version may be evaluated several times.

    Attributes:
        algorithm: the algorithm.
        num_workers: workers of the job.
        times: virtual seconds at which each version of the center was made, shape (n + 1,); the first is 0.
        samples: rows behind each version, shape (n + 1,).
        workers: the committing workers, shape (n,); -1 for a synchronous round. In an elastic training, the
            shares.
        staleness: staleness of each commit, shape (n,); for a round, of its oldest message.
        versions: the commits after which the center was evaluated, shape (E,).
        evaluated: virtual seconds of the evaluations, shape (E,).
        centers: the evaluated centers, shape (E, d); without `keep_centers` only the last, shape (1, d).
        losses: losses of the evaluated centers, shape (E,).
        metrics: other metrics of the evaluated centers, by name, each of shape (E,).
        bytes_sent: bytes of the messages that workers sent, duplicates included.
        bytes_received: bytes of the replies that workers received.
        num_crashes: windows lost because their worker failed.
        num_duplicates: duplicate commits, which were answered but not applied.
        num_restored: times that the server failed and restarted from a snapshot.
        num_stopped: times that the whole job, or all its workers together, failed.
        server_seconds: virtual seconds for which the server handled messages.
        waiting_seconds: virtual seconds for which messages waited for the server, all together.
        num_messages: messages that the server handled.
        diverged: whether the center refused a message for NaN or infinity, which ends the run.
    """

    algorithm: Algorithm
    num_workers: int
    times: Floats
    samples: Integers
    workers: Integers
    staleness: Integers
    versions: Integers
    evaluated: Floats
    centers: npt.NDArray[np.float32]
    losses: Floats
    metrics: dict[str, Floats]
    bytes_sent: int
    bytes_received: int
    num_crashes: int
    num_duplicates: int
    num_restored: int
    num_stopped: int
    server_seconds: float
    waiting_seconds: float
    num_messages: int
    diverged: bool

    def __repr__(self) -> str:
        losses = f"loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}" if self.losses.size else "no losses"
        return (
            f"Result({self.algorithm!r}, num_workers={self.num_workers}; {self.num_commits:,} commits in "
            f"{self.times[-1]:.4g} virtual seconds; {losses}{'; diverged' if self.diverged else ''})"
        )

    @property
    def utilisation(self) -> float:
        """Share of the time to the last commit for which the server handled messages; 0 without commits."""
        return self.server_seconds / self.times[-1] if self.times[-1] else 0.0

    @property
    def mean_wait(self) -> float:
        """Mean virtual seconds for which a message waited for the server."""
        return self.waiting_seconds / max(1, self.num_messages)

    @property
    def num_commits(self) -> int:
        """Number of commits applied to the center."""
        return self.workers.size

    @property
    def center(self) -> Vector:
        """The last center, shape (d,)."""
        last: Vector = self.centers[-1]
        return last

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per version: commit, time, samples, worker, staleness, loss and the other metrics.

        Version 0 has no worker and no staleness; versions that were not evaluated have no loss or metrics.
        """
        import pandas as pd

        commits = np.arange(1, self.num_commits + 1)
        frame = pd.DataFrame({"time": self.times, "samples": self.samples})
        frame["worker"] = pd.Series(self.workers, index=commits, dtype="Int64")
        frame["staleness"] = pd.Series(self.staleness, index=commits, dtype="Int64")
        for name, values in {"loss": self.losses, **self.metrics}.items():
            by_version = pd.Series(values, index=self.versions)
            frame[name] = by_version[~by_version.index.duplicated()]
        return frame.rename_axis("commit").reset_index()

    def plot(self) -> Any:
        """Return a Matplotlib figure: loss against virtual time and against samples, and the staleness."""
        from distkeras.plots.style import styled

        with styled():
            return self._drawn()

    def _drawn(self) -> Any:
        from distkeras.plots.style import COLORS, charts

        outcome = ", diverged" if self.diverged else ""
        title = f"{self.algorithm.name}, {self.num_workers} workers{outcome}"
        figure, [[by_time, by_samples, histogram]] = charts(1, 3, title)
        for axes, along, label in (
            (by_time, self.evaluated, "virtual time [s]"),
            (by_samples, self.samples[self.versions], "samples"),
        ):
            axes.plot(along, self.losses, color=COLORS[0])
            axes.set(xlabel=label, ylabel="loss")
            if np.all(self.losses > 0):
                axes.set_yscale("log")
        bins = np.arange(self.staleness.max(initial=0) + 2) - 0.5
        histogram.hist(self.staleness, bins=bins.tolist(), color=COLORS[0])
        histogram.set(xlabel="staleness", ylabel="commits")
        return figure
