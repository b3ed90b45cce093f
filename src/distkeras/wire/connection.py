"""Frames in both directions over one socket, after the handshake.

A small frame passes in one system call: `arrived` and `posted` are plain functions. What has to wait for the
socket is a conversation of `event_loop`. At a worker the socket blocks, so that runs in one go.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire import frames
from distkeras.wire.codecs import CodecError
from distkeras.wire.event_loop import Steps, T
from distkeras.wire.fragment_compression import AnyCompression
from distkeras.wire.stream import NOTHING, SMALL_BYTES, Rest, Stream
from distkeras.wire.traffic import Traffic


class Arriving(NamedTuple):
    """A frame whose header and text have arrived, but not its whole vector.

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


class Connection:
    """Sends and receives frames over one socket.

    Args:
        sock: a connected TCP or Unix socket, after its handshake; closed with the connection.
        kinds: the frames that may arrive: `frames.REQUESTS` at the server, `frames.REPLIES` at a worker.
        max_text: most bytes of text in an arriving frame.
        compression: this end's compression; `None` for none.
        checksum: whether frames sent and received have checksums.
        dtype: data type of the vectors.
        traffic: counts the frames; new counts by default.

    Attributes:
        stream: the bytes of the connection.
        shared: the vector of every frame in either direction, if both sides are on one machine; otherwise
            `None`, and vectors follow their frames.
        repeats: type of the frames that `arrived` can receive, that of the last one; `None` for none.
        traffic: what the connection has carried.
    """

    def __init__(
        self,
        sock: socket.socket,
        kinds: dict[int, type],
        max_text: int,
        compression: AnyCompression | None = None,
        checksum: bool = False,
        dtype: str = "float32",
        traffic: Traffic | None = None,
    ) -> None:
        self.stream = Stream(sock)
        self.traffic = Traffic() if traffic is None else traffic
        self._dtype = dtype
        self._kinds = kinds
        self._max_text = max_text
        self._compression = compression
        # Data that stays on this machine is not damaged on the way.
        self._checksum = checksum and sock.family != socket.AF_UNIX
        self._header = b""  # The last one, without its checksum if there are any; parsed in `_form`.
        self._form: tuple[type, int, frames.Form] = (type(None), 0, (frames.UNCODED, 0))
        self._head = bytearray()  # For `arrived`: as long as header, text and zeros of the last one.
        self.repeats: type | None = None
        self.shared: Vector | None = None

    def send(self, message: frames.Message) -> None:
        """Send one whole frame over a socket that blocks.

        Raises:
            TimeoutError: the limit of `Stream.limit_waits` is over.
            TextTooLong, OSError: as for `posted`.
        """
        if (rest := self.posted(message)) is not None:
            _at_once(self.stream.sending(rest))

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame over a socket that blocks.

        Raises:
            TimeoutError: the limit of `Stream.limit_waits` is over.
            FrameError, ConnectionError, OSError: as for `arrived`.
        """
        try:
            arrived = self.arrived(buffer)
        except BlockingIOError:
            raise TimeoutError(_LATE) from None
        if arrived is None:
            arrived = _at_once(self.beginning(buffer.nbytes))
        if type(arrived) is Arriving:
            return _at_once(self.finishing(arrived, buffer))
        return arrived

    def posted(self, message: frames.Message) -> Rest | None:
        """Send of one frame what the system takes at once; return the rest, or `None` if there is none.

        With compression, the vector may become what the other side decodes.

        Raises:
            TextTooLong: the other side would refuse the frame.
            OSError: the connection is lost.
        """
        encoded = None if self._compression is None else self._compression.pack(message)
        head, vector = frames.encode(message, self._checksum, encoded, self._dtype)
        self.traffic.sent += len(head) + (0 if vector is None else vector.nbytes)
        shared = self.shared
        if vector is None or vector is shared:
            return self.stream.send(head, NOTHING)
        if shared is None:
            return self.stream.send(head, vector.data.cast("B"))
        # An address takes long to get, and a vector with memory of its own is elsewhere.
        if vector.base is None or vector.ctypes.data != shared.ctypes.data:
            shared[: vector.size] = vector
        return self.stream.send(head, NOTHING)

    def arrived(self, vector: Vector | None) -> Any:
        """Receive in one system call what has come of a frame that is like the last one.

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
        stream, head = self.stream, self._head
        if self.repeats is None or stream.ahead:
            return None
        data = NOTHING if vector is None or self.shared is not None else vector.data.cast("B")
        count = stream.receive(head, data)
        start, (cls, text_length, (codec, num_bytes)) = bytes(head), self._form
        in_place, end = count - len(head), frames.HEADER.size + text_length
        if in_place < 0 or not start.startswith(self._header) or start.count(0, end) != len(head) - end:
            stream.ahead = start[:count] + bytes(data[: max(in_place, 0)])
            return None
        stream.moved += in_place
        self.traffic.received += len(head) + num_bytes
        text = start[frames.HEADER.size : end]
        whole = in_place == num_bytes or self.shared is not None
        if whole and not self._checksum and np.little_endian:
            return frames.parse(cls, text, vector)
        arriving = Arriving(cls, start[: frames.HEADER.size], text, codec, num_bytes, in_place)
        return self._message(arriving, vector) if whole else arriving

    def beginning(self, vector_bytes: int) -> Steps[Arriving]:
        """Receive a frame's header and text; `finishing` must follow.

        Args:
            vector_bytes: bytes of a vector that is not compressed.

        Raises:
            FrameError: the bytes are not a valid frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        stream = self.stream
        yield from stream.looking_ahead(frames.HEADER.size)
        header = stream.ahead[: frames.HEADER.size]
        if self.repeats is None or not header.startswith(self._header):
            self._parse_header(header, vector_bytes)
        cls, text_length, (codec, num_bytes) = self._form
        start, end = frames.HEADER.size, frames.HEADER.size + text_length
        whole = end + frames.padding_of(text_length)
        yield from stream.looking_ahead(whole)
        self.traffic.received += whole + num_bytes
        text, padding = stream.ahead[start:end], stream.ahead[end:whole]
        stream.ahead = stream.ahead[whole:]
        if padding.count(0) != len(padding):
            raise frames.FrameError("Expected zeros after the text.")
        return Arriving(cls, header, text, codec, num_bytes)

    def _parse_header(self, header: bytes, vector_bytes: int) -> None:
        compression = self._compression
        forms = {} if compression is None else compression.forms((frames.UNCODED, vector_bytes))
        cls, text_length, form = frames.parse_header(header, self._kinds, self._max_text, vector_bytes, forms)
        self._form = cls, text_length, form
        length = frames.HEADER.size + text_length + frames.padding_of(text_length)
        # Exchange after exchange has the same header, as long as the form of the next does not change.
        if compression is None and not self.stream.encrypted and length <= SMALL_BYTES:
            self._header = header[: -frames.CHECKSUM.size] if self._checksum else header
            self._head, self.repeats = bytearray(length), cls
        else:
            self.repeats = None

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
            yield from self.stream.filling(buffer.data.cast("B")[arriving.in_place :])
        return self._message(arriving, buffer)

    def _message(self, arriving: Arriving, buffer: Vector | None) -> Any:
        """Return the message of a frame whose vector, if it has one, is in `buffer`."""
        self._check(arriving, buffer if arriving.num_bytes else None)
        return frames.parse(arriving.cls, arriving.text, buffer)

    def _check(self, arriving: Arriving, vector: Vector | None) -> None:
        frames.check(arriving.header, arriving.text, vector, self._checksum)
        if vector is not None and self.shared is None and not np.little_endian:
            vector.byteswap(inplace=True)

    def _unpacking(
        self, compression: AnyCompression, arriving: Arriving, buffer: Vector | None
    ) -> Steps[Any]:
        """As `finishing`, in a job with compression or fragments."""
        message = frames.parse(arriving.cls, arriving.text, buffer)  # The vector arrives later.
        if buffer is not None:
            message = compression.fitted(message, (arriving.codec, arriving.num_bytes), buffer)
        packed = arriving.codec != frames.UNCODED
        vector = frames.vector_of(message) if arriving.num_bytes else None
        if packed and vector is not None:
            room = compression.room()
            yield from self.stream.filling(room.data)
            frames.check(arriving.header, arriving.text, room, self._checksum)
            try:
                compression.unpack(room, vector)
            except CodecError as error:
                raise frames.FrameError(str(error)) from error
        else:
            if vector is not None and self.shared is None:
                yield from self.stream.filling(vector.data.cast("B"))
            self._check(arriving, vector)
        compression.take_note(message, whole=not packed)
        return message

    def hang_up(self) -> None:
        """End the connection, from any thread: a thread that waits on it gets an error."""
        self.stream.hang_up()

    def close(self) -> None:
        """Close the socket. Only for the thread that uses it."""
        self.stream.close()


_LATE = "The other side took longer than the limit."


def _at_once(steps: Steps[T]) -> T:
    """Run steps over a socket that blocks: only its time limit interrupts them."""
    try:
        next(steps)
    except StopIteration as end:
        value: T = end.value
        return value
    raise TimeoutError(_LATE)
