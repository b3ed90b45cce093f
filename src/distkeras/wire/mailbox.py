"""Requests to a parameter server, and its replies, as files: for a driver that cannot connect to it.

Requests have numbers, and are handled once, in their order. See `distkeras.wire.mailbox_files`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distkeras.center.requests import Request
from distkeras.wire import frames, mailbox_files
from distkeras.wire.client import JobStopped, ServerAddress, ServerLost
from distkeras.wire.mailbox_files import ERROR, REQUEST, Seal
from distkeras.wire.server_place import ServerPlace
from distkeras.wire.shared_folder import SharedFolder

QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.25
"""Seconds between two looks for a file on a disk or a mounted filesystem, and on any other."""
LOOK_SECONDS = 1.0
"""Seconds between two looks for a server that was started again."""


@dataclass(frozen=True)
class Carried:
    """What came back for a request.

    Attributes:
        epoch: epoch of the present server; another one than that of the request if it was started again.
        files: the files of the reply; empty if there is none yet.
    """

    epoch: int
    files: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Errand:
    """A request on its way to a server.

    Attributes:
        folder: the place of the server.
        epoch: epoch of the server.
        number: number of the request.
        files: its files; none if they are there already.
        largest: most bytes of the reply.
    """

    folder: SharedFolder
    epoch: int
    number: int
    files: tuple[bytes, ...]
    largest: int


def carry(errand: Errand, seconds: float, look: Callable[[], None] = lambda: None) -> Carried:
    """Put a request into a mailbox, and wait for its reply.

    Args:
        errand: the request.
        seconds: longest time to wait.
        look: called about once a second; it may raise.

    Raises:
        OSError: the folder cannot be read or written to.
    """
    folder, epoch, number = errand.folder, errand.epoch, errand.number
    mailbox_files.put(folder, f"{epoch}/request-{number}", errand.files)
    deadline, pause = time.monotonic() + seconds, pause_for(folder)
    due = time.monotonic() + LOOK_SECONDS
    while True:
        found = mailbox_files.take(folder, f"{epoch}/reply-{number}", errand.largest)
        if found is not None:
            return Carried(epoch, tuple(found))
        now = time.monotonic()
        if now >= due:
            look()
            if (present := ServerPlace(folder).epoch()) != epoch:
                return Carried(present)
            due = now + LOOK_SECONDS
        if now >= deadline:
            return Carried(epoch)
        time.sleep(pause)


def pause_for(folder: SharedFolder) -> float:
    """Return the seconds between two looks for a file: a store that is asked over a network is asked less."""
    return QUICK_SECONDS if folder.is_local else SLOW_SECONDS


Carry = Callable[[Errand, float, Callable[[], None]], Carried]
"""As `carry`, from wherever the folder can be reached."""


class Line:
    """What all mailboxes of a driver and a server share: one request at a time, each with its number.

    Attributes:
        epoch: epoch of the server that is asked.
        number: number of the last request.
        lock: held during a request.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.number = 0
        self.lock = threading.Lock()


class Mailbox:
    """The driver's conversation with a server by files: in place of a `Client`.

    Args:
        address: the server, with its place.
        seal: marks the files.
        carry: brings requests and replies.
        line: the number of requests so far; shared by mailboxes of the same server.
        patience: seconds to wait for a reply before `ServerLost`.
        look: called about once a second while a reply is awaited; raises if there will be none.
    """

    def __init__(
        self,
        address: ServerAddress,
        seal: Seal,
        carry: Carry,
        line: Line,
        patience: float,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        if address.place is None:
            raise ValueError(f"Expected the address of a server with a place. Received: {address}")
        self._address, self._place, self._seal = address, address.place, seal
        self._carry, self.line, self._patience, self._look = carry, line, patience, look
        self._ended = False

    def call(self, request: Request) -> Any:
        """Send `request` and return the reply.

        Raises:
            JobStopped: the server ended the job.
            ServerLost: no reply came within `patience` seconds, or the server was started again meanwhile.
            FrameError, Forged: the reply is none of this protocol.
        """
        address = self._address
        with self.line.lock:
            what, data = self._exchange(REQUEST, mailbox_files.frame_of(request, address.dtype))
        if what == ERROR:
            raise ServerLost(f"The server at {self._place} could not handle the request: {data.decode()}")
        reply = mailbox_files.message_of(
            data, frames.REPLIES, frames.MAX_REPLY_TEXT, address.size, address.dtype
        )
        if isinstance(reply, frames.Stopped):
            raise JobStopped(reply.reason)
        return reply

    def tell(self, what: bytes, text: str, seconds: float) -> bool:
        """Stop the workers (`STOP`) or end the server (`END`); return whether it has heard of it.

        Args:
            what: `STOP` or `END`.
            text: the reason.
            seconds: longest time, also for another request that is under way.
        """
        if not self.line.lock.acquire(timeout=seconds):
            return False
        try:
            self._exchange(what, text.encode(errors="backslashreplace"), seconds)
        except (ServerLost, OSError):
            return False
        finally:
            self.line.lock.release()
        return True

    def _exchange(self, what: bytes, data: bytes, seconds: float | None = None) -> tuple[bytes, bytearray]:
        line = self.line
        line.number += 1
        epoch, number = line.epoch, line.number
        files = mailbox_files.to_files(self._seal, f"{epoch}/request-{number}", what, data)
        largest = mailbox_files.largest_frame(self._address.size, self._address.dtype)
        errand = Errand(self._place.folder, epoch, number, tuple(files), largest)
        carried = self._carry(errand, seconds or self._patience, self._look_around)
        if carried.epoch != epoch:
            raise ServerLost(f"The server at {self._place} is started again.")
        if not carried.files:
            raise ServerLost(f"The server at {self._place} has not answered for {self._patience:.0f} s.")
        return mailbox_files.from_files(self._seal, f"{epoch}/reply-{number}", carried.files, largest)

    def _look_around(self) -> None:
        if self._ended:
            raise JobStopped("This mailbox was closed, or another one replaced it.")
        self._look()

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def end(self) -> None:
        """End a call that is in progress in another thread with `JobStopped`."""
        self._ended = True

    def successor(self) -> Mailbox:
        """Return a mailbox of the same server, and end this one."""
        self.end()
        return Mailbox(self._address, self._seal, self._carry, self.line, self._patience, self._look)

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
