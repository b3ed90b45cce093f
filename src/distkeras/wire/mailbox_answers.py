"""The server's side of a mailbox: takes the driver's requests from files, and writes the replies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from distkeras.center.answers import Done
from distkeras.center.requests import Fetch, Keep, Order, Poll, Pull, Write
from distkeras.wire import frames, mailbox_files
from distkeras.wire.client import Client, JobStopped, ServerAddress, ServerLost
from distkeras.wire.mailbox_files import END, ERROR, REQUEST, STOP, Forged, Seal
from distkeras.wire.shared_folder import SharedFolder

DRIVERS = (Poll, Pull, Order, Keep, Write, Fetch)
"""What a driver asks."""

logger = logging.getLogger(__name__)


class MailboxAnswers:
    """Answers the requests of one epoch of a server, in their order, by a connection to it.

    Args:
        folder: the place of the server.
        epoch: its epoch.
        seal: marks the files.
        client: a connection to the server.
        address: the server.
        stop: called with the reason for which the workers have to stop.

    Attributes:
        ended: whether the driver has ended the server.
    """

    def __init__(
        self,
        folder: SharedFolder,
        epoch: int,
        seal: Seal,
        client: Client,
        address: ServerAddress,
        stop: Callable[[str], None],
    ) -> None:
        self._folder, self._epoch, self._seal = folder, epoch, seal
        self._client, self._address, self._stop = client, address, stop
        self._largest = mailbox_files.largest_frame(address.size, address.dtype)
        self._number = self._written = 0
        self._warned_of = ""
        self.ended = False

    def answer_next(self) -> bool:
        """Answer the next request; return whether there was one.

        Raises:
            OSError: the folder cannot be read or written to.
        """
        name = f"{self._epoch}/request-{self._number + 1}"
        files = mailbox_files.take(self._folder, name, self._largest)
        if files is None:
            return False
        try:
            what, data = mailbox_files.from_files(self._seal, name, files, self._largest)
            reply = self._reply(what, data)
        except (Forged, frames.FrameError) as error:
            if name != self._warned_of:  # The driver's own takes its place when it comes.
                logger.warning("A file in the mailbox of the server is not answered: %s", error)
                self._warned_of = name
            return False
        self._number += 1
        self._write(*reply)
        mailbox_files.clear(self._folder, name, len(files))
        return True

    def _write(self, what: bytes, data: bytes) -> None:
        name = f"{self._epoch}/reply-{self._number}"
        files = mailbox_files.to_files(self._seal, name, what, data)
        mailbox_files.put(self._folder, name, files)
        # The driver has read the reply before, or it had not sent another request.
        mailbox_files.clear(self._folder, f"{self._epoch}/reply-{self._number - 1}", self._written)
        self._written = len(files)

    def _reply(self, what: bytes, data: bytearray) -> tuple[bytes, bytes]:
        address = self._address
        if what in (STOP, END):
            self.ended |= what == END
            self._stop(data.decode())
            return REQUEST, mailbox_files.frame_of(Done(), address.dtype)
        request = mailbox_files.message_of(
            data, frames.REQUESTS, frames.MAX_REQUEST_TEXT, address.size, address.dtype
        )
        if not isinstance(request, DRIVERS):
            raise Forged(f"Expected a request of a driver. Received: a {type(request).__name__}")
        try:
            answer: Any = self._client.call(request)
        except JobStopped as stopped:
            answer = frames.Stopped(str(stopped))
        except ServerLost as lost:  # Its process has ended, or is about to.
            return ERROR, str(lost).encode()
        return REQUEST, mailbox_files.frame_of(answer, address.dtype)
