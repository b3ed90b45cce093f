"""The contract of a codec: how a float32 vector becomes fewer bytes, and a vector again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector

Bytes = npt.NDArray[np.uint8]
"""A flat array of bytes."""

CHUNK = 64 * 1024
"""Elements worked on at a time: 256 KiB and their temporaries stay in a core's second cache."""

BLOCK = 1024
"""Elements that share one scale, where a codec has scales."""

LITTLE_FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Codec(ABC):
    """Turns float32 vectors into bytes, with a loss, and back. Its dataclass fields are its parameters.

    The number of bytes depends on the size of the vector alone, so that the length of a frame can be checked
    before a byte of it is read. What is not finite must not become finite: the center refuses such a message,
    and it has to see it. Neither method may keep anything between two calls: what is lost is kept by whoever
    encodes (see `distkeras.wire.compression.Compression`).
    """

    name: ClassVar[str]
    """As users write it: `compression="int8"`."""

    number: ClassVar[int]
    """As it stands in a frame's header, in 1..255."""

    near_lossless: ClassVar[bool] = False
    """Whether one vector alone says nearly all. Then replies travel so too, which are all a worker gets."""

    @abstractmethod
    def encoded_bytes(self, size: int) -> int:
        """Return the bytes that a vector of `size` elements takes."""

    @abstractmethod
    def encode(self, vector: Vector, out: Bytes) -> None:
        """Write `vector` to `out`, shape (encoded_bytes(vector.size),); little-endian on every machine."""

    @abstractmethod
    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the vector that `data` holds to `out`, which has the size that it was encoded with.

        Raises:
            CodecError: no vector of that size is encoded so.
        """


class CodecError(ValueError):
    """Bytes of the right number that no encoder has written."""


def block_slices(size: int) -> Iterator[tuple[slice, slice, int]]:
    """Cut a vector into pieces of about `CHUNK` elements, each of whole blocks of one width.

    Yields:
        The elements of the piece, its blocks, and their width: `BLOCK`, or what is left at the end.
    """
    whole = size - size % BLOCK
    for low in range(0, whole, CHUNK):
        high = min(low + CHUNK, whole)
        yield slice(low, high), slice(low // BLOCK, high // BLOCK), BLOCK
    if whole < size:
        yield slice(whole, size), slice(whole // BLOCK, whole // BLOCK + 1), size - whole


def num_blocks(size: int) -> int:
    """Return the number of blocks, the last of which may be partial."""
    return -(-size // BLOCK)
