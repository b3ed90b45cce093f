"""1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Training, Seide et al. 2014."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, LITTLE_FLOAT, Bytes, Codec, block_slices, num_blocks

_EVERY_BYTE = np.arange(256, dtype=np.uint8)[:, None]
_SIGNS = 1 - 2 * np.unpackbits(_EVERY_BYTE, axis=1).astype(np.float32)
"""The eight signs of a byte: row 0 is all +1, row 255 all -1."""


@dataclass(frozen=True)
class Sign(Codec):
    """`mean|x| sign(x)` per block of 1024, one bit per value; zero counts as positive. Ratio 31.

    The squared relative error of a block is exactly `1 - |x|_1^2 / (d |x|_2^2)`: much would be lost without
    error feedback. A block with a value that is not finite decodes to no finite value.

    Reference: Seide et al. 2014; Karimireddy et al. 2019, Error Feedback Fixes SignSGD (1901.09847).
    """

    name: ClassVar[str] = "sign"
    number: ClassVar[int] = 4

    def encoded_bytes(self, size: int) -> int:
        return LITTLE_FLOAT.itemsize * num_blocks(size) + -(-size // 8)

    def encode(self, vector: Vector, out: Bytes) -> None:
        split = LITTLE_FLOAT.itemsize * num_blocks(vector.size)
        scales, bits = out[:split].view(LITTLE_FLOAT), out[split:]
        sizes = np.empty(min(CHUNK, vector.size), np.float32)
        with np.errstate(all="ignore"):
            for elements, blocks, width in block_slices(vector.size):
                part = vector[elements]
                size = np.abs(part, out=sizes[: part.size])
                scales[blocks] = size.reshape(-1, width).mean(axis=1)
                bits[_bytes(elements)] = np.packbits(part < 0)

    def decode(self, data: Bytes, out: Vector) -> None:
        split = LITTLE_FLOAT.itemsize * num_blocks(out.size)
        scales, bits = data[:split].view(LITTLE_FLOAT), data[split:]
        with np.errstate(all="ignore"):
            for elements, blocks, width in block_slices(out.size):
                signs = np.take(_SIGNS, bits[_bytes(elements)], axis=0).reshape(-1)[: out[elements].size]
                np.multiply(
                    signs.reshape(-1, width), scales[blocks][:, None], out=out[elements].reshape(-1, width)
                )


def _bytes(elements: slice) -> slice:
    """Return the bytes that hold the bits of these elements; a piece begins at a multiple of eight."""
    return slice(elements.start // 8, -(-elements.stop // 8))
