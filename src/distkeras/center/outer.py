"""What a center that passes its requests to others has in common with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkeras.center.request_log import RequestLog

if TYPE_CHECKING:
    from distkeras.center.center import Center


class Outer:
    """The facts about a center that consists of others, or that stands before one.

    Args:
        members: the centers: one, one for each fragment or region, or one for each member of an
            ensemble.
        size: number of elements of the vectors that workers exchange with it as a whole.

    Attributes:
        members: the centers.
        size: number of elements.
        dtype: data type of the centers.
        event_log: the event log, which all members share.
        request_log: the order of the requests, for other servers of the job; `None` if none can follow.
    """

    request_log: RequestLog | None = None

    def __init__(self, members: list[Center], size: int) -> None:
        self.members, self.size = members, size
        self.dtype, self.event_log = members[0].dtype, members[0].event_log
