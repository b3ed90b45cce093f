"""How a worker's message lies in a frame when the job compresses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import LITTLE_FLOAT, Bytes, Codec


@dataclass(frozen=True)
class Packing:
    """The statistics as they are, then the trainable part by the codec.

    Statistics (such as BatchNorm's) are weights, not differences: what a codec drops of them would be missing
    in the center, and a rounded variance may be zero. They are few.

    Args:
        codec: compresses the trainable part.
        size: elements of the message.
        num_trainable: its leading elements that the rule governs.
    """

    codec: Codec
    size: int
    num_trainable: int

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of a packed message."""
        return self._split + self.codec.encoded_bytes(self.num_trainable)

    @property
    def _split(self) -> int:
        return LITTLE_FLOAT.itemsize * (self.size - self.num_trainable)

    def encode(self, message: Vector, out: Bytes) -> None:
        """Write `message`, shape (size,), to `out`, shape (num_bytes,)."""
        out[: self._split].view(LITTLE_FLOAT)[:] = message[self.num_trainable :]
        self.codec.encode(message[: self.num_trainable], out[self._split :])

    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the message that `data`, shape (num_bytes,), holds to `out`, shape (size,).

        Raises:
            CodecError: `data` was written by no encoder.
        """
        out[self.num_trainable :] = data[: self._split].view(LITTLE_FLOAT)
        self.codec.decode(data[self._split :], out[: self.num_trainable])
