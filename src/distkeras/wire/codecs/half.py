"""Half the bytes: IEEE half precision, and the upper half of single precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, Bytes, Codec

_LITTLE_HALF = np.dtype("<f2")
_LITTLE_SHORT = np.dtype("<u2")
_QUIET_NAN = 0x7FC0


@dataclass(frozen=True)
class FP16(Codec):
    """IEEE half precision: relative error at most 2^-11, absolute at most 2^-25 near zero. Ratio 2.

    Values beyond 65504 become infinite, and the center refuses the message: for updates that large take BF16.
    """

    name: ClassVar[str] = "fp16"
    number: ClassVar[int] = 1

    def encoded_bytes(self, size: int) -> int:
        return 2 * size

    def encode(self, vector: Vector, out: Bytes) -> None:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            np.copyto(out.view(_LITTLE_HALF), vector, casting="same_kind")

    def decode(self, data: Bytes, out: Vector) -> None:
        np.copyto(out, data.view(_LITTLE_HALF))


@dataclass(frozen=True)
class BF16(Codec):
    """The upper 16 bits of single precision, rounded to nearest even: relative error at most 2^-8. Ratio 2.

    Same range as single precision, and several times faster than FP16 where the processor has no half type.
    """

    name: ClassVar[str] = "bf16"
    number: ClassVar[int] = 2

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
            # Rounding carries a NaN whose bits are all ones, as graphics processors write it, over to zero.
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
