"""Brings the order of the first server's requests to another server of the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from distkeras.center.answers import Answer
from distkeras.center.follower import Follower
from distkeras.center.requests import Follow
from distkeras.wire.client import Client, JobStopped, ServerAddress, ServerLost

LONGEST_WAIT = 5.0
"""Seconds after which the first server answers, even if it has handled no request."""
RETRY_SECONDS = 0.1
"""Seconds between two attempts to reach the first server while it is down."""

logger = logging.getLogger(__name__)


class Following:
    """Reads the order of requests from the first server, and passes it to a follower.

    While the first server is down, all requests of this one wait: the workers need both.

    Args:
        follower: this server's part of the center.
        leader: address of the first server.
        deliver: receives the answers to the requests whose turn has come.

    Attributes:
        begun: set once this server knows where the order stands.
    """

    def __init__(
        self,
        follower: Follower,
        leader: ServerAddress,
        deliver: Callable[[list[Answer]], None],
    ) -> None:
        self._follower = follower
        # The order has no vectors to share or to compress.
        place = None if leader.place is None else replace(leader.place, shares_memory=False)
        alone = replace(leader, packing=None, local_name=None, place=place)
        self._client = Client(alone, patience=0.0, timeout=2 * LONGEST_WAIT)
        self._deliver = deliver
        self.begun = threading.Event()
        self._ended = threading.Event()

    def run(self) -> None:
        """Follow until `end`, or until the first server ends the job."""
        while True:
            try:
                page = self._client.call(Follow(self._follower.leader, self._follower.next))
            except ServerLost as lost:
                logger.debug("The first server is not there now: %s", lost)
                self._ended.wait(RETRY_SECONDS)
            except JobStopped as stopped:
                logger.debug("No more requests to follow: %s", stopped)
                return
            else:
                self._deliver(self._follower.follow(page))
                self.begun.set()

    def end(self) -> None:
        """Stop following."""
        self._ended.set()
        self._client.end()
