"""Tune how the C library keeps memory that a worker frees after every minibatch and every exchange."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

LARGEST_KEPT = 32 * 2**20
"""Bytes; glibc takes larger blocks from the system by `mmap` one by one, unless that is disabled."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # glibc's malloc.h
_DEFAULT_MMAP_MAX = 65536


def keep_freed_memory(piece: int = 0) -> None:
    """Let glibc keep freed memory for the next minibatch and exchange. No effect with other C libraries.

    By default glibc adapts to the largest freed block. In a new Python worker that is the output of one
    layer, and two of them exceed the limit: glibc returns them to the system after each minibatch, and the
    next one waits for as many pages to be cleared. An MLP of 3 x 500 took a sixth more time to predict.
    By itself glibc never keeps blocks of 32 MB: a window of three steps and an exchange of 43 MB by TCP took
    30,000 page faults and 0.27 s, instead of 0.17 s.

    Args:
        piece: bytes of a vector; memory for four is kept, and at least 64 MiB.
    """
    _set(_TRIM_THRESHOLD, min(max(4 * piece, 2 * LARGEST_KEPT), 2**31 - 1))
    _set(_MMAP_THRESHOLD, LARGEST_KEPT)
    _set(_MMAP_MAX, 0 if piece >= LARGEST_KEPT else _DEFAULT_MMAP_MAX)


def limit_heaps(count: int) -> None:
    """Let the threads of this process share `count` heaps. Call it before the process starts threads.

    Otherwise each thread has its own heap, and other threads cannot reuse its freed memory: with `overlap`,
    where two threads compute with vectors, a worker took 1150 MB instead of 920 for a model of 43 MB.
    """
    _set(_ARENA_MAX, count)


def _set(option: int, value: int) -> None:
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(option, value)


def release_freed_memory() -> None:
    """Let glibc return free memory between used blocks to the system. No effect with other C libraries.

    The weights of a deleted replica leave holes. A small object in a hole, such as the few that JAX keeps of
    every program, makes it too short for the next model: 5 MB per training of a model of 2.6 MB.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
