"""The files of a mailbox: what one side writes and the other reads, sealed with the job's token.

    E/begin            what the server of epoch E has to know before it starts, if it is not the first
    E/request-N        the frame of a request, in one or more parts: request-N.1, request-N.2, ...
    E/reply-N          the frame of its reply, likewise

Every file begins with a keyed hash of its name and contents: who may write to the folder, but does not know
the job's token, gives no orders. The first part of a message is written last. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distkeras.wire import frames
from distkeras.wire.shared_folder import SharedFolder

CHUNK_BYTES = 64 * 2**20
"""Most bytes of a message in one file."""
HEAD = struct.Struct("!cIQ")
"""Of the first part: what the message is, its number of parts, and its bytes."""
DIGEST_BYTES = hashlib.sha256().digest_size
LARGEST_FILE = CHUNK_BYTES + HEAD.size + DIGEST_BYTES
REQUEST, STOP, END, ERROR = b"R", b"S", b"E", b"X"
"""What a message is: a frame; the reason to stop the workers, or to end the server; why there is no reply."""


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


def take(folder: SharedFolder, name: str, largest: int) -> list[bytes] | None:
    """Return the files of a message of at most `largest` bytes; `None` if it is not there yet.

    What they say is not to be trusted before `from_files`: of more files than such a message has, none is
    read.
    """
    first = folder.read(name, LARGEST_FILE)
    if first is None:
        return None
    files = [first]
    if len(first) >= DIGEST_BYTES + HEAD.size:
        _, count, _ = HEAD.unpack(first[DIGEST_BYTES : DIGEST_BYTES + HEAD.size])
        count = min(count, 1 + largest // CHUNK_BYTES)
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
