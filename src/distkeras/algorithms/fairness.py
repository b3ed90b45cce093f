"""Which algorithms give workers of unequal speed an equal part in the center."""

from __future__ import annotations

from distkeras.algorithms.base import Algorithm


def is_fair(algorithm: Algorithm, quorum: int | None = None) -> bool:
    """Return whether workers of unequal speed have an equal part in the center.

    In a synchronous round they do, unless a quorum closes it without the slow ones. Of the asynchronous
    algorithms those do that say so (`fair`); with the others a worker's part grows with its speed. That
    matters if the workers' data differ, for example in their labels.

    Args:
        algorithm: the algorithm.
        quorum: messages that complete a synchronous round; `None` for those of all workers.
    """
    return quorum is None if algorithm.synchronous else algorithm.fair
