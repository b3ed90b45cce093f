"""Half the bytes: IEEE half precision, or the upper half of single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, Bytes, Codec

_LITTLE_SHORT = np.dtype("<u2")
_QUIET_NAN = 0x7FC0

_HALF_NAN, _HALF_INFINITY = 0x7E00, 0x7C00
_SMALLEST_NORMAL_HALF = 0x38800000  # 2^-14, as the bits of a single
_REBIAS = 0x38000000  # difference of the exponents' offsets
_BITS_OF_ONE_HALF = 0x3F000000
_EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@dataclass(frozen=True)
class FP16(Codec):
    """IEEE half precision, to nearest even: relative error at most 2^-11, absolute 2^-25 near zero. Ratio 2.

    Values beyond 65504 become infinite, and the center refuses the message: use BF16 for such updates.
    """

    name: ClassVar[str] = "fp16"
    number: ClassVar[int] = 1
    near_lossless: ClassVar[bool] = True

    def encoded_bytes(self, size: int) -> int:
        return 2 * size

    def encode(self, vector: Vector, out: Bytes) -> None:
        # NumPy's own cast gives the same bits, at a twentieth of the speed for values below 2^-14, and many
        # updates are that small.
        bits, halves = vector.view(np.int32), out.view(_LITTLE_SHORT)
        spare = np.empty((3, min(CHUNK, vector.size)), np.int32)
        for low in range(0, vector.size, CHUNK):
            part = bits[low : low + CHUNK]
            size, half, subnormal = spare[:, : part.size]
            np.bitwise_and(part, 0x7FFFFFFF, out=size)
            np.right_shift(size, 13, out=half)
            half &= 1
            half += size
            half -= _REBIAS - 0xFFF
            half >>= 13
            np.minimum(half, _HALF_INFINITY, out=half)
            # Adding 0.5, whose last bit is worth 2^-24, rounds a smaller value like a subnormal half. The
            # larger of both results is the right one; a mask would cost more than everything else.
            np.minimum(size, _SMALLEST_NORMAL_HALF, out=subnormal)
            rounded = subnormal.view(np.float32)
            rounded += np.float32(0.5)
            subnormal -= _BITS_OF_ONE_HALF
            np.maximum(half, subnormal, out=half)
            nan = np.isnan(vector[low : low + CHUNK])
            if nan.any():
                half[nan] = _HALF_NAN
            np.right_shift(part, 16, out=size)
            size &= 0x8000
            half |= size
            np.copyto(halves[low : low + CHUNK], half, casting="unsafe")

    def decode(self, data: Bytes, out: Vector) -> None:
        halves = data.view(_LITTLE_SHORT)
        for low in range(0, out.size, CHUNK):
            # "clip" clips nothing here: it avoids a copy of `out`.
            np.take(_EVERY_HALF, halves[low : low + CHUNK], out=out[low : low + CHUNK], mode="clip")


@dataclass(frozen=True)
class BF16(Codec):
    """The upper 16 bits of single precision, rounded to nearest even. Relative error at most 2^-8. Ratio 2.

    Same range as single precision, and faster than FP16.
    """

    name: ClassVar[str] = "bf16"
    number: ClassVar[int] = 2
    near_lossless: ClassVar[bool] = True

    def encoded_bytes(self, size: int) -> int:
        return 2 * size

    def encode(self, vector: Vector, out: Bytes) -> None:
        bits, halves = vector.view(np.uint32), out.view(_LITTLE_SHORT)
        rounded = np.empty(min(CHUNK, vector.size), np.uint32)
        for low in range(0, vector.size, CHUNK):
            part = bits[low : low + CHUNK]
            upper = rounded[: part.size]
            np.right_shift(part, 16, out=upper)
            upper &= 1
            upper += 0x7FFF
            upper += part
            upper >>= 16
            # A NaN whose bits are all ones, as GPUs write it, would be rounded to zero.
            nan = np.isnan(vector[low : low + CHUNK])
            if nan.any():
                upper[nan] = _QUIET_NAN
            np.copyto(halves[low : low + CHUNK], upper, casting="unsafe")

    def decode(self, data: Bytes, out: Vector) -> None:
        bits, halves = out.view(np.uint32), data.view(_LITTLE_SHORT)
        for low in range(0, out.size, CHUNK):
            part = bits[low : low + CHUNK]
            np.copyto(part, halves[low : low + CHUNK])
            part <<= 16
