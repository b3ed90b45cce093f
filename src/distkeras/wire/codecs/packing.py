"""The layout of a compressed vector in a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import LITTLE_FLOAT, Bytes, Codec


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

    Raises:
        ValueError: both messages and replies are such differences.
    """

    codec: Codec
    size: int
    num_trainable: int
    weights: bool = False
    replies: bool = False

    def __post_init__(self) -> None:
        if self.weights and self.replies:  # One end would have to keep two vectors.
            raise ValueError(
                "Expected messages or replies that travel as differences, not both. "
                f"Received: weights={self.weights}, replies={self.replies}"
            )

    @cached_property
    def num_bytes(self) -> int:
        """Number of bytes of a packed message."""
        return self._split + self.codec.encoded_bytes(self.num_trainable)

    @property
    def _split(self) -> int:
        return LITTLE_FLOAT.itemsize * (self.size - self.num_trainable)

    def encode(self, message: Vector, out: Bytes) -> None:
        """Write `message`, shape (size,), to `out`, shape (num_bytes,)."""
        out[: self._split].view(LITTLE_FLOAT)[:] = message[self.num_trainable :]
        self.codec.encode(message[: self.num_trainable], out[self._split :])

    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the message packed in `data`, shape (num_bytes,), to `out`, shape (size,).

        Raises:
            CodecError: no encoder has written `data`.
        """
        out[self.num_trainable :] = data[: self._split].view(LITTLE_FLOAT)
        self.codec.decode(data[self._split :], out[: self.num_trainable])
