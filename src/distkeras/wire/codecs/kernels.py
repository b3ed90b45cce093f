"""Loops over elements that Numba compiles (see `distkeras.wire.codecs.compiled`).

Each does what its codec does with NumPy, bit for bit, and faster. This module does not import Numba: without
it nothing calls these functions, because plain Python would take seconds for a million elements.

Numba makes 64 bits of every sum of integers, and `np.uint32(...)` keeps them at 32. Indices are unsigned: the
compiler then needs no test for negative ones, and vectorizes the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # Numba compiles more operations than NumPy's type annotations allow.

_BLOCK = np.uint64(1024)
_SIGN, _MAGNITUDE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_INFINITY, _QUIET_NAN = np.uint32(0x7F800000), np.uint32(0x7FC00000)
_0, _1, _13, _16 = np.uint32(0), np.uint32(1), np.uint32(13), np.uint32(16)

_TINY, _LEVELS, _UNIT = np.float32(2.0**-126), np.float32(127), np.float32(1)
_ROUNDER = np.float32(3 * 2.0**22)

_UPPER_HALF, _BELOW_TIE = np.uint32(0xFFFF0000), np.uint32(0x7FFF)

_HALF_SIGN, _HALF_MAGNITUDE = np.uint32(0x8000), np.uint32(0x7FFF)
_HALF_NORMAL, _HALF_INFINITY, _HALF_NAN = np.uint32(0x400), np.uint32(0x7C00), np.uint32(0x7E00)
_REBIAS, _REBIAS_SUBNORMAL = np.uint32(112 << 23), np.uint32(113 << 23)
_SMALLEST_NORMAL = np.float32(2.0**-14)
_THIRTEEN_UP, _LEAST_ROUNDER, _ROUNDER_BIAS = np.uint32(13 << 23), np.uint32(126 << 23), np.uint32(126 << 10)
_TOO_LARGE = np.uint32(143 << 23)  # 2^16


def int8_encode(vector: Array, scales: Array, levels: Array, decoded: Array) -> None:
    """Encode whole blocks, or one partial block."""
    bits, words, scale_bits = vector.view(np.uint32), decoded.view(np.uint32), scales.view(np.uint32)
    size = np.uint64(vector.size)
    for block in range(np.uint64(scales.size)):
        low = block * _BLOCK
        high = min(low + _BLOCK, size)
        largest = _0
        for i in range(low, high):
            largest = max(largest, np.uint32(bits[i] & _MAGNITUDE))
        if largest >= _INFINITY:
            scale_bits[block] = _QUIET_NAN
            for i in range(low, high):
                levels[i] = np.int8(0)
                words[i] = _QUIET_NAN
            continue
        scale = max(np.uint32(largest).view(np.float32) / _LEVELS, _TINY)
        scales[block] = scale
        reciprocal = _UNIT / scale
        for i in range(low, high):
            level = np.float32(vector[i] * reciprocal + _ROUNDER)
            levels[i] = np.int8(np.float32(level).view(np.uint32))
            decoded[i] = np.float32(level - _ROUNDER) * scale


def int8_decode(scales: Array, levels: Array, decoded: Array) -> None:
    """Decode whole blocks, or one partial block."""
    size = np.uint64(decoded.size)
    for block in range(np.uint64(scales.size)):
        low = block * _BLOCK
        scale = scales[block]
        for i in range(low, min(low + _BLOCK, size)):
            decoded[i] = np.float32(levels[i]) * scale


def bf16_encode(vector: Array, halves: Array, decoded: Array) -> None:
    """Round the bits of single precision to their upper half."""
    bits, words = vector.view(np.uint32), decoded.view(np.uint32)
    for i in range(np.uint64(vector.size)):
        word = bits[i]
        rounded = np.uint32(word + _BELOW_TIE + ((word >> _16) & _1))
        if np.uint32(word & _MAGNITUDE) > _INFINITY:
            rounded = _QUIET_NAN
        halves[i] = np.uint16(rounded >> _16)
        words[i] = np.uint32(rounded & _UPPER_HALF)


def bf16_decode(halves: Array, decoded: Array) -> None:
    """Put each half above sixteen zeros."""
    words = decoded.view(np.uint32)
    for i in range(np.uint64(decoded.size)):
        words[i] = np.uint32(np.uint32(halves[i]) << _16)


def fp16_encode(vector: Array, halves: Array, decoded: Array) -> None:
    """Round to half precision; `FP16.encode_chunk` explains the arithmetic."""
    bits, words = vector.view(np.uint32), decoded.view(np.uint32)
    for i in range(np.uint64(vector.size)):
        sign, size = np.uint32(bits[i] & _SIGN), np.uint32(bits[i] & _MAGNITUDE)
        added = max(np.uint32(np.uint32(size & _INFINITY) + _THIRTEEN_UP), _LEAST_ROUNDER)
        rounder = np.uint32(added).view(np.float32)
        total = np.float32(np.uint32(size).view(np.float32) + rounder)
        word = np.float32(total - rounder).view(np.uint32)
        half = np.uint32(np.float32(total).view(np.uint32) - added + np.uint32(added >> _13) - _ROUNDER_BIAS)
        if word >= _TOO_LARGE:
            word, half = _INFINITY, _HALF_INFINITY
        if size > _INFINITY:
            word, half = _QUIET_NAN, _HALF_NAN
        words[i] = np.uint32(word | sign)
        halves[i] = np.uint16(half | np.uint32(sign >> _16))


def fp16_decode(halves: Array, decoded: Array) -> None:
    """Shift the bits of a half to their places in a single, and correct what is not a normal number."""
    words = decoded.view(np.uint32)
    for i in range(np.uint64(decoded.size)):
        sign, size = np.uint32(halves[i] & _HALF_SIGN), np.uint32(halves[i] & _HALF_MAGNITUDE)
        shifted = np.uint32(size << _13)
        word = np.uint32(shifted + _REBIAS)
        subnormal = np.float32(np.uint32(shifted + _REBIAS_SUBNORMAL).view(np.float32) - _SMALLEST_NORMAL)
        if size < _HALF_NORMAL:
            word = np.float32(subnormal).view(np.uint32)
        if size >= _HALF_INFINITY:
            word = np.uint32(shifted | _INFINITY)
        words[i] = np.uint32(word | np.uint32(sign << _16))
