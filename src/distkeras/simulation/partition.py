"""How the rows of a problem are divided among its workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Partition:
    """Division of labelled rows among workers.

    By `"rows"`, worker i of N has the rows i, i + N, i + 2N ..., so that all shares are alike. By `"labels"`,
    the rows of each label are divided among the workers in proportions drawn from a symmetric Dirichlet
    distribution, so that the shares differ in their labels and in their sizes: the smaller `alpha`, the more.
    Every worker has at least one row.

    Args:
        by: `"rows"` or `"labels"`.
        alpha: concentration of the Dirichlet distribution; large values make the shares alike.
        seed: seed of the draw.

    Raises:
        ValueError: `by` is neither, or `alpha` is not positive and finite.

    Reference: Yurochkin et al. 2019, Bayesian Nonparametric Federated Learning of Neural Networks.
    """

    by: Literal["rows", "labels"] = "rows"
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("rows", "labels"):
            raise ValueError(f"`partition` must be 'rows' or 'labels'. Received: partition={self.by!r}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"`alpha` must be positive and finite. Received: alpha={self.alpha!r}")

    def shares(self, labels: npt.NDArray[Any], num_workers: int) -> list[Rows]:
        """Return the indices of each worker's rows, in ascending order.

        Args:
            labels: one label for each row: shape (rows,) or (rows, 1), or one-hot, shape (rows, classes).
            num_workers: number of workers.

        Raises:
            ValueError: there are fewer rows than workers, or labels of another shape.
        """
        if len(labels) < num_workers:
            raise ValueError(f"{len(labels)} rows are too few for {num_workers} workers.")
        if self.by == "rows":
            return [np.arange(worker, len(labels), num_workers) for worker in range(num_workers)]
        owners = self._owners(_classes(labels), num_workers)
        order = np.argsort(owners, kind="stable")
        return np.split(order, np.cumsum(np.bincount(owners, minlength=num_workers))[:-1])

    def _owners(self, classes: Rows, num_workers: int) -> Rows:
        """Return the worker of each row."""
        chance = np.random.default_rng((self.seed, num_workers))
        owners = np.empty(classes.size, np.intp)
        for label in range(int(classes.max()) + 1):
            rows = chance.permutation(np.flatnonzero(classes == label))
            bounds = np.cumsum(chance.dirichlet(np.full(num_workers, self.alpha))) * rows.size
            owners[rows] = np.searchsorted(bounds[:-1], np.arange(rows.size), side="right")
        # A worker that drew no row takes one of the worker with most of them.
        sizes = np.bincount(owners, minlength=num_workers)
        for worker in np.flatnonzero(sizes == 0):
            richest = int(sizes.argmax())
            owners[np.flatnonzero(owners == richest)[0]] = worker
            sizes[richest] -= 1
            sizes[worker] = 1
        return owners


def _classes(labels: npt.NDArray[Any]) -> Rows:
    """Return the label of each row as an index from 0."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        classes: Rows = labels.argmax(axis=1)
        return classes
    if labels.size != len(labels):
        raise ValueError(
            "Expected one label for each row, or one-hot rows, to divide the rows by their labels. "
            f"Received: targets of shape {labels.shape}"
        )
    return np.unique(labels.ravel(), return_inverse=True)[1]
