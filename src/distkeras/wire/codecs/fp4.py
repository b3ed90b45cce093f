"""Streaming DiLoCo with Overlapping Communication, Douillard et al. 2025 (2501.18512): messages of 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import BLOCK, INFINITY, LITTLE_FLOAT, MAGNITUDE
from distkeras.wire.codecs.chunked import ChunkedCodec, Field, rows

_SMALLEST = np.finfo(np.float32).tiny
_HALF_STEP = np.uint32(0x400000)
"""Added to the bits of a float32, it carries into the exponent from 1.5 times a power of two on."""
_LEAST = np.uint32(120)
"""Biased exponent of 2^-7, half of the smallest value of a code."""
_VALUES = np.array([0, *(2.0 ** (code - 7) for code in range(1, 8))], np.float32)
_TABLE = np.concatenate((_VALUES, -_VALUES))


@dataclass(frozen=True)
class FP4(ChunkedCodec):
    """The nearest of 0 and `s 2^-6 .. s`, with `s = max|x|` per block of 1024, and a sign: E3M0. Ratio 7.94.

    The error is at most a third of the value, or `2^-7 s` where that is more. A block with a value that is
    not finite has the scale NaN, and decodes to NaN.

    Reference: Douillard et al. 2025, section 2.4.
    """

    name: ClassVar[str] = "fp4"
    number: ClassVar[int] = 6
    fields: ClassVar[tuple[Field, ...]] = (Field(LITTLE_FLOAT, BLOCK), Field(np.dtype(np.uint8), 2))

    def encode_chunk(self, chunk: Vector, scales: Any, pairs: Any, decoded: Vector) -> None:
        words = decoded.view(np.uint32)
        np.bitwise_and(chunk.view(np.uint32), MAGNITUDE, out=words)
        largest = rows(words).max(axis=1)
        scale = np.maximum(largest.view(np.float32), _SMALLEST)
        scale[largest >= INFINITY] = np.nan
        blocks = rows(decoded)
        blocks /= scale[:, None]
        above = decoded >= 2.0**-7
        words += _HALF_STEP
        words >>= 23
        codes = np.clip(words, _LEAST, _LEAST + 7).astype(np.uint8) - np.uint8(_LEAST)
        np.maximum(codes, above, out=codes, casting="unsafe")
        codes *= ~np.repeat(np.isnan(scale), blocks.shape[1])
        codes += np.signbit(chunk).astype(np.uint8) << 3
        pairs[:] = codes[::2]
        pairs[: codes.size // 2] |= codes[1::2] << 4
        scales[:] = scale
        self.decode_chunk(scales, pairs, decoded)

    def decode_chunk(self, scales: Any, pairs: Any, decoded: Vector) -> None:
        decoded[::2] = _TABLE[pairs & 15]
        decoded[1::2] = _TABLE[pairs[: decoded.size // 2] >> 4]
        blocks = rows(decoded)
        blocks *= scales[:, None]
