"""A quarter of the bytes: integers from -127 to 127 and one scale per block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, LITTLE_FLOAT, Bytes, Codec, block_slices, num_blocks

_SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Int8(Codec):
    """`round(x / s) s` with `s = max|x| / 127` per block of 1024: error at most s / 2. Ratio 3.98.

    A block with a value that is not finite has a scale that is not finite, and decodes to no finite value.
    """

    name: ClassVar[str] = "int8"
    number: ClassVar[int] = 3
    near_lossless: ClassVar[bool] = True

    def encoded_bytes(self, size: int) -> int:
        return LITTLE_FLOAT.itemsize * num_blocks(size) + size

    def encode(self, vector: Vector, out: Bytes) -> None:
        split = LITTLE_FLOAT.itemsize * num_blocks(vector.size)
        scales, levels = out[:split].view(LITTLE_FLOAT), out[split:].view(np.int8)
        scaled = np.empty(min(CHUNK, vector.size), np.float32)
        with np.errstate(all="ignore"):
            for elements, blocks, width in block_slices(vector.size):
                part = vector[elements].reshape(-1, width)
                scale = np.maximum(part.max(axis=1), -part.min(axis=1))
                scale /= 127
                # A scale below the normal numbers has no reciprocal. Zeros get a scale like other values.
                np.maximum(scale, _SMALLEST, out=scale)
                scales[blocks] = scale
                quotient = scaled[: part.size].reshape(-1, width)
                np.multiply(part, (1 / scale)[:, None], out=quotient)
                np.rint(quotient, out=quotient)
                np.copyto(levels[elements].reshape(-1, width), quotient, casting="unsafe")

    def decode(self, data: Bytes, out: Vector) -> None:
        split = LITTLE_FLOAT.itemsize * num_blocks(out.size)
        scales, levels = data[:split].view(LITTLE_FLOAT), data[split:].view(np.int8)
        with np.errstate(all="ignore"):
            for elements, blocks, width in block_slices(out.size):
                part = out[elements]
                np.copyto(part, levels[elements])
                part = part.reshape(-1, width)
                part *= scales[blocks][:, None]
