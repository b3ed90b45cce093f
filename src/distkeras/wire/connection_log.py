"""A server's log messages about one connection."""

from __future__ import annotations

import logging

from distkeras.center.answers import Reply
from distkeras.center.requests import DRIVER, Beat, Exchange, Fail, Leave, MayJoin, Request
from distkeras.wire.frames import Stopped

logger = logging.getLogger(__name__)


class ConnectionLog:
    """Logs when a worker reconnects, when its connection ends, and at DEBUG each exchange.

    Args:
        peer: address of the other side.

    Attributes:
        worker: the worker that it acts for; `None` while it is unknown, and after its last request.
        tells_exchanges: whether DEBUG messages are logged. Checked once per connection, since a small
            exchange takes only tens of microseconds.
    """

    def __init__(self, peer: object) -> None:
        self.tells_exchanges = logger.isEnabledFor(logging.DEBUG)
        self._peer = peer or "this machine"
        self.worker: int | None = None

    def take(self, request: Request) -> None:
        """Record an arriving request."""
        worker = getattr(request, "worker", DRIVER)
        if worker == DRIVER or isinstance(request, Beat | MayJoin):  # The process may not have joined.
            return
        if self.worker is None and isinstance(request, Exchange | Leave):
            logger.info("Worker %d is connected again.", worker)
        self.worker = None if isinstance(request, Leave | Fail) else worker

    def exchanged(self, request: Request, reply: Reply | Stopped, seconds: float) -> None:
        """Log an exchange `seconds` after its request arrived; its reply has been sent."""
        if isinstance(request, Exchange):
            logger.debug(
                "Exchange of worker %d: sequence %d, epoch %d, %s, staleness %d, %d bytes, %.6f s.",
                *(request.worker, request.sequence, request.window_epoch, type(reply).__name__),
                *(getattr(reply, "staleness", 0), request.message.nbytes, seconds),
            )

    def end(self, error: OSError) -> None:
        """Log the end of the connection, at INFO if its worker has not left."""
        if self.worker is None:
            logger.debug("The connection from %s is gone: %s", self._peer, error)
        else:
            logger.info("The connection of worker %d is gone: %s", self.worker, error)
