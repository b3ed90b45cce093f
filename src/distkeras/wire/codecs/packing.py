"""The layout of a compressed vector in a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import LITTLE_FLOAT, Bytes, Codec
from distkeras.wire.codecs.chunked import decoders, encoders
from distkeras.wire.codecs.compiled import MEMORY_BYTES, compiles, load


@dataclass(frozen=True)
class Packing:
    """The statistics uncompressed, then the trainable part in the codec's bytes.

    Statistics (such as BatchNorm's) are weights, not differences: the center would lose what a codec drops of
    them, and a rounded variance may be zero. They are few.

    Args:
        codec: compresses the trainable part.
        size: number of elements of the message.
        num_trainable: number of leading elements that the algorithm updates.
        weights: whether messages are weights, sent as the difference to the previous one.
        replies: whether replies are compressed, sent as the difference to the previous one.
        residual_decay: factor, in [0, 1], of what earlier messages lacked before the next one adds to it.

    Raises:
        ValueError: both messages and replies are such differences, or the decay is out of range.
    """

    codec: Codec
    size: int
    num_trainable: int
    weights: bool = False
    replies: bool = False
    residual_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.weights and self.replies:  # One end would have to keep two vectors.
            raise ValueError(
                "Expected messages or replies that travel as differences, not both. "
                f"Received: weights={self.weights}, replies={self.replies}"
            )
        check_decay(self.residual_decay)

    @cached_property
    def num_bytes(self) -> int:
        """Number of bytes of a packed message."""
        return self._split + self.codec.encoded_bytes(self.num_trainable)

    @property
    def _split(self) -> int:
        return LITTLE_FLOAT.itemsize * (self.size - self.num_trainable)

    @property
    def kernel_bytes(self) -> int:
        """Memory that a process takes for compiled kernels of the codec; 0 without any."""
        return MEMORY_BYTES if compiles(self.codec.name, self.num_trainable) else 0

    def load(self) -> None:
        """Load the codec's compiled kernels, if it has any, so that no exchange waits for the compiler.

        Before that, and in processes that do not call it, codecs compute the same bits with NumPy.
        """
        load(self.codec.name, self.num_trainable)

    def encode(self, message: Vector, out: Bytes) -> None:
        """Write `message`, shape (size,), to `out`, shape (num_bytes,)."""
        self._pack_statistics(message, out)
        self.codec.encode(message[: self.num_trainable], out[self._split :])

    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the message packed in `data`, shape (num_bytes,), to `out`, shape (size,).

        Raises:
            CodecError: no encoder has written `data`.
        """
        self._copy_statistics(data, out)
        self.codec.decode(data[self._split :], out[: self.num_trainable])

    # The following methods go over each vector once, chunk by chunk: for a large model the memory, not the
    # processor, sets the time of an exchange. The center refuses what is not finite, so nothing warns of it.

    def encode_with_feedback(self, message: Vector, residual: Vector, out: Bytes) -> None:
        """Encode `message` and the `residual` of earlier messages: `m = C(u + e); e <- u + e - m`.

        Args:
            message: u, shape (size,); overwritten with m, which is what `out` decodes to.
            residual: e, shape (size,); updated. It is multiplied by `residual_decay` first.
            out: receives the packed message, shape (num_bytes,).
        """
        self._pack_statistics(message, out)
        with np.errstate(all="ignore"):
            for place, encode in encoders(self.codec, out[self._split :], self.num_trainable):
                part, rest = message[place], residual[place]
                if self.residual_decay != 1:
                    rest *= np.float32(self.residual_decay)
                rest += part
                encode(rest, part)
                rest -= part

    def encode_difference(self, vector: Vector, base: Vector, out: Bytes, *, overwrite: bool) -> None:
        """Encode the difference of `vector` to `base`: `y <- y + C(x - y)`.

        Args:
            vector: x, shape (size,).
            base: y, shape (num_trainable,); updated to what the other end will have.
            out: receives the packed difference, shape (num_bytes,).
            overwrite: whether to copy y to `vector`, too.
        """
        self._pack_statistics(vector, out)
        spare: Vector | None = None
        with np.errstate(all="ignore"):
            for place, encode in encoders(self.codec, out[self._split :], self.num_trainable):
                part, known = vector[place], base[place]
                if spare is None:  # The first piece is the largest.
                    spare = np.empty((2, part.size), np.float32)
                difference, decoded = spare[:, : part.size]
                np.subtract(part, known, out=difference)
                encode(difference, decoded)
                known += decoded
                if overwrite:
                    np.copyto(part, known)

    def add_difference(self, data: Bytes, base: Vector, out: Vector) -> None:
        """Add the difference packed in `data` to `base`, shape (num_trainable,); copy the sum to `out`.

        Raises:
            CodecError: no encoder has written `data`; `base` is unchanged.
        """
        self._copy_statistics(data, out)
        with np.errstate(all="ignore"):
            for place, decode in decoders(self.codec, data[self._split :], self.num_trainable):
                part, known = out[place], base[place]
                decode(part)
                known += part
                np.copyto(part, known)

    def _pack_statistics(self, message: Vector, out: Bytes) -> None:
        out[: self._split].view(LITTLE_FLOAT)[:] = message[self.num_trainable :]

    def _copy_statistics(self, data: Bytes, out: Vector) -> None:
        out[self.num_trainable :] = data[: self._split].view(LITTLE_FLOAT)


def check_decay(residual_decay: float) -> None:
    """Raise ValueError if an algorithm's `residual_decay` is out of range."""
    number = isinstance(residual_decay, int | float) and not isinstance(residual_decay, bool)
    if not number or not 0 <= residual_decay <= 1:
        raise ValueError(
            "`residual_decay` of an algorithm must be a number in [0, 1]: the share that the next message "
            f"keeps of what compression dropped. Received: residual_decay={residual_decay!r}"
        )
