"""How the C library deals with the memory that a worker frees after every minibatch."""

from __future__ import annotations

import ctypes
import sys

import numpy as np

LARGEST_LEARNED = 32 * 2**20 - 2**16
"""Bytes: glibc takes no limit from a piece of 32 MiB or more."""


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MiB of freed memory for the next minibatch. Other C libraries do as they do.

    It learns how much to keep from the largest piece that was freed. In a new Python worker that is the
    output of one layer, and two of them are too much: it gives them back to the system after each minibatch,
    and the next waits until as many pages are cleared. An MLP of 3 x 500 took a sixth more time to predict.
    """
    np.empty(LARGEST_LEARNED, np.uint8)


def release_freed_memory() -> None:
    """Have glibc give back to the system what is free between pieces in use. Other C libraries do as they do.

    The weights of a replica that is gone leave holes. What small thing is kept in one, and JAX keeps a few of
    every program, makes it too short for the next model's: 5 MB a training of a model of 2.6 MB.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
