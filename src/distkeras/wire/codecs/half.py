"""Half the bytes: IEEE half precision, or the upper half of single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import INFINITY, MAGNITUDE
from distkeras.wire.codecs.chunked import ChunkedCodec, Field

_HALVES = (Field(np.dtype("<u2"), 1),)

_SIGN, _QUIET_NAN, _UPPER_HALF = (np.uint32(bits) for bits in (0x80000000, 0x7FC00000, 0xFFFF0000))
_HALF_NAN, _HALF_INFINITY = np.uint32(0x7E00), np.uint32(0x7C00)
_THIRTEEN_UP = np.uint32(13 << 23)  # 2^13, as a difference of exponents
_ONE_HALF = np.float32(0.5)
_REBIAS = np.uint32(126 << 10)
_TOO_LARGE = np.uint32(0x477FF000)  # 65520, the first number that rounds to infinity
_EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@dataclass(frozen=True)
class FP16(ChunkedCodec):
    """IEEE half precision, to nearest even: relative error at most 2^-11, absolute 2^-25 near zero. Ratio 2.

    Values beyond 65504 become infinite, and the center refuses the message: use BF16 for such updates.
    """

    name: ClassVar[str] = "fp16"
    number: ClassVar[int] = 1
    near_lossless: ClassVar[bool] = True
    fields: ClassVar[tuple[Field, ...]] = _HALVES

    def encode_chunk(self, chunk: Vector, halves: Any, decoded: Vector) -> None:
        # NumPy's own cast gives the same bits, at a fraction of the speed for values below 2^-14, and many
        # updates are that small. For a magnitude x with exponent e, c = 2^(e + 13) has its last bit at the
        # last bit of a half with that exponent: so x + c is rounded like a half. 0.5 does so for subnormals.
        bits, words = chunk.view(np.uint32), decoded.view(np.uint32)
        size, added, total = np.empty((3, chunk.size), np.uint32)
        np.bitwise_and(bits, MAGNITUDE, out=size)
        np.bitwise_and(size, INFINITY, out=added)
        added += _THIRTEEN_UP
        rounder = added.view(np.float32)
        np.maximum(rounder, _ONE_HALF, out=rounder)
        np.add(size.view(np.float32), rounder, out=total.view(np.float32))
        np.subtract(total.view(np.float32), rounder, out=decoded)
        # The last bits of the sum are the half's, below an exponent that follows from that of c.
        total -= added
        added >>= np.uint32(13)
        total += added
        total -= _REBIAS
        large = size >= _TOO_LARGE
        if large.any():
            nan = size[large] > INFINITY
            total[large] = np.where(nan, _HALF_NAN, _HALF_INFINITY)
            words[large] = np.where(nan, _QUIET_NAN, INFINITY)
        sign = np.bitwise_and(bits, _SIGN, out=size)
        words |= sign
        sign >>= np.uint32(16)
        total |= sign
        np.copyto(halves, total, casting="unsafe")

    def decode_chunk(self, halves: Any, decoded: Vector) -> None:
        # "clip" clips nothing here: it avoids a copy of `decoded`.
        np.take(_EVERY_HALF, halves, out=decoded, mode="clip")


@dataclass(frozen=True)
class BF16(ChunkedCodec):
    """The upper 16 bits of single precision, rounded to nearest even. Relative error at most 2^-8. Ratio 2.

    Same range as single precision, and faster than FP16.
    """

    name: ClassVar[str] = "bf16"
    number: ClassVar[int] = 2
    near_lossless: ClassVar[bool] = True
    fields: ClassVar[tuple[Field, ...]] = _HALVES

    def encode_chunk(self, chunk: Vector, halves: Any, decoded: Vector) -> None:
        bits, words = chunk.view(np.uint32), decoded.view(np.uint32)
        np.right_shift(bits, 16, out=words)
        words &= 1
        words += 0x7FFF
        words += bits
        # A NaN whose bits are all ones, as GPUs write it, would be rounded to zero.
        nan = np.isnan(chunk)
        if nan.any():
            words[nan] = _QUIET_NAN
        np.copyto(halves, words >> np.uint32(16), casting="unsafe")
        words &= _UPPER_HALF

    def decode_chunk(self, halves: Any, decoded: Vector) -> None:
        words = decoded.view(np.uint32)
        np.copyto(words, halves)
        words <<= 16
