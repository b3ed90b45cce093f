"""What a connection has carried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counts of the frames of one connection, or of several. Each is counted by one thread at a time.

    Attributes:
        sent: bytes of the frames that were sent: headers, texts and vectors. A vector in memory that both
            sides share counts as if it were sent.
        received: bytes of the frames that arrived, likewise.
        resends: requests that were sent again, because their answer had not come.
    """

    sent: int = 0
    received: int = 0
    resends: int = 0

    @staticmethod
    def sum_of(parts: Iterable[Traffic]) -> Traffic:
        """Return the sums of the counts."""
        whole = Traffic()
        for part in parts:
            whole.sent += part.sent
            whole.received += part.received
            whole.resends += part.resends
        return whole
