"""The interface of a codec, which compresses a float32 vector to fewer bytes and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector

Bytes = npt.NDArray[np.uint8]
"""A flat array of bytes."""

CHUNK = 64 * 1024
"""Elements per step: 256 KiB and their temporaries stay in a core's L2 cache."""

BLOCK = 1024
"""Elements that share one scale, for codecs with scales."""

LITTLE_FLOAT = np.dtype("<f4")

MAGNITUDE = np.uint32(0x7FFFFFFF)
"""Every bit of a float32 but its sign. As integers, magnitudes have the order of floats, NaN the largest."""

INFINITY = np.uint32(0x7F800000)
"""The bits of infinity; NaN has larger ones."""


@dataclass(frozen=True)
class Codec(ABC):
    """Converts float32 vectors to bytes, with losses, and back. Its dataclass fields are its parameters.

    The number of bytes depends only on the size of the vector, so that the length of a frame can be checked
    before its bytes are read. Values that are not finite must stay so, because the center has to see and
    refuse them. Neither method may keep state between two calls: the caller keeps the error that encoding
    makes (see `distkeras.wire.compression.Compression`).
    """

    name: ClassVar[str]
    """The codec's name for users: `compression="int8"`."""

    number: ClassVar[int]
    """The codec's number in a frame's header, in 1..255."""

    near_lossless: ClassVar[bool] = False
    """Whether one decoded vector is nearly exact. Replies are compressed only then: they have no feedback."""

    @abstractmethod
    def encoded_bytes(self, size: int) -> int:
        """Return the number of bytes of an encoded vector of `size` elements."""

    @abstractmethod
    def encode(self, vector: Vector, out: Bytes) -> None:
        """Write `vector` to `out`, shape (encoded_bytes(vector.size),); little-endian on every machine."""

    @abstractmethod
    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the vector encoded in `data` to `out`, which has the size of the encoded vector.

        Raises:
            CodecError: `data` encodes no vector of that size.
        """


class CodecError(ValueError):
    """The number of bytes is right, but no encoder has written them."""
