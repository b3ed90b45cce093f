"""Codecs: compression of messages, by name. NumPy only.

| name | operator | ratio | error |
|---|---|---|---|
| `fp16` | IEEE half precision | 2 | relative, at most 2^-11 |
| `bf16` | upper half of single precision | 2 | relative, at most 2^-8 |
| `int8` | `round(x / s) s`, `s = max abs(x) / 127` per block | 3.98 | at most s / 2 |
| `fp4` | the nearest of 0 and `s 2^-6 .. s`, `s = max abs(x)` per block | 7.94 | a third, or `2^-7 s` |
| `sign` | `mean abs(x) * sign(x)` per block | 31 | squared relative `1 - norm1^2 / (d norm2^2)` |
| `topk` | the largest 1 % | 50 | squared relative at most `1 - k / d` |
| `chunktopk` | of 4096 the largest 128, in 2 bits | 71 | squared relative below 1 |
"""

from __future__ import annotations

from difflib import get_close_matches

from distkeras.wire.codecs.base import Bytes, Codec, CodecError
from distkeras.wire.codecs.chunk_top_k import ChunkTopK
from distkeras.wire.codecs.fp4 import FP4
from distkeras.wire.codecs.half import BF16, FP16
from distkeras.wire.codecs.int8 import Int8
from distkeras.wire.codecs.packing import Packing
from distkeras.wire.codecs.sign import Sign
from distkeras.wire.codecs.top_k import TopK

REGISTRY: dict[str, type[Codec]] = {
    codec.name: codec for codec in (FP16, BF16, Int8, FP4, Sign, TopK, ChunkTopK)
}
"""Every codec by name. The tests of all codecs run on each entry."""


def get(compression: str | Codec | None) -> Codec | None:
    """Return the codec with that name and its defaults, the codec itself, or `None` for no codec.

    Raises:
        ValueError: no codec has that name.
        TypeError: `compression` is neither a name, nor a codec, nor `None`.
    """
    if compression is None or isinstance(compression, Codec):
        return compression
    if not isinstance(compression, str):
        raise TypeError(
            "`compression` must be the name of a codec, an instance of one such as TopK(density=0.05), or "
            f"None. Received: compression={compression!r}"
        )
    if compression in REGISTRY:
        return REGISTRY[compression]()
    close = get_close_matches(compression.lower(), REGISTRY, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(REGISTRY)}."
    raise ValueError(f"No codec has that name. {hint} Received: compression={compression!r}")


__all__ = [
    "BF16",
    "FP4",
    "FP16",
    "REGISTRY",
    "Bytes",
    "ChunkTopK",
    "Codec",
    "CodecError",
    "Int8",
    "Packing",
    "Sign",
    "TopK",
    "get",
]
