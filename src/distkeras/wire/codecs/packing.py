"""How a vector lies in a frame when the job compresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from distkeras.algorithms import Vector
from distkeras.center.layout import trainable_in
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
        weights: messages are weights, and travel as the difference to the one before.
        replies: replies are compressed, as the difference to the one before.
    """

    codec: Codec
    size: int
    num_trainable: int
    weights: bool = False
    replies: bool = False

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


@dataclass(frozen=True)
class Joint:
    """Packings of parts that lie one after the other, as one: a server has each.

    Args:
        packings: of the parts, at least one, all by the same codec.
    """

    packings: tuple[Packing, ...]

    @property
    def codec(self) -> Codec:
        """The codec of all parts."""
        return self.packings[0].codec

    @property
    def size(self) -> int:
        """Elements of a message."""
        return sum(packing.size for packing in self.packings)

    @property
    def num_bytes(self) -> int:
        """Bytes of a packed message."""
        return sum(packing.num_bytes for packing in self.packings)

    def encode(self, message: Vector, out: Bytes) -> None:
        """Write `message`, shape (size,), to `out`, shape (num_bytes,)."""
        for packing, elements, data in self.parts():
            packing.encode(message[elements], out[data])

    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the message that `data`, shape (num_bytes,), holds to `out`, shape (size,).

        Raises:
            CodecError: `data` was written by no encoder.
        """
        for packing, elements, place in self.parts():
            packing.decode(data[place], out[elements])

    def parts(self) -> Iterator[tuple[Packing, slice, slice]]:
        """Yield each packing, the elements of a message that it packs, and the bytes that these become."""
        low = start = 0
        for packing in self.packings:
            high, end = low + packing.size, start + packing.num_bytes
            yield packing, slice(low, high), slice(start, end)
            low, start = high, end


def joint_packing(codec: Codec, sizes: Sequence[int], num_trainable: int) -> Joint:
    """Return how a message is packed whose parts, of `sizes`, go to different servers.

    Args:
        codec: compresses the trainable elements of each part.
        sizes: elements of each part.
        num_trainable: leading elements of the whole that the rule governs.
    """
    edges = list(accumulate(sizes, initial=0))
    return Joint(
        tuple(
            Packing(codec, high - low, trainable_in(low, high, num_trainable))
            for low, high in pairwise(edges)
        )
    )
