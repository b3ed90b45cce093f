"""How the vectors between one worker and the center travel where the job compresses. Nothing is lost by it.

Messages that are differences travel with error feedback: what the codec drops of one, the residual `e`, is
added to the next, `m = C(u + e); e <- u + e - m`. So the sum of what was fed is the sum of what was decoded
plus the residual, which is lost by the worker's death alone: its replacement begins with `e = 0`.

Messages that are weights (of elastic rules), and replies that are the center, travel as the difference to
what the other side has: both ends keep the vector as it has arrived, `y <- y + C(x - y)`. What the codec
drops of one is in the next, since that is the difference to what arrived. The first vector of a connection
travels whole, so a cut needs no repair.

Statistics travel as they are, and leave no residual.

Reference: Seide et al. 2014; CHOCO-SGD, Koloskova et al. 2019 (1902.00340); Mishchenko et al. 2019
(1901.09269).
"""

from __future__ import annotations

from typing import final

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.messages import Exchange, Exchanged, Joined, Skipped
from distkeras.wire import frames
from distkeras.wire.codecs import Bytes, Codec, Packing


@final
class Compression:
    """One end's compression of what it sends, and decompression of what it receives.

    A worker's end lasts as long as the worker's client, over several connections: `connected` tells of each.

    Args:
        packing: of the job.
        at_server: whether this is the server's end of a connection.

    Attributes:
        residual: what the codec has dropped of a worker's messages, shape (size,); `None` before the first.
    """

    def __init__(self, packing: Packing, *, at_server: bool) -> None:
        self._packing = packing
        self._split = packing.num_trainable
        self._sends_differences = packing.replies if at_server else packing.weights
        self._receives_differences = packing.weights if at_server else packing.replies
        self._feeds_back = not at_server and not packing.weights
        self._receives_deltas = at_server and not packing.weights
        self.residual: Vector | None = None
        self._encoded: tuple[int, int] | None = None  # Worker and sequence of the message in `_sent`.
        self._base: Vector | None = None  # What a difference is added to; `None`: the next comes whole.
        # Not before the first: each is as large as a message.
        self._sent = np.empty(0, np.uint8)
        self._received = np.empty(0, np.uint8)

    def connected(self) -> None:
        """Take note of a new connection."""
        self._base = None

    def encode(self, message: Exchange) -> None:
        """Compress the vector of a worker's `message`, and overwrite it with what the center will decode.

        Weights, whose compression depends on the connection, stay as they are.
        """
        if not self._feeds_back:
            return
        if self.residual is None:
            self.residual = np.zeros(self._packing.size, np.float32)
        vector, residual = message.message, self.residual
        with np.errstate(over="ignore", invalid="ignore"):  # The center refuses what is not finite.
            residual += vector
            self._sent = self._sized(self._sent)
            self._packing.encode(residual, self._sent)
            self._packing.decode(self._sent, vector)
            residual -= vector
        self._encoded = message.worker, message.sequence

    def pack(self, message: frames.Message) -> frames.Encoded | None:
        """Return what is to travel in place of the vector of `message`, which may be overwritten.

        A message with error feedback that is sent again travels as it did: it is encoded once. The bytes are
        valid until the next call.
        """
        if self._receives_differences and _breaks_off(message):
            self._base = None
        if self._feeds_back and isinstance(message, Exchange):
            if self._encoded != (message.worker, message.sequence):
                self.encode(message)
            return frames.Encoded(self._packing.codec.number, self._sent)
        vector = frames.vector_of(message)
        if not self._sends_differences or vector is None:
            return None
        follows = isinstance(message, Exchange) or (isinstance(message, Exchanged) and not message.restart)
        if self._base is None or not follows:
            self._base = vector[: self._split].copy()
            return None
        if not vector.flags.writeable:  # The reply to all workers of a round.
            vector = vector.copy()
        self._sent = self._sized(self._sent)
        with np.errstate(over="ignore", invalid="ignore"):  # The center refuses what is not finite.
            vector[: self._split] -= self._base
            self._packing.encode(vector, self._sent)
        self._add_difference(self._base, self._sent, vector)
        return frames.Encoded(self._packing.codec.number, self._sent)

    def forms(self, whole: frames.Form) -> dict[type, tuple[frames.Form, ...]]:
        """Return codec and bytes that the vector of the next frame may have, where it is not `whole`."""
        packed = (self._packing.codec.number, self._packing.num_bytes)
        if self._receives_deltas:
            return {Exchange: (packed,)}
        if not self._receives_differences or self._base is None:
            return {}
        # A worker that must start anew is told the whole center.
        return {Exchange: (packed,), Exchanged: (packed, whole)}

    def room(self) -> Bytes:
        """Return where the bytes of an encoded vector are received."""
        self._received = self._sized(self._received)
        return self._received

    def unpack(self, data: Bytes, out: Vector) -> None:
        """Write the vector that arrived as `data` to `out`, shape (size,).

        Raises:
            CodecError: `data` was written by no encoder.
        """
        if self._receives_differences and self._base is not None:
            self._add_difference(self._base, data, out)
        else:
            self._packing.decode(data, out)

    def take_note(self, message: frames.Message, *, whole: bool) -> None:
        """Take note of a `message` that arrived, and of its vector if that came `whole`."""
        vector = frames.vector_of(message) if whole else None
        if vector is not None and self._receives_differences:
            self._base = vector[: self._split].copy()
        if self._sends_differences and _breaks_off(message):
            self._base = None
        # A worker that joins repeats windows, whose residual would count twice. One that was passed over has
        # in its residual what was wrong with its message.
        if self._feeds_back and isinstance(message, Joined | Skipped):
            self.residual = self._encoded = None

    def _add_difference(self, base: Vector, data: Bytes, out: Vector) -> None:
        """Write the vector of which `data` is the difference to `base` to both."""
        self._packing.decode(data, out)
        part = out[: self._split]
        with np.errstate(over="ignore", invalid="ignore"):
            part += base
        np.copyto(base, part)

    def _sized(self, data: Bytes) -> Bytes:
        return data if data.size == self._packing.num_bytes else np.empty(self._packing.num_bytes, np.uint8)


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
    fitted = algorithm.for_workers(1)

    def adopted(local: float, reply: float) -> bytes:
        here, there = np.full(8, local, np.float32), np.full(8, reply, np.float32)
        return fitted.adopt(here, np.zeros(8, np.float32), there).tobytes()

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
    weights = sends_weights(algorithm)
    replies = codec.near_lossless and not weights and not is_elastic(algorithm)
    return Packing(codec, size, num_trainable, weights=weights, replies=replies)


def check_compressible(algorithm: Algorithm) -> None:
    """Raise ValueError where what a codec drops of a message would be lost.

    Of a delta it is added to the next one, and an elastic worker keeps it in its own weights.
    """
    if sends_weights(algorithm) and not is_elastic(algorithm):
        raise ValueError(
            f"{algorithm.name} sends weights, and what compression drops of them would be lost. Use "
            "`compression=None`, or a rule that sends deltas (LocalSGD for Averaging), or an elastic one. "
            f"Received: algorithm={algorithm!r}"
        )
