"""Frames in both directions over one socket, after the handshake.

A small frame passes in one system call: `arrived` and `posted` are plain functions. What has to wait for the
socket is a conversation of `event_loop`. At a worker the socket blocks, so that runs in one go.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import sys
import termios
from typing import Any, NamedTuple

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire import frames
from distkeras.wire.codecs import CodecError
from distkeras.wire.event_loop import READ, WRITE, Steps, T
from distkeras.wire.fragment_compression import AnyCompression
from distkeras.wire.handshake import hang_up

SMALL_BYTES = 16 * 2**10
READ_AHEAD = 256
PIECE = 4 * 2**20
"""Most bytes of a vector in one system call, so that progress can be seen."""
_READS = (BlockingIOError, ssl.SSLWantReadError)
_WRITES = (BlockingIOError, ssl.SSLWantWriteError)


class Arriving(NamedTuple):
    """A frame whose header and text have arrived, but not its vector.

    Attributes:
        cls: type of the message.
        header: as it arrived.
        text: as it arrived.
        codec: the vector's codec.
        num_bytes: bytes of the vector in the stream; 0 for no vector.
        in_place: bytes of the vector that have arrived in the memory for it.
    """

    cls: type
    header: bytes
    text: bytes
    codec: int
    num_bytes: int
    in_place: int = 0


class Rest(NamedTuple):
    """What is left to send of a frame.

    Attributes:
        head: of its header, text and zeros.
        data: of its vector.
    """

    head: bytes
    data: memoryview


class Connection:
    """Sends and receives frames over one socket.

    Args:
        sock: a connected TCP or Unix socket, after its handshake; closed with the connection.
        kinds: the frames that may arrive: `frames.REQUESTS` at the server, `frames.REPLIES` at a worker.
        max_text: most bytes of text in an arriving frame.
        compression: this end's compression; `None` for none.
        checksum: whether frames sent and received have checksums.
        dtype: data type of the vectors.

    Attributes:
        shared: the vector of every frame in either direction, if both sides are on one machine; otherwise
            `None`, and vectors follow their frames.
        moved: bytes of vectors that have been sent and received so far.
        repeats: type of the frames that `arrived` can receive, that of the last one; `None` for none.
    """

    def __init__(
        self,
        sock: socket.socket,
        kinds: dict[int, type],
        max_text: int,
        compression: AnyCompression | None = None,
        checksum: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.sock = sock
        self._dtype = dtype
        self._kinds = kinds
        self._max_text = max_text
        self._compression = compression
        # Data that stays on this machine is not damaged on the way.
        self._checksum = checksum and sock.family != socket.AF_UNIX
        self._ahead = b""  # Bytes that have been received but not used.
        self._header = b""  # The last one, without what differs in the next; parsed in `_form`.
        self._form: tuple[type, int, frames.Form] = (type(None), 0, (frames.UNCODED, 0))
        self._head = bytearray()  # As long as header, text and zeros of the last one.
        self.repeats: type | None = None
        self._encrypted = isinstance(sock, ssl.SSLSocket)
        self.shared: Vector | None = None
        self.moved = 0

    def limit_waits(self, seconds: float) -> None:
        """Limit each system call to `seconds`; it then raises `TimeoutError`."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(seconds)
            return
        # The kernel's own limit. Python's limit makes the socket non-blocking: then each part of a large
        # vector costs two system calls, and a small exchange takes half as long again.
        self.sock.settimeout(None)
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def send(self, message: frames.Message) -> None:
        """Send one whole frame, as `posted` and `posting`, over a socket that blocks.

        Raises:
            TimeoutError: the limit of `limit_waits` is over.
        """
        if (rest := self.posted(message)) is not None:
            _at_once(self.posting(rest))

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame over a socket that blocks.

        Raises:
            TimeoutError: the limit of `limit_waits` is over.
            FrameError, ConnectionError, OSError: as for `beginning` and `finishing`.
        """
        try:
            arrived = self.arrived(buffer)
        except BlockingIOError:
            raise TimeoutError(_LATE) from None
        if arrived is None:
            arrived = _at_once(self.beginning(buffer.nbytes))
        elif type(arrived) is not Arriving:
            return arrived
        return _at_once(self.finishing(arrived, buffer))

    def posted(self, message: frames.Message) -> Rest | None:
        """Send of one frame what the system takes at once; return the rest for `posting`; `None` for nothing.

        With compression, the vector may become what the other side decodes.

        Raises:
            TextTooLong: the other side would refuse the frame.
            OSError: the connection is lost.
        """
        encoded = None if self._compression is None else self._compression.pack(message)
        head, vector = frames.encode(message, self._checksum, encoded, self._dtype)
        if vector is not None and self.shared is not None:
            # Addresses are slow to get, and a vector that has its own memory is elsewhere.
            if vector is not self.shared and (vector.base is None or vector.ctypes.data != self.shared.ctypes.data):
                np.copyto(self.shared[: vector.size], vector)
            vector = None
        data = _NOTHING if vector is None else vector.data.cast("B")
        if self._encrypted:  # It has no sendmsg.
            return Rest(b"", memoryview(head + data)) if len(data) <= SMALL_BYTES else Rest(head, data)
        try:
            # One system call for both, so that a small vector does not wait for a second packet.
            sent = self.sock.sendmsg((head, data[:PIECE])) if vector is not None else self.sock.send(head)
        except BlockingIOError:
            return Rest(head, data)
        in_head = min(sent, len(head))
        self.moved += sent - in_head
        return None if sent == len(head) + len(data) else Rest(head[in_head:], data[sent - in_head :])

    def posting(self, rest: Rest) -> Steps[None]:
        """Send the rest of a frame.

        Raises:
            OSError: the connection is lost.
        """
        for data in (memoryview(rest.head), rest.data):
            while data:
                try:
                    sent = self.sock.send(data[:PIECE])
                except _WRITES:
                    yield WRITE
                except ssl.SSLWantReadError:
                    yield READ
                else:
                    data = data[sent:]
                    self.moved += sent

    def ready(self) -> bool:
        """Return whether a part of the next frame has been received already."""
        return bool(self._ahead) or (self._encrypted and self.sock.pending() > 0)  # type: ignore[attr-defined]

    def arrived(self, vector: Vector | None) -> Any:
        """Receive in one system call what has arrived of a frame that is like the last one.

        Returns:
            The message; an `Arriving` for `finishing` if a part of the vector is missing; `None` if the frame
            is another one or has just begun: `beginning` goes on with it.

        Args:
            vector: place for the vector of the frame; `None` if none can follow.

        Raises:
            BlockingIOError: nothing has arrived.
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        head = self._head
        if self._ahead or self.repeats is None:
            return None
        if vector is None or self.shared is not None:
            data, count = _NOTHING, self.sock.recv_into(head)
        else:
            data = vector.data.cast("B")
            count = self.sock.recvmsg_into((head, data[:PIECE]))[0]
        if not count:
            raise ConnectionError(_CLOSED)
        start, (cls, text_length, (codec, num_bytes)) = bytes(head), self._form
        in_place, end = count - len(head), frames.HEADER.size + text_length
        if in_place < 0 or not start.startswith(self._header) or start.count(0, end) != len(head) - end:
            self._ahead = start[:count] + bytes(data[: max(in_place, 0)])
            return None
        self.moved += in_place
        whole, text = in_place == num_bytes or self.shared is not None, start[frames.HEADER.size : end]
        if whole and not self._checksum and np.little_endian:
            return frames.parse(cls, text, vector)
        header = start[: frames.HEADER.size]
        if not whole:
            return Arriving(cls, header, text, codec, num_bytes, in_place)
        return self._message(cls, header, text, vector if num_bytes else None, vector)

    def beginning(self, vector_bytes: int) -> Steps[Arriving]:
        """Receive a frame's header and text; `finishing` must follow.

        Args:
            vector_bytes: bytes of a vector that is not compressed.

        Raises:
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        if len(self._ahead) < frames.HEADER.size:
            yield from self._look_ahead(frames.HEADER.size)
        header = self._ahead[: frames.HEADER.size]
        if self._compression is not None or not self._header or not header.startswith(self._header):
            self._form = self._parse_header(header, vector_bytes)
        cls, text_length, (codec, num_bytes) = self._form
        start, end = frames.HEADER.size, frames.HEADER.size + text_length
        whole = end + frames.padding_of(text_length)
        if len(self._ahead) < whole:
            yield from self._look_ahead(whole)
        text, padding = self._ahead[start:end], self._ahead[end:whole]
        self._ahead = self._ahead[whole:]
        if padding.count(0) != len(padding):
            raise frames.FrameError("Expected zeros after the text.")
        return Arriving(cls, header, text, codec, num_bytes)

    def _parse_header(self, header: bytes, vector_bytes: int) -> tuple[type, int, frames.Form]:
        compression = self._compression
        forms = {} if compression is None else compression.forms((frames.UNCODED, vector_bytes))
        parsed = frames.parse_header(header, self._kinds, self._max_text, vector_bytes, forms)
        # Exchange after exchange has the same header, as long as the form of the next does not change.
        self._header = header[: -frames.CHECKSUM.size] if self._checksum else header
        length = frames.HEADER.size + parsed[1] + frames.padding_of(parsed[1])
        if compression is None and not self._encrypted:
            self._head, self.repeats = bytearray(length), parsed[0]
        return parsed

    def finishing(self, arriving: Arriving, buffer: Vector | None) -> Steps[Any]:
        """Receive the vector of a frame, if it has one, into `buffer`, which the message then holds.

        A shared vector is in its place already: `buffer` must be `shared`.

        Raises:
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        if self._compression is not None:
            return (yield from self._unpacking(self._compression, arriving, buffer))
        if arriving.num_bytes and self.shared is None and buffer is not None:
            yield from self._fill(buffer.data.cast("B")[arriving.in_place :])
        vector = buffer if arriving.num_bytes else None
        return self._message(arriving.cls, arriving.header, arriving.text, vector, buffer)

    def _message(
        self, cls: type, header: bytes, text: bytes, vector: Vector | None, buffer: Vector | None
    ) -> Any:
        """Return the message of a frame whose `vector`, if it has one, is in `buffer`."""
        frames.check(header, text, vector, self._checksum)
        if vector is not None and self.shared is None and not np.little_endian:
            vector.byteswap(inplace=True)
        return frames.parse(cls, text, buffer)

    def _unpacking(
        self, compression: AnyCompression, arriving: Arriving, buffer: Vector | None
    ) -> Steps[Any]:
        """As `finishing`, in a job with compression or fragments."""
        header, text = arriving.header, arriving.text
        message = frames.parse(arriving.cls, text, buffer)  # The vector arrives later.
        if buffer is not None:
            message = compression.fitted(message, (arriving.codec, arriving.num_bytes), buffer)
        packed = arriving.codec != frames.UNCODED
        vector = frames.vector_of(message) if arriving.num_bytes else None
        if packed and vector is not None:
            room = compression.room()
            yield from self._fill(room.data)
            frames.check(header, text, room, self._checksum)
            try:
                compression.unpack(room, vector)
            except CodecError as error:
                raise frames.FrameError(str(error)) from error
        else:
            arrives = vector is not None and self.shared is None
            if vector is not None and arrives:
                yield from self._fill(vector.data.cast("B"))
            frames.check(header, text, vector, self._checksum)
            if vector is not None and arrives and not np.little_endian:
                vector.byteswap(inplace=True)
        compression.take_note(message, whole=not packed)
        return message

    def progress(self) -> int:
        """Return a number that changes when bytes of vectors move, from any thread.

        What the system has taken but the other side has not acknowledged does not count as moved.
        """
        with contextlib.suppress(OSError):  # The socket is closed, or the system does not tell.
            return self.moved - int.from_bytes(
                fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        return self.moved

    def hang_up(self) -> None:
        """End the connection, from any thread: a thread that waits on it gets an error."""
        hang_up(self.sock)

    def close(self) -> None:
        """Close the socket. Only for the thread that uses it."""
        self.hang_up()
        self.sock.close()

    def _look_ahead(self, size: int) -> Steps[None]:
        """Receive at least `size` bytes ahead. Header and text of a small frame need one system call."""
        data = self._ahead
        while len(data) < size:
            try:
                piece = self.sock.recv(max(READ_AHEAD, size - len(data)))
            except _READS:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                if not piece:
                    raise ConnectionError(_CLOSED)
                data = data + piece if data else piece
        self._ahead = data

    def _fill(self, view: memoryview) -> Steps[None]:
        if self._ahead:
            count = min(len(self._ahead), len(view))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            view = view[count:]
        while view:
            try:
                count = self.sock.recv_into(view[:PIECE])
            except _READS:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                if not count:
                    raise ConnectionError(_CLOSED)
                view = view[count:]
                self.moved += count


_CLOSED = "The other side closed the connection."
_LATE = "The other side took longer than the limit."
_NOTHING = memoryview(b"")


def _at_once(steps: Steps[T]) -> T:
    """Run steps over a socket that blocks: only its time limit interrupts them."""
    try:
        next(steps)
    except StopIteration as end:
        value: T = end.value
        return value
    raise TimeoutError(_LATE)
