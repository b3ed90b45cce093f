"""Frames in both directions over one socket, after the handshake.

Sending and receiving are conversations of `event_loop`: they say when they have to wait for the socket. At a
worker the socket blocks, so they run in one go.
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
    """

    cls: type
    header: bytes
    text: bytes
    codec: int
    num_bytes: int


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
        self._header = b""  # The last one, parsed in `_form`.
        self._form: tuple[type, int, frames.Form] = (type(None), 0, (frames.UNCODED, 0))
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
        """As `sending`, over a socket that blocks.

        Raises:
            TimeoutError: the limit of `limit_waits` is over.
        """
        _at_once(self.sending(message))

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame, as `beginning` and `finishing`, over a socket that blocks.

        Raises:
            TimeoutError: the limit of `limit_waits` is over.
        """
        arriving = _at_once(self.beginning(buffer.nbytes))
        return _at_once(self.finishing(arriving, buffer))

    def sending(self, message: frames.Message) -> Steps[None]:
        """Send one whole frame. With compression, its vector may become what the other side decodes.

        Raises:
            TextTooLong: the other side would refuse the frame.
            OSError: the connection is lost.
        """
        encoded = None if self._compression is None else self._compression.pack(message)
        head, vector = frames.encode(message, self._checksum, encoded, self._dtype)
        if vector is not None and self.shared is not None:
            if vector is not self.shared and vector.ctypes.data != self.shared.ctypes.data:
                np.copyto(self.shared[: vector.size], vector)
            vector = None
        data = memoryview(b"") if vector is None else vector.data.cast("B")
        return self._send(head, data)

    def _send(self, head: bytes, data: memoryview) -> Steps[None]:
        if self._encrypted and len(data) <= SMALL_BYTES:  # It has no sendmsg.
            head, data = head + data, memoryview(b"")
        offset = -len(head)
        while offset < len(data):
            try:
                if offset >= 0:
                    sent = self.sock.send(data[offset : offset + PIECE])
                elif self._encrypted:
                    sent = self.sock.send(head[offset:])
                else:
                    # One system call for both, so that a small vector does not wait for a second packet.
                    sent = self.sock.sendmsg([head[offset:], data[:PIECE]])
            except _WRITES:
                yield WRITE
            except ssl.SSLWantReadError:
                yield READ
            else:
                offset += sent
                self.moved += sent

    def ready(self) -> bool:
        """Return whether a part of the next frame has been received already."""
        return bool(self._ahead) or (self._encrypted and self.sock.pending() > 0)  # type: ignore[attr-defined]

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
        if header != self._header:
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
        self._header = header if compression is None else b""
        return parsed

    def finishing(self, arriving: Arriving, buffer: Vector | None) -> Steps[Any]:
        """Receive the vector of a frame, if it has one, into `buffer`, which the message then holds.

        A shared vector is in its place already: `buffer` must be `shared`.

        Raises:
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        compression, (header, text) = self._compression, (arriving.header, arriving.text)
        message = frames.parse(arriving.cls, text, buffer)  # The vector arrives later.
        if compression is not None and buffer is not None:
            message = compression.fitted(message, (arriving.codec, arriving.num_bytes), buffer)
        packed = arriving.codec != frames.UNCODED
        vector = frames.vector_of(message) if arriving.num_bytes else None
        if compression is not None and packed and vector is not None:
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
        if compression is not None:
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


def _at_once(steps: Steps[T]) -> T:
    """Run steps over a socket that blocks: only its time limit interrupts them."""
    try:
        next(steps)
    except StopIteration as end:
        value: T = end.value
        return value
    raise TimeoutError("The other side took longer than the limit.")
