"""How the vectors of one connection travel where the job compresses.

Messages that are differences come encoded already, by the worker's error feedback. Messages that are weights
(of elastic rules), and replies that are the center, travel as the difference to what the other side has: both
ends keep the vector as it has arrived, `y <- y + C(x - y)`. What the codec drops of one is in the next, since
that is the difference to what arrived: nothing else has to be kept. The first vector of a connection travels
whole, so a cut needs no repair.

Reference: CHOCO-SGD, Koloskova et al. 2019 (1902.00340); Mishchenko et al. 2019 (1901.09269).
"""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.messages import Encoded, Exchange, Exchanged, Skipped
from distkeras.wire import frames
from distkeras.wire.codecs import Bytes, Codec, Packing


class Differences:
    """One direction of a connection, in which a vector may travel as the difference to the one before.

    Args:
        packing: how a difference lies in a frame. The statistics, which it leaves whole, travel as they are.

    Attributes:
        begun: whether there is one before.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._split = packing.num_trainable
        self._data = np.empty(0, np.uint8)
        self._arrived: Vector = np.empty(0, np.float32)
        self.begun = False

    def begin(self, vector: Vector) -> None:
        """Take note of a `vector`, shape (size,), that travels whole."""
        self._arrived, self.begun = vector[: self._split].copy(), True

    def forget(self) -> None:
        """Let the next vector travel whole."""
        self._arrived, self.begun = np.empty(0, np.float32), False

    def encode(self, vector: Vector) -> Bytes:
        """Return what travels in place of `vector`, and overwrite it with what the other side will have.

        The bytes are valid until the next call.
        """
        if self._data.size != self._packing.num_bytes:
            self._data = np.empty(self._packing.num_bytes, np.uint8)
        with np.errstate(over="ignore", invalid="ignore"):  # The center refuses what is not finite.
            vector[: self._split] -= self._arrived
            self._packing.encode(vector, self._data)
        self.decode(self._data, vector)
        return self._data

    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the vector of which `data` is the difference to `out`, shape (size,).

        Raises:
            CodecError: `data` was written by no encoder.
        """
        self._packing.decode(data, out)
        part = out[: self._split]
        with np.errstate(over="ignore", invalid="ignore"):
            part += self._arrived
        np.copyto(self._arrived, part)


class Compression:
    """How the vectors of one connection travel.

    Args:
        packing: of the job.
        at_server: whether this is the server's end.
    """

    def __init__(self, packing: Packing, *, at_server: bool) -> None:
        messages = Differences(packing) if packing.weights else None
        replies = Differences(packing) if packing.replies else None
        self._packing = packing
        self._arriving, self._leaving = (messages, replies) if at_server else (replies, messages)
        self._deltas = at_server and not packing.weights
        self._room = np.empty(0, np.uint8)

    def forms(self, whole: frames.Form) -> dict[type, tuple[frames.Form, ...]]:
        """Return codec and bytes that the vector of the next frame may have, where it is not `whole`."""
        packed = (self._packing.codec.number, self._packing.num_bytes)
        if self._deltas:
            return {Exchange: (packed,)}
        if self._arriving is None or not self._arriving.begun:
            return {}
        # A worker that must start anew is told the whole center.
        return {Exchange: (packed,), Exchanged: (packed, whole)}

    def pack(self, message: frames.Message) -> Encoded | None:
        """Return what is to travel in place of the vector of `message`, which may be overwritten."""
        if self._arriving is not None and _breaks_off(message):
            self._arriving.forget()
        vector = frames.vector_of(message)
        if self._leaving is None or vector is None:
            return None
        follows = isinstance(message, Exchange) or (isinstance(message, Exchanged) and not message.restart)
        if not (follows and self._leaving.begun):
            self._leaving.begin(vector)
            return None
        if not vector.flags.writeable:  # The reply to all workers of a round.
            vector = vector.copy()
        return Encoded(self._packing.codec.number, self._leaving.encode(vector))

    def room(self) -> Bytes:
        """Return where the bytes of an encoded vector are received."""
        if self._room.size != self._packing.num_bytes:  # Not before the first: it is as large as the message.
            self._room = np.empty(self._packing.num_bytes, np.uint8)
        return self._room

    def unpack(self, data: Bytes, out: Vector) -> None:
        """Write the vector that arrived as `data` to `out`.

        Raises:
            CodecError: `data` was written by no encoder.
        """
        (self._packing if self._arriving is None else self._arriving).decode(data, out)

    def take_note(self, message: frames.Message, *, whole: bool) -> None:
        """Take note of a `message` that arrived, and of its vector if that came `whole`."""
        vector = frames.vector_of(message) if whole else None
        if vector is not None and self._arriving is not None:
            self._arriving.begin(vector)
        if self._leaving is not None and _breaks_off(message):
            self._leaving.forget()


def _breaks_off(reply: frames.Message) -> bool:
    """Whether the two ends may no longer agree on what arrived: the next message travels whole.

    What was passed over may hold NaN. What was applied before, the network may have brought twice.
    """
    return isinstance(reply, Skipped) or (isinstance(reply, Exchanged) and reply.restart)


def sends_weights(algorithm: Algorithm) -> bool:
    """Whether the rule's messages are weights, not differences: not nothing after a window of nothing."""
    weights = np.ones(8, np.float32)
    return bool(algorithm.commit(weights, weights.copy(), 1).any())


def is_elastic(algorithm: Algorithm) -> bool:
    """Whether a worker goes on from its own weights, moved by the reply; not from one of the two alone."""
    rule = algorithm.for_workers(1)

    def adopted(local: float, reply: float) -> bytes:
        here, there = np.full(8, local, np.float32), np.full(8, reply, np.float32)
        return rule.adopt(here, np.zeros(8, np.float32), there).tobytes()

    return adopted(1, 1) not in (adopted(2, 1), adopted(1, 2))


def packing_of(algorithm: Algorithm, codec: Codec | None, size: int, num_trainable: int) -> Packing | None:
    """Return how a job's vectors are compressed; `None`: not at all.

    Replies are, where they are the center and one alone says nearly all. Not the elastic force, of which the
    worker must subtract exactly what the center added.

    Args:
        algorithm: the rule.
        codec: of the job, if any.
        size: elements of the center at this server.
        num_trainable: leading elements of them that the rule governs.
    """
    if codec is None:
        return None
    replies = codec.fine and not is_elastic(algorithm)
    return Packing(codec, size, num_trainable, weights=sends_weights(algorithm), replies=replies)
