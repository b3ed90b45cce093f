"""Communication Efficient LLM Pre-training with SparseLoCo, Sarfi et al., 2025 (2508.15706)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, LITTLE_FLOAT, MAGNITUDE, Bytes, Codec, CodecError

WIDTH = 4096
"""Elements of a chunk: an index in it has 12 bits."""
INDEX_BITS = 12


@dataclass(frozen=True)
class ChunkTopK(Codec):
    """Of each chunk of 4096 the `k = ceil(density * 4096)` largest values, in a few bits each; the rest is 0.

    A value is a sign and one of `L = 2^(bits - 1)` levels. The k magnitudes of a chunk, in their order, make
    L groups of equal size, and a group's level is its mean. So the squared relative error is
    `1 - sum_j n_j level_j^2 / norm2^2`, below 1. Indices have 12 bits. Ratio 71 by default: 232 bytes for
    the 16,384 of a chunk. Values that are not finite count as largest, and make their group so.

    All else stays in the error feedback, as with `TopK`. Chunks are independent: every part of the model
    sends something, and large vectors need no search over all of it.

    Args:
        density: fraction of the values to send, in (0, 1].
        bits: bits of a value, 1 to 4.

    Reference: Sarfi et al. 2025, section 3, with means as levels.
    """

    density: float = 1 / 32
    bits: int = 2

    name: ClassVar[str] = "chunktopk"
    number: ClassVar[int] = 7

    def __post_init__(self) -> None:
        density, bits = self.density, self.bits
        number = isinstance(density, int | float) and not isinstance(density, bool)
        if not number or not 0 < density <= 1:
            raise ValueError(
                "`density` of ChunkTopK must be a number in (0, 1], the fraction of the values to send. "
                f"Received: density={density!r}"
            )
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 4:
            raise ValueError(f"`bits` of ChunkTopK must be an integer from 1 to 4. Received: bits={bits!r}")

    def kept(self, width: int) -> int:
        """Return k for a chunk of `width` elements: at least 1 if it is not empty."""
        return min(width, math.ceil(self.density * width))

    def encoded_bytes(self, size: int) -> int:
        full, rest = divmod(size, WIDTH)
        return full * sum(self._fields(WIDTH)) + sum(self._fields(rest))

    def encode(self, vector: Vector, out: Bytes) -> None:
        for chunks, data in _groups(self, vector, out):
            self._encode(chunks, data)

    def decode(self, data: Bytes, out: Vector) -> None:
        for chunks, encoded in _groups(self, out, data):
            self._decode(encoded, chunks)

    def _fields(self, width: int) -> tuple[int, int, int]:
        """Return the bytes of a chunk's levels, indices and codes."""
        k = self.kept(width)
        if not k:
            return 0, 0, 0
        return LITTLE_FLOAT.itemsize << (self.bits - 1), -(-INDEX_BITS * k // 8), -(-self.bits * k // 8)

    def _encode(self, chunks: Any, data: Any) -> None:
        """Write some chunks, shape (n, width), to `data`, shape (n, bytes of a chunk)."""
        k, groups = self.kept(chunks.shape[1]), 1 << (self.bits - 1)
        levels, indices, codes = self._views(data, chunks.shape[1])
        words = chunks.view(np.uint32) & MAGNITUDE  # As integers: NaN is above infinity.
        largest = np.sort(np.argpartition(words, chunks.shape[1] - k, axis=1)[:, -k:], axis=1)
        chosen = np.take_along_axis(words, largest, axis=1)
        order = np.argsort(chosen, axis=1, kind="stable")
        ranked = np.take_along_axis(chosen, order, axis=1).view(np.float32)
        of_rank = np.arange(k) * groups // k
        for group in range(groups):
            members = ranked[:, of_rank == group]
            # In float64: the sum of finite values must not become infinite.
            levels[:, group] = members.mean(axis=1, dtype=np.float64) if members.size else 0
        code = np.empty(chosen.shape, np.uint8)
        np.put_along_axis(code, order, np.broadcast_to(of_rank.astype(np.uint8), code.shape), axis=1)
        code |= np.signbit(np.take_along_axis(chunks, largest, axis=1)).astype(np.uint8) << (self.bits - 1)
        indices[:] = _packed(largest.astype(np.uint16), INDEX_BITS)
        codes[:] = _packed(code, self.bits)

    def _decode(self, data: Any, chunks: Any) -> None:
        """Write some chunks encoded in `data` to `chunks`; shapes as for `_encode`."""
        k, groups = self.kept(chunks.shape[1]), 1 << (self.bits - 1)
        levels, packed, codes = self._views(data, chunks.shape[1])
        indices = _unpacked(packed, k, INDEX_BITS)
        if indices.max() >= chunks.shape[1] or (np.diff(indices, axis=1) <= 0).any():
            raise CodecError(
                f"Expected {k} increasing indices below {chunks.shape[1]}. "
                f"Received: {indices[0, :8].tolist()}"
            )
        code = _unpacked(codes, k, self.bits)
        values = np.take_along_axis(levels.astype(np.float32), code & (groups - 1), axis=1)
        np.negative(values, out=values, where=code >= groups)
        chunks.fill(0)
        np.put_along_axis(chunks, indices, values, axis=1)

    def _views(self, data: Any, width: int) -> tuple[Any, Any, Any]:
        levels, indices, codes = np.split(data, np.cumsum(self._fields(width))[:-1], axis=1)
        return levels.view(LITTLE_FLOAT), indices, codes


def _groups(codec: ChunkTopK, vector: Vector, data: Bytes) -> Any:
    """Yield some chunks of `vector` at a time, shape (n, width), with their bytes, shape (n, bytes)."""
    whole = vector.size // WIDTH * WIDTH
    places = [slice(low, min(low + CHUNK, whole)) for low in range(0, whole, CHUNK)]
    start = 0
    for place in [*places, slice(whole, vector.size)]:
        width = min(WIDTH, place.stop - place.start)
        if width:
            end = start + codec.encoded_bytes(place.stop - place.start)
            count = (place.stop - place.start) // width
            yield vector[place].reshape(count, width), data[start:end].reshape(count, -1)
            start = end


def _packed(values: npt.NDArray[Any], width: int) -> npt.NDArray[np.uint8]:
    """Return the lowest `width` bits of each value, of each row one after the other, in whole bytes."""
    bits = (values[..., None] >> np.arange(width, dtype=values.dtype)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(len(values), -1), axis=1, bitorder="little")


def _unpacked(data: npt.NDArray[np.uint8], count: int, width: int) -> npt.NDArray[np.int64]:
    """Return the `count` values of each row that `_packed` has written."""
    bits = np.unpackbits(data, axis=1, count=count * width, bitorder="little")
    return bits.reshape(len(data), count, width) @ (1 << np.arange(width, dtype=np.int64))
