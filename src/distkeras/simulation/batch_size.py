"""The minibatch size of simulated workers."""

from __future__ import annotations

from dataclasses import dataclass

BATCH_SIZE = 32
"""Rows of a minibatch where nothing else is said."""


@dataclass(frozen=True)
class BatchSize:
    """Rows of a worker's minibatch: the same for any number of workers, or a part of a global number.

    Args:
        each: rows of each worker's minibatch; `None` for `together`, or `BATCH_SIZE`.
        together: rows of all workers' minibatches; `None` for `each`.

    Raises:
        ValueError: both are given, or one is less than 1.
    """

    each: int | None = None
    together: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.each), ("global_batch_size", self.together)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={value!r}")
        if self.each is not None and self.together is not None:
            raise ValueError(
                "Expected `batch_size` or `global_batch_size`, not both. "
                f"Received: batch_size={self.each}, global_batch_size={self.together}"
            )

    def of(self, num_workers: int) -> int:
        """Return the rows of a minibatch of each of `num_workers`.

        Raises:
            ValueError: there are more workers than rows for all of them.
        """
        if self.together is None:
            return BATCH_SIZE if self.each is None else self.each
        if self.together < num_workers:
            raise ValueError(
                "`global_batch_size` must have a row for each worker. "
                f"Received: global_batch_size={self.together}, num_workers={num_workers}"
            )
        return self.together // num_workers
