"""A quarter of the bytes: integers from -127 to 127 and one scale per block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import BLOCK, INFINITY, LITTLE_FLOAT, MAGNITUDE
from distkeras.wire.codecs.chunked import ChunkedCodec, Field, rows

_SMALLEST = np.finfo(np.float32).tiny
_ROUNDER = np.float32(3 * 2.0**22)
"""Added to a number below 2^22, it leaves the nearest integer in the lower bits of the sum."""


@dataclass(frozen=True)
class Int8(ChunkedCodec):
    """`round(x / s) s` with `s = max|x| / 127` per block of 1024: error at most s / 2. Ratio 3.98.

    A block with a value that is not finite has the scale NaN, and decodes to NaN.
    """

    name: ClassVar[str] = "int8"
    number: ClassVar[int] = 3
    near_lossless: ClassVar[bool] = True
    fields: ClassVar[tuple[Field, ...]] = (Field(LITTLE_FLOAT, BLOCK), Field(np.dtype(np.int8), 1))

    def encode_chunk(self, chunk: Vector, scales: Any, levels: Any, decoded: Vector) -> None:
        blocks, words = rows(decoded), decoded.view(np.uint32)
        np.bitwise_and(chunk.view(np.uint32), MAGNITUDE, out=words)
        largest = rows(words).max(axis=1)
        # A scale below the normal numbers has no reciprocal. Zeros get a scale like other values.
        scale = np.maximum(largest.view(np.float32) / 127, _SMALLEST)
        np.multiply(rows(chunk), (1 / scale)[:, None], out=blocks)
        decoded += _ROUNDER
        np.copyto(levels, words, casting="unsafe")
        decoded -= _ROUNDER
        blocks *= scale[:, None]
        bad = largest >= INFINITY
        if bad.any():
            scale[bad] = blocks[bad] = np.nan
            rows(levels)[bad] = 0
        scales[:] = scale

    def decode_chunk(self, scales: Any, levels: Any, decoded: Vector) -> None:
        np.copyto(decoded, levels)
        blocks = rows(decoded)
        blocks *= scales[:, None]
