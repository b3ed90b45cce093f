"""Frames in both directions over one socket, after the handshake."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire import frames
from distkeras.wire.codecs import CodecError
from distkeras.wire.fragment_compression import AnyCompression
from distkeras.wire.handshake import hang_up, receive_some

SMALL_BYTES = 16 * 2**10
READ_AHEAD = 256


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
        self.shared: Vector | None = None

    def limit_waits(self, seconds: float) -> None:
        """Limit each system call to `seconds`; it then raises `TimeoutError` or `BlockingIOError`."""
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
        """Send one whole frame. With compression, its vector may become what the other side decodes.

        Raises:
            TextTooLong: the other side would refuse the frame.
            OSError: the connection is lost.
        """
        encoded = None if self._compression is None else self._compression.pack(message)
        head, vector = frames.encode(message, self._checksum, encoded, self._dtype)
        if vector is not None and self.shared is not None:
            if vector.ctypes.data != self.shared.ctypes.data:
                np.copyto(self.shared[: vector.size], vector)
            vector = None
        if vector is None:
            self.sock.sendall(head)
        elif isinstance(self.sock, ssl.SSLSocket):  # It has no sendmsg.
            self._send_encrypted(head, vector.data.cast("B"))
        else:
            self._send_plain(head, vector.data.cast("B"))

    def _send_plain(self, head: bytes, data: memoryview) -> None:
        # One system call for both parts, so that a small vector does not wait for a second packet.
        sent = self.sock.sendmsg([head, data])
        if sent < len(head):
            self.sock.sendall(head[sent:])
            sent = len(head)
        offset = sent - len(head)
        if offset < len(data):
            self.sock.sendall(data[offset:])

    def _send_encrypted(self, head: bytes, data: memoryview) -> None:
        if len(data) <= SMALL_BYTES:
            self.sock.sendall(head + data)
        else:
            self.sock.sendall(head)
            self.sock.sendall(data)

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame. Its vector, if it has one, is written to `buffer`, which the message then holds.

        A shared vector is in its place already: `buffer` must be `shared`.

        Raises:
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost, or silent for longer than its timeout.
        """
        compression = self._compression
        header = self._take(frames.HEADER.size)
        forms = {} if compression is None else compression.forms((frames.UNCODED, buffer.nbytes))
        cls, text_length, (codec, length) = frames.parse_header(
            header, self._kinds, self._max_text, buffer.nbytes, forms
        )
        text = self._take(text_length)
        if any(self._take(frames.padding_of(text_length))):
            raise frames.FrameError("Expected zeros after the text.")
        message = frames.parse(cls, text, buffer)  # The vector arrives later.
        if compression is not None:
            message = compression.fitted(message, (codec, length), buffer)
        packed, vector = codec != frames.UNCODED, frames.vector_of(message)
        if compression is not None and packed and vector is not None:
            self._receive_packed(compression, vector, header, text)
        else:
            self._receive_vector(vector if length else None, header, text)
        if compression is not None:
            compression.take_note(message, whole=not packed)
        return message

    def _receive_vector(self, vector: Vector | None, header: bytes, text: bytes) -> None:
        arrives = vector is not None and self.shared is None
        if vector is not None and arrives:
            self._fill(vector.data.cast("B"))
        frames.check(header, text, vector, self._checksum)
        if vector is not None and arrives and not np.little_endian:
            vector.byteswap(inplace=True)

    def _receive_packed(
        self, compression: AnyCompression, buffer: Vector, header: bytes, text: bytes
    ) -> None:
        packed = compression.room()
        self._fill(packed.data)
        frames.check(header, text, packed, self._checksum)
        try:
            compression.unpack(packed, buffer)
        except CodecError as error:
            raise frames.FrameError(str(error)) from error

    def hang_up(self) -> None:
        """End the connection, from any thread: a thread that waits on it gets an error."""
        hang_up(self.sock)

    def close(self) -> None:
        """Close the socket. Only for the thread that uses it."""
        self.hang_up()
        self.sock.close()

    def _take(self, size: int) -> bytes:
        """Return the next `size` bytes. Header and text of a small frame need one system call."""
        if size and not self._ahead:
            self._ahead = self.sock.recv(READ_AHEAD)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        if len(taken) < size:
            rest = bytearray(size - len(taken))
            self._fill(memoryview(rest))
            taken += rest
        return taken

    def _fill(self, view: memoryview) -> None:
        if self._ahead:
            count = min(len(self._ahead), len(view))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            view = view[count:]
        while view:
            view = receive_some(self.sock, view)
