"""Settings of a center, in one record that the trainer sends to the server."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from distkeras.algorithms import Algorithm
from distkeras.center.bad_updates import RAISE, BadUpdates
from distkeras.center.elastic import Elastic, check_elastic
from distkeras.center.fragments import Fragments
from distkeras.center.layout import tensors_in, trainable_in
from distkeras.center.region_servers import RegionServers


@dataclass(frozen=True)
class CenterConfig:
    """All settings that decide how messages change a center.

    Attributes:
        algorithm: the algorithm, fitted to the number of workers.
        num_workers: workers of the job, numbered from 0.
        num_trainable: leading elements that the algorithm updates; the rest are averaged. `None` for all.
        quorum: messages that complete a synchronous round; `None` for one from every live worker. A message
            that arrives after its round counts in the next one.
        grace: seconds for which a round stays open after its quorum; less if every live worker has sent.
        overlap: minibatch steps that a worker trains while a message is exchanged; `True` for a whole window.
        bad_updates: what to do with messages that are not finite or too large.
        without_lost: whether synchronous rounds leave out lost workers.
        independent: whether every worker has a center of its own: the members of an ensemble.
        dtype: data type of the center and of the messages.
        tensors: sizes of the model's trainable tensors, in order, for algorithms that need them. Empty: all
            trainable elements are one tensor.
        layout: fingerprint of the weights' layout: the center refuses a worker with another one.
        fragments: parts of the vector that are exchanged in turn; `None` for the whole vector at once.
        epoch_rows: rows of one epoch of the center, of all workers together. A tuple: the rows of the first
            epochs, after which they begin again. `None`: the center counts no epochs.
        member_rows: rows of the epochs of each member of an ensemble, in place of `epoch_rows`.
        elastic: how many workers may train at once where they come and go: the workers of the ledger are then
            shares of the rows, and the algorithm's number of workers is that of those that train. `None` for
            workers that are there from beginning to end.
        until: number of rows from which the center holds answers back, before the first order: see
            `distkeras.center.orders.Orders`. `None` for never.
        regions: number of regions with a center each, below that of the training, and the rule between them;
            `None` for one level. The algorithm's number of workers is then that of a region.

    Raises:
        ValueError: there is no worker; the quorum is not in 1..num_workers, or is for an asynchronous
            algorithm; the grace is negative, or has no quorum; the overlap or the fragments do not fit the
            algorithm's window; `epoch_rows` or `until` is less than 1; answers of fragments, or those to
            workers that overlap their windows, are to be held back; or workers come and go, and the algorithm
            needs a fixed number of them; or the regions cannot have equally many workers, or do not fit
            another setting.
    """

    algorithm: Algorithm
    num_workers: int = 1
    num_trainable: int | None = None
    quorum: int | None = None
    grace: float = 0.0
    overlap: bool | int = False
    bad_updates: BadUpdates = RAISE
    without_lost: bool = False
    independent: bool = False
    dtype: str = "float32"
    layout: str = ""
    tensors: tuple[int, ...] = ()
    fragments: Fragments | None = None
    epoch_rows: int | tuple[int, ...] | None = None
    member_rows: tuple[tuple[int, ...], ...] = ()
    until: int | None = None
    elastic: Elastic | None = None
    regions: RegionServers | None = None

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"Expected at least one worker. Received: num_workers={self.num_workers}")
        if self.quorum is not None and not (
            self.algorithm.synchronous and 1 <= self.quorum <= self.num_workers
        ):
            raise ValueError(
                "`quorum` must be between 1 and `num_workers`, and is only for synchronous algorithms. "
                f"Received: quorum={self.quorum}, num_workers={self.num_workers}, "
                f"algorithm={self.algorithm!r}"
            )
        self._check_grace()
        self._check_window()
        self._check_stops()
        self._check_epochs()
        if self.elastic is not None:
            check_elastic(self.algorithm)
        if self.regions is not None:
            self._check_regions(self.regions)
        object.__setattr__(self, "algorithm", self.algorithm.for_workers(self.num_together))

    def _check_regions(self, regions: RegionServers) -> None:
        rule, count = self.algorithm, regions.num_regions
        if self.num_workers % count:
            raise ValueError(
                f"Expected a number of workers that {count} regions can share equally. Received: "
                f"num_workers={self.num_workers}, regions={regions!r}"
            )
        fixed = self.elastic is None and self.until is None and not self.independent
        if rule.synchronous or rule.communication_window is None or self.num_fragments != 1 or not fixed:
            raise ValueError(
                "Regions need an asynchronous algorithm for their workers, with a `communication_window` in "
                "steps and without fragments, a fixed number of workers, and one model. Received: "
                f"regions={regions!r}, algorithm={rule!r}, elastic={self.elastic!r}, "
                f"independent={self.independent!r}, until={self.until!r}"
            )

    def _check_grace(self) -> None:
        grace = self.grace
        number = isinstance(grace, int | float) and not isinstance(grace, bool)
        if not number or not 0 <= grace < math.inf or (grace and self.quorum is None):
            raise ValueError(
                "`grace` must be a number of seconds, at least 0 and finite, and needs a `quorum`: without "
                "one, a round "
                f"waits for every live worker. Received: grace={grace!r}, quorum={self.quorum}"
            )

    def _check_window(self) -> None:
        """Raise ValueError unless a window has the steps that fragments and overlap need."""
        count = self.num_fragments
        window, overlap = self.algorithm.communication_window, self.overlap
        if count > 1 and (overlap is True or self.independent):
            raise ValueError(
                "With fragments, `overlap` must be a number of steps, not True; ensembles cannot use "
                "fragments. "
                f"Received: overlap={overlap!r}, independent={self.independent!r}, fragments={count}"
            )
        steps = 0 if window is None else window // count
        if (count > 1 and steps < 1) or (not isinstance(overlap, bool) and not 0 <= overlap < max(1, steps)):
            raise ValueError(
                f"Expected a `communication_window` in steps, at least as many as fragments ({count}), and "
                "an `overlap` of fewer steps than the window has for each fragment. "
                f"Received: communication_window={window!r}, overlap={overlap!r}"
            )

    def _check_stops(self) -> None:
        """Raise ValueError if workers cannot drop a window where the algorithm has them do so."""
        if self.algorithm.stops and (self.algorithm.synchronous or self.overlap or self.num_fragments > 1):
            raise ValueError(
                "Workers drop a window that is too stale (`stop`) where they wait for their replies: without "
                "overlap and fragments, and with an asynchronous algorithm. "
                f"Received: algorithm={self.algorithm!r}, overlap={self.overlap!r}, "
                f"fragments={self.num_fragments}"
            )

    def _check_epochs(self) -> None:
        if self.member_rows and not (self.independent and len(self.member_rows) == self.num_workers):
            raise ValueError(
                "`member_rows` must hold the rows of the epochs of each member of an ensemble. "
                f"Received: member_rows={self.member_rows!r}, num_workers={self.num_workers}, "
                f"independent={self.independent!r}"
            )
        rows, until = self.epoch_rows, self.until
        for name, value, single in (("epoch_rows", rows, self._epochs), ("until", until, (until,))):
            if value is not None and not (single and all(map(_is_number_of_rows, single))):
                raise ValueError(
                    f"`{name}` must be a positive number of rows, or None. Received: {name}={value!r}"
                )
        if self.until is not None and (self.num_fragments > 1 or self.overlap):
            raise ValueError(
                "Answers can be held back only if workers wait for them: without fragments and overlap. "
                f"Received: until={self.until}, overlap={self.overlap!r}, fragments={self.num_fragments}"
            )

    @property
    def _epochs(self) -> tuple[int, ...]:
        """Rows of the epochs, of which the first follows the last; none if the center counts none."""
        rows = self.epoch_rows
        return rows if isinstance(rows, tuple) else () if rows is None else (rows,)

    def epoch_end(self, epoch: int) -> int:
        """Return how many rows the center has at the end of `epoch`, from 0.

        Raises:
            ValueError: the center counts no epochs.
        """
        rows = self._epochs
        if not rows:
            raise ValueError("Expected a center that counts epochs. Received: epoch_rows=None")
        rounds, rest = divmod(epoch + 1, len(rows))
        return rounds * sum(rows) + sum(rows[:rest])

    def epochs_in(self, samples: int) -> int:
        """Return how many epochs have ended with `samples` rows.

        Raises:
            ValueError: the center counts no epochs.
        """
        rows = self._epochs
        epoch = samples // sum(rows) * len(rows) if rows else 0
        while samples >= self.epoch_end(epoch):
            epoch += 1
        return epoch

    @property
    def num_together(self) -> int:
        """Number of workers of one center: all of them, or those of a region."""
        return self.num_workers if self.regions is None else self.num_workers // self.regions.num_regions

    @property
    def least_workers(self) -> int:
        """Number of workers with which the training begins."""
        return self.num_workers if self.elastic is None else self.elastic.min_workers

    @property
    def num_fragments(self) -> int:
        """Number of fragments that workers exchange in turn."""
        return 1 if self.fragments is None else len(self.fragments)

    @property
    def overlap_steps(self) -> int:
        """Minibatch steps from a message to the use of its reply; 0 if workers wait or overlap a window."""
        return 0 if isinstance(self.overlap, bool) else self.overlap

    def trainable_of(self, size: int) -> int:
        """Return how many of `size` elements the algorithm updates."""
        return size if self.num_trainable is None else self.num_trainable

    def whole_tensors(self, size: int) -> tuple[int, ...]:
        """Return the sizes of the tensors that the algorithm needs whole; empty if it needs none.

        Raises:
            ValueError: the tensors do not make up the trainable ones of `size` elements.
        """
        if not self.algorithm.needs_tensors:
            return ()
        num_trainable = self.trainable_of(size)
        if self.tensors and sum(self.tensors) != num_trainable:
            raise ValueError(
                f"Expected the sizes of tensors with {num_trainable} elements together. "
                f"Received: tensors={self.tensors}"
            )
        return self.tensors or (num_trainable,)

    def part(self, low: int, high: int) -> CenterConfig:
        """Return the configuration of a server with the elements from `low` to `high` (excluded)."""
        tensors = tensors_in(low, high, self.tensors)
        if self.num_trainable is None:
            return replace(self, tensors=tensors)
        num_trainable = trainable_in(low, high, self.num_trainable)
        return replace(self, num_trainable=num_trainable, tensors=tensors)

    def follower(self, low: int, high: int) -> CenterConfig:
        """Return that of a server other than the first, which alone counts epochs and holds answers back."""
        return replace(self.part(low, high), epoch_rows=None, until=None)

    def fragment(self, fragment: int) -> CenterConfig:
        """Return the configuration of one fragment's center."""
        if self.fragments is None:
            return self
        ranges, count = self.fragments.parts[fragment], self.num_trainable
        num_trainable = None if count is None else self.fragments.num_trainable(fragment, count)
        tensors = tuple(size for low, high in ranges for size in tensors_in(low, high, self.tensors))
        return replace(self, fragments=None, num_trainable=num_trainable, tensors=tensors)

    def region(self) -> CenterConfig:
        """Return the configuration of the center of a region; itself if there is one level."""
        return replace(self, num_workers=self.num_together, regions=None) if self.regions else self

    def above(self) -> CenterConfig:
        """Return that of the global center, whose workers are the regions.

        Raises:
            ValueError: there are no regions.
        """
        if self.regions is None:
            raise ValueError("Expected settings with `regions`. Received: regions=None")
        return CenterConfig(
            self.regions.algorithm,
            self.regions.num_regions,
            num_trainable=self.num_trainable,
            dtype=self.dtype,
            tensors=self.tensors,
        )

    def member(self, worker: int) -> CenterConfig:
        """Return the configuration of the own center of a worker."""
        rows = self.member_rows[worker] if self.member_rows else self.epoch_rows
        return replace(self, num_workers=1, independent=False, epoch_rows=rows, member_rows=())


def _is_number_of_rows(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
