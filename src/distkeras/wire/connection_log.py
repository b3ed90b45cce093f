"""What a server tells in its log of one connection."""

from __future__ import annotations

import logging

from distkeras.center.messages import DRIVER, Beat, Exchange, Fail, Leave, Reply, Request
from distkeras.wire.frames import Stopped

logger = logging.getLogger(__name__)


class ConnectionLog:
    """Tells of a worker that goes on by this connection, of its end, and at DEBUG of each exchange.

    Args:
        peer: where it comes from.

    Attributes:
        tells_exchanges: whether the log takes them. It is asked once a connection: a small exchange takes
            tens of microseconds.
    """

    def __init__(self, peer: object) -> None:
        self.tells_exchanges = logger.isEnabledFor(logging.DEBUG)
        self._peer = peer or "this machine"
        self._worker: int | None = None
        self._ended = False

    def take(self, request: Request) -> None:
        """Note what has arrived."""
        worker = getattr(request, "worker", DRIVER)
        if worker == DRIVER or isinstance(request, Beat):  # Heartbeats come by a connection of their own.
            return
        if self._worker is None and isinstance(request, Exchange | Leave):
            logger.info("Worker %d is connected again.", worker)
        self._worker, self._ended = worker, isinstance(request, Leave | Fail)

    def exchanged(self, request: Request, reply: Reply | Stopped, seconds: float) -> None:
        """Tell of an exchange whose reply is on its way, `seconds` after its request had arrived."""
        if isinstance(request, Exchange):
            logger.debug(
                "Exchange of worker %d: sequence %d, epoch %d, %s, staleness %d, %d bytes, %.6f s.",
                *(request.worker, request.sequence, request.window_epoch, type(reply).__name__),
                *(getattr(reply, "staleness", 0), request.message.nbytes, seconds),
            )

    def end(self, error: OSError) -> None:
        """Tell that the connection is gone, which is news where its worker had not ended."""
        if self._worker is None or self._ended:
            logger.debug("The connection from %s is gone: %s", self._peer, error)
        else:
            logger.info("The connection of worker %d is gone: %s", self._worker, error)
