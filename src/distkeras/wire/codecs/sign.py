"""1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Training, Seide et al. 2014."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import BLOCK, LITTLE_FLOAT
from distkeras.wire.codecs.chunked import ChunkedCodec, Field, rows

_SIGN = np.uint32(0x80000000)


@dataclass(frozen=True)
class Sign(ChunkedCodec):
    """`mean|x| sign(x)` per block of 1024, one bit per value; zero has the sign of its bits. Ratio 31.

    The squared relative error of a block is exactly `1 - |x|_1^2 / (d |x|_2^2)`: much would be lost without
    error feedback. A block with a value that is not finite decodes to no finite value.

    Reference: Seide et al. 2014; Karimireddy et al. 2019, Error Feedback Fixes SignSGD (1901.09847).
    """

    name: ClassVar[str] = "sign"
    number: ClassVar[int] = 4
    fields: ClassVar[tuple[Field, ...]] = (Field(LITTLE_FLOAT, BLOCK), Field(np.dtype(np.uint8), 8))

    def encode_chunk(self, chunk: Vector, scales: Any, bits: Any, decoded: Vector) -> None:
        np.abs(chunk, out=decoded)
        scales[:] = rows(decoded).mean(axis=1)
        bits[:] = np.packbits(np.signbit(chunk))
        words = decoded.view(np.uint32)
        np.bitwise_and(chunk.view(np.uint32), _SIGN, out=words)
        _apply(scales, words)

    def decode_chunk(self, scales: Any, bits: Any, decoded: Vector) -> None:
        words = decoded.view(np.uint32)
        np.copyto(words, np.unpackbits(bits, count=decoded.size))
        words <<= 31
        _apply(scales, words)


def _apply(scales: Any, signs: Any) -> None:
    """Change the sign bits of a chunk to the scales with these signs."""
    words = rows(signs)
    words ^= scales.astype(np.float32).view(np.uint32)[:, None]
