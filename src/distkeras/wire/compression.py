"""Compression of the vectors between one worker and the center, with losses corrected by later messages.

Messages that are differences use error feedback: the residual `e`, the part of a message that the codec
drops, is added to the next message, `m = C(u + e); e <- u + e - m`. So the sum of all messages equals the sum
of all decoded messages plus the residual. Only the worker's death loses the residual: its replacement starts
with `e = 0`. An algorithm's `residual_decay` multiplies `e` first.

Messages that are weights (of elastic algorithms), and replies that are the center, travel as the difference
to the receiver's copy: both ends keep the vector as it has arrived, `y <- y + C(x - y)`. The next difference
contains what the codec dropped of this one. The first vector of a connection travels whole, so a lost
connection needs no repair.

Statistics travel uncompressed and leave no residual.

References: Seide et al. 2014; CHOCO-SGD, Koloskova et al. 2019 (1902.00340); Mishchenko et al. 2019
(1901.09269).
"""

from __future__ import annotations

from typing import Any, final

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.answers import Exchanged, Joined, Skipped
from distkeras.center.requests import Exchange
from distkeras.wire import frames
from distkeras.wire.codecs import Bytes, Codec, Packing
from distkeras.wire.codecs.packing import check_decay


@final
class Compression:
    """Compresses what one end sends, and decompresses what it receives.

    A worker's end lives as long as its client, over several connections: call `connected` after each.

    Args:
        packing: the job's compression.
        at_server: whether this is the server's end of a connection.

    Attributes:
        residual: the part of a worker's messages that the codec has dropped so far, shape (size,); `None`
            before the first message.
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
        self._base: Vector | None = None  # The vector that differences add to; `None`: the next comes whole.
        # Allocated at first use: each is as large as a message.
        self._sent = np.empty(0, np.uint8)
        self._received = np.empty(0, np.uint8)

    def connected(self) -> None:
        """Prepare for a new connection."""
        self._base = None

    def encode(self, message: Exchange) -> None:
        """Compress the vector of a worker's `message`, and overwrite it with what the center will decode.

        Weights stay unchanged: their compression depends on the connection.
        """
        if not self._feeds_back:
            return
        if self.residual is None:
            self.residual = np.zeros(self._packing.size, np.float32)
        self._sent = self._sized(self._sent)
        self._packing.encode_with_feedback(message.message, self.residual, self._sent)
        self._encoded = message.worker, message.sequence

    def pack(self, message: frames.Message) -> frames.Encoded | None:
        """Return the encoded vector of `message`; `None` if it travels unchanged. Overwrites a worker's
        vector with what the center will decode.

        A message with error feedback is encoded once: sent again, it has the same bytes. The bytes are valid
        until the next call.
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
        self._sent = self._sized(self._sent)
        # An elastic worker needs its weights as they arrive. Nobody reads a reply that has been sent, and all
        # workers of a round share it.
        overwrite = isinstance(message, Exchange)
        self._packing.encode_difference(vector, self._base, self._sent, overwrite=overwrite)
        return frames.Encoded(self._packing.codec.number, self._sent)

    def forms(self, whole: frames.Form) -> dict[type, tuple[frames.Form, ...]]:
        """Return the forms (codec, bytes) of the vector that the next frame may have other than `whole`."""
        packed = (self._packing.codec.number, self._packing.num_bytes)
        if self._receives_deltas:
            return {Exchange: (packed,)}
        if not self._receives_differences or self._base is None:
            return {}
        # A worker that must restart receives the whole center.
        return {Exchange: (packed,), Exchanged: (packed, whole)}

    def fitted(self, message: Any, form: frames.Form, buffer: Vector) -> Any:
        """Return `message`, whose vector in `form` is still to arrive in `buffer`: all of it."""
        return message

    def room(self) -> Bytes:
        """Return the buffer for the bytes of an encoded vector."""
        self._received = self._sized(self._received)
        return self._received

    def unpack(self, data: Bytes, out: Vector) -> None:
        """Decode the vector that arrived as `data` to `out`, shape (size,).

        Raises:
            CodecError: `data` comes from no encoder.
        """
        if self._receives_differences and self._base is not None:
            self._packing.add_difference(data, self._base, out)
        else:
            self._packing.decode(data, out)

    def take_note(self, message: frames.Message, *, whole: bool) -> None:
        """Record a `message` that arrived, and its vector if that came `whole`."""
        if isinstance(message, Joined):
            self._packing.load()  # Before the first window. Connections of heartbeats and drivers never join.
        vector = frames.vector_of(message) if whole else None
        if vector is not None and self._receives_differences:
            self._base = vector[: self._split].copy()
        if self._sends_differences and _breaks_off(message):
            self._base = None
        # A worker that joins repeats windows, whose residual would count twice. After a skipped window the
        # residual contains the bad message.
        if self._feeds_back and isinstance(message, Joined | Skipped):
            self.residual = self._encoded = None

    def _sized(self, data: Bytes) -> Bytes:
        return data if data.size == self._packing.num_bytes else np.empty(self._packing.num_bytes, np.uint8)


def _breaks_off(reply: frames.Message) -> bool:
    """Return whether the two ends may disagree on what arrived, so that the next message travels whole.

    A skipped message may hold NaN. The network may have delivered a repeated one twice.
    """
    return isinstance(reply, Skipped) or (isinstance(reply, Exchanged) and reply.restart)


def sends_weights(algorithm: Algorithm) -> bool:
    """Return whether the algorithm's messages are weights: they are not zero if a window changed nothing."""
    weights = np.ones(8, np.float32)
    return bool(algorithm.commit_with(weights, weights.copy(), 1, {}).any())


def is_elastic(algorithm: Algorithm) -> bool:
    """Return whether a worker continues from both its own weights and the reply, not from one of the two."""
    fitted = algorithm.for_workers(1)

    def adopted(local: float, reply: float) -> bytes:
        here, there = np.full(8, local, np.float32), np.full(8, reply, np.float32)
        return fitted.adopt_with(here, np.zeros(8, np.float32), there, {}).tobytes()

    return adopted(1, 1) not in (adopted(2, 1), adopted(1, 2))


def packing_of(algorithm: Algorithm, codec: Codec | None, size: int, num_trainable: int) -> Packing | None:
    """Return the compression of a job's vectors; `None` for no compression.

    Replies are compressed if they are the center and the codec is nearly lossless. The elastic force is never
    compressed: the worker must subtract exactly what the center added. A worker that mixes its weights with
    the reply, and counts its next delta from that reply, has no force to subtract.

    Args:
        algorithm: the algorithm.
        codec: the job's codec; `None` for none.
        size: number of elements of the center at this server.
        num_trainable: number of leading elements that the algorithm updates.
    """
    if codec is None:
        return None
    weights = sends_weights(algorithm)
    has_force = is_elastic(algorithm) and not algorithm.anchor_at_reply
    replies = codec.near_lossless and not weights and not has_force
    return Packing(
        codec,
        size,
        num_trainable,
        weights=weights,
        replies=replies,
        residual_decay=algorithm.residual_decay,
    )


def check_compressible(algorithm: Algorithm) -> None:
    """Raise ValueError if compression would lose parts of the algorithm's messages.

    For deltas, error feedback adds the dropped part to the next message; an elastic worker keeps it in its
    own weights. A `residual_decay` out of range is refused, too.
    """
    check_decay(algorithm.residual_decay)
    if sends_weights(algorithm) and not is_elastic(algorithm):
        raise ValueError(
            f"{algorithm.name} sends weights, and compression would lose parts of them. Use "
            "`compression=None`, an algorithm that sends deltas (LocalSGD for Averaging), or an elastic one. "
            f"Received: algorithm={algorithm!r}"
        )
