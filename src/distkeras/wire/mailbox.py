"""Requests to a parameter server, and its replies, as files: for a driver that cannot connect to it.

    E/begin            what the server of epoch E has to know before it starts, if it is not the first
    E/request-N        the frame of a request, in one or more parts: request-N.1, request-N.2, ...
    E/reply-N          the frame of its reply, likewise

Every file begins with a keyed hash of its name and contents: who may write to the folder, but does not know
the job's token, gives no orders. Requests have numbers, and are handled once. The first part of a message is
written last. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.center.requests import Request
from distkeras.wire import frames
from distkeras.wire.client import JobStopped, ServerAddress, ServerLost
from distkeras.wire.server_place import ServerPlace
from distkeras.wire.shared_folder import SharedFolder

CHUNK_BYTES = 64 * 2**20
"""Most bytes of a message in one file."""
HEAD = struct.Struct("!cIQ")
"""Of the first part: what the message is, its number of parts, and its bytes."""
DIGEST_BYTES = hashlib.sha256().digest_size
LARGEST_FILE = CHUNK_BYTES + HEAD.size + DIGEST_BYTES
REQUEST, STOP, END, ERROR = b"R", b"S", b"E", b"X"
"""What a message is: a frame; the reason to stop the workers, or to end the server; why there is no reply."""
QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.25
"""Seconds between two looks for a file on a disk or a mounted filesystem, and on any other."""
LOOK_SECONDS = 1.0
"""Seconds between two looks for a server that was started again."""


class Forged(ValueError):
    """A file of a mailbox is not what the other side wrote."""


@dataclass(frozen=True)
class Seal:
    """Marks the files of one server's mailbox, so that the other side knows their writer.

    Attributes:
        token: the job's secret.
        name: name of the server.
    """

    token: bytes
    name: str

    def seal(self, name: str, data: bytes) -> bytes:
        """Return `data` for the file `name`."""
        return self._digest(name, data) + data

    def open(self, name: str, sealed: bytes) -> bytes:
        """Return the data in the file `name`.

        Raises:
            Forged: another one wrote it, or for another name.
        """
        digest, data = sealed[:DIGEST_BYTES], sealed[DIGEST_BYTES:]
        if not hmac.compare_digest(digest, self._digest(name, data)):
            raise Forged(f"Expected a file of this job in its mailbox. Received: another one, {name}")
        return data

    def _digest(self, name: str, data: bytes) -> bytes:
        return hmac.digest(self.token, b"mailbox\0" + f"{self.name}\0{name}\0".encode() + data, "sha256")


def to_files(seal: Seal, name: str, what: bytes, data: bytes | bytearray) -> list[bytes]:
    """Return the contents of the files of one message."""
    pieces = [bytes(data[start : start + CHUNK_BYTES]) for start in range(0, len(data), CHUNK_BYTES)] or [b""]
    pieces[0] = HEAD.pack(what, len(pieces), len(data)) + pieces[0]
    return [seal.seal(part_name(name, index), piece) for index, piece in enumerate(pieces)]


def from_files(seal: Seal, name: str, files: Sequence[bytes], largest: int) -> tuple[bytes, bytearray]:
    """Return what a message is, and its data.

    Raises:
        Forged: as for `Seal.open`; or the parts do not make one message of at most `largest` bytes.
    """
    first = seal.open(part_name(name, 0), files[0])
    what, count, size = HEAD.unpack(first[: HEAD.size])
    if count != len(files) or size > largest:
        raise Forged(
            f"Expected a message of at most {largest} bytes. Received: {size}, in {len(files)} files"
        )
    data = bytearray(first[HEAD.size :])
    for index, file in enumerate(files[1:], start=1):
        data += seal.open(part_name(name, index), file)
    if len(data) != size:
        raise Forged(f"Expected a message of {size} bytes. Received: {len(data)}")
    return what, data


def part_name(name: str, index: int) -> str:
    """Return the name of the file that holds part `index` of a message."""
    return f"{name}.{index}" if index else name


def put(folder: SharedFolder, name: str, files: Sequence[bytes]) -> None:
    """Write the files of a message, the first one last."""
    for index in reversed(range(len(files))):
        folder.write(part_name(name, index), files[index])


def take(folder: SharedFolder, name: str) -> list[bytes] | None:
    """Return the files of a message; `None` if it is not there yet.

    The number of parts is not to be trusted before `from_files`, which counts them.
    """
    first = folder.read(name, LARGEST_FILE)
    if first is None:
        return None
    files = [first]
    if len(first) >= DIGEST_BYTES + HEAD.size:
        _, count, _ = HEAD.unpack(first[DIGEST_BYTES : DIGEST_BYTES + HEAD.size])
        while len(files) < count and (more := folder.read(part_name(name, len(files)), LARGEST_FILE)):
            files.append(more)
    return files


def clear(folder: SharedFolder, name: str, count: int) -> None:
    """Remove the files of a message."""
    for index in range(count):
        folder.remove(part_name(name, index))


def message_of(data: bytearray, kinds: dict[int, type], max_text: int, size: int, dtype: str) -> Any:
    """Return the message in a frame.

    Raises:
        FrameError: it is not one frame of these kinds, with a vector of `size` elements if it has one.
    """
    header = bytes(data[: frames.HEADER.size])
    if len(header) < frames.HEADER.size:
        raise frames.FrameError("Expected a whole header.")
    vector_bytes = size * np.dtype(dtype).itemsize
    cls, length, (_, count) = frames.parse_header(header, kinds, max_text, vector_bytes)
    end = frames.HEADER.size + length
    start = end + frames.padding_of(length)
    if len(data) != start + count:
        raise frames.FrameError(f"Expected a frame of {start + count} bytes. Received: {len(data)}")
    vector = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), size, start) if count else None
    if vector is not None and not vector.dtype.isnative:
        vector = vector.astype(dtype)
    return frames.parse(cls, bytes(data[frames.HEADER.size : end]), vector)


def frame_of(message: frames.Message, dtype: str) -> bytes:
    """Return the frame of a message."""
    head, vector = frames.encode(message, dtype=dtype)
    return head if vector is None else b"".join((head, vector.data.cast("B")))


def largest_frame(size: int, dtype: str) -> int:
    """Return the most bytes of a frame with a vector of `size` elements."""
    return size * np.dtype(dtype).itemsize + frames.MAX_REPLY_TEXT + frames.HEADER.size + frames.ALIGNMENT


@dataclass(frozen=True)
class Carried:
    """What came back for a request.

    Attributes:
        epoch: epoch of the present server; another one than that of the request if it was started again.
        files: the files of the reply; empty if there is none yet.
    """

    epoch: int
    files: tuple[bytes, ...] = ()


def carry(
    folder: SharedFolder,
    epoch: int,
    number: int,
    files: Sequence[bytes],
    seconds: float,
    look: Callable[[], None] = lambda: None,
) -> Carried:
    """Put a request into a mailbox, and wait for its reply.

    Args:
        folder: the place of the server.
        epoch: epoch of the server.
        number: number of the request.
        files: its files; none if it is there already.
        seconds: longest time to wait.
        look: called about once a second; it may raise.

    Raises:
        OSError: the folder cannot be read or written to.
    """
    place = ServerPlace(folder)
    put(folder, f"{epoch}/request-{number}", files)
    deadline, pause = time.monotonic() + seconds, pause_for(folder)
    due = time.monotonic() + LOOK_SECONDS
    while True:
        found = take(folder, f"{epoch}/reply-{number}")
        if found is not None:
            return Carried(epoch, tuple(found))
        now = time.monotonic()
        if now >= due:
            look()
            if (present := place.epoch()) != epoch:
                return Carried(present)
            due = now + LOOK_SECONDS
        if now >= deadline:
            return Carried(epoch)
        time.sleep(pause)


def pause_for(folder: SharedFolder) -> float:
    """Return the seconds between two looks for a file: a store that is asked over a network is asked less."""
    return QUICK_SECONDS if folder.is_local else SLOW_SECONDS


Carry = Callable[[SharedFolder, int, int, Sequence[bytes], float, Callable[[], None]], Carried]
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
            what, data = self._exchange(REQUEST, frame_of(request, address.dtype))
        if what == ERROR:
            raise ServerLost(f"The server at {self._place} could not be asked: {data.decode()}")
        reply = message_of(data, frames.REPLIES, frames.MAX_REPLY_TEXT, address.size, address.dtype)
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
        files: Sequence[bytes] = to_files(self._seal, f"{epoch}/request-{number}", what, data)
        carried = self._carry(
            self._place.folder, epoch, number, files, seconds or self._patience, self._look_around
        )
        if carried.epoch != epoch:
            raise ServerLost(f"The server at {self._place} is started again.")
        if not carried.files:
            raise ServerLost(f"The server at {self._place} has not answered for {self._patience:.0f} s.")
        largest = largest_frame(self._address.size, self._address.dtype)
        return from_files(self._seal, f"{epoch}/reply-{number}", carried.files, largest)

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
