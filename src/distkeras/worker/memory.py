"""How the C library deals with the memory that a worker frees after every minibatch and every exchange."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

LARGEST_KEPT = 32 * 2**20
"""Bytes: glibc takes larger pieces from the system, one by one, unless it may take none so."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's malloc.h
_DEFAULT_MMAP_MAX = 65536


def keep_freed_memory(piece: int = 0) -> None:
    """Have glibc keep freed memory for the next minibatch and exchange. Other C libraries do as they do.

    It learns how much to keep from the largest piece that was freed. In a new Python worker that is the
    output of one layer, and two of them are too much: it gives them back to the system after each minibatch,
    and the next waits until as many pages are cleared. An MLP of 3 x 500 took a sixth more time to predict,
    and exchanging a model of 2.6 MB took twice as long; one of 40 MB, half as long again.

    Args:
        piece: bytes of the vectors that come and go, of which four are kept; at least 64 MiB in all.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, min(max(4 * piece, 2 * LARGEST_KEPT), 2**31 - 1))
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_MMAP_MAX, 0 if piece >= LARGEST_KEPT else _DEFAULT_MMAP_MAX)


def release_freed_memory() -> None:
    """Have glibc give back to the system what is free between pieces in use. Other C libraries do as they do.

    The weights of a replica that is gone leave holes. What small thing is kept in one, and JAX keeps a few of
    every program, makes it too short for the next model's: 5 MB a training of a model of 2.6 MB.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
