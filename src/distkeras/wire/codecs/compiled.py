"""Compiled kernels of the codecs, for large vectors where Numba is installed: `pip install distkeras[numba]`.

They give the same bits as NumPy, so workers and servers with and without Numba understand each other. A
process loads a codec's two kernels before its first exchange: a worker when it has joined, a server when it
starts (`Packing.load`). The first process on a machine compiles them, in about a second, and keeps them on
disk: beside the code, in the user's cache, or in `NUMBA_CACHE_DIR`. The next processes take half a second,
most of it for Numba itself, and each takes 50 MB of memory, besides 70 MB that all of them share. So vectors
below `SMALLEST` elements stay with NumPy. `NUMBA_DISABLE_JIT=1` leaves the kernels out altogether.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import distkeras.wire.codecs.kernels as kernels

SMALLEST = 2**19
"""Elements of a vector (2 MB) from which kernels are loaded: below, NumPy takes a few milliseconds."""

SIGNATURES = {
    "int8_encode": "void(f4[::1], f4[::1], i1[::1], f4[::1])",
    "int8_decode": "void(f4[::1], i1[::1], f4[::1])",
    "bf16_encode": "void(f4[::1], u2[::1], f4[::1])",
    "bf16_decode": "void(u2[::1], f4[::1])",
    "fp16_encode": "void(f4[::1], u2[::1], f4[::1])",
    "fp16_decode": "void(u2[::1], f4[::1])",
}
"""The arguments of each kernel, so that it is compiled when it is loaded, not when it is first called."""

Kernel = Callable[..., object]

logger = logging.getLogger(__name__)
_loaded: dict[str, Kernel] = {}
_loading = threading.Lock()


MEMORY_BYTES = 128 * 2**20
"""What a process takes for Numba and its compiler, with the part that all processes share."""


def compiles(codec_name: str, size: int) -> bool:
    """Return whether `load` would load kernels, in a process with the packages of this one."""
    known = f"{codec_name}_encode" in SIGNATURES and size >= SMALLEST and sys.byteorder == "little"
    return known and importlib.util.find_spec("numba") is not None


def load(codec_name: str, size: int) -> None:
    """Load the kernels of a codec for vectors of `size` elements, if there are any and Numba is installed."""
    names = [name for name in (f"{codec_name}_encode", f"{codec_name}_decode") if name in SIGNATURES]
    if size < SMALLEST or sys.byteorder != "little":
        return
    with _loading:
        missing = [name for name in names if name not in _loaded]
        if missing and (numba := _numba()) is not None:
            started = time.perf_counter()
            _loaded.update({name: _compile(numba, name) for name in missing})
            seconds = time.perf_counter() - started
            logger.info("Numba has loaded %s in %.1f s.", " and ".join(missing), seconds)


def choose(name: str, otherwise: Kernel, arrays: Sequence[Any]) -> Kernel:
    """Return the loaded kernel of that name if it takes `arrays`, and else the function `otherwise`."""
    kernel = _loaded.get(name)
    if kernel is None or not all(array.flags.writeable and array.flags.aligned for array in arrays):
        return otherwise
    return kernel


@functools.cache  # A process looks once, not at every connection.
def _numba() -> Any:
    """Return the module; `None` if it is not installed, does not fit NumPy, or must not compile."""
    try:
        import numba
    except ImportError as error:
        logger.info("Codecs compute with NumPy alone: %s", error)
        return None
    return None if numba.config.DISABLE_JIT else numba


def _compile(numba: Any, name: str) -> Kernel:
    function = getattr(kernels, name)
    options = {"nogil": True, "error_model": "numpy"}
    try:
        kernel: Kernel = numba.njit(SIGNATURES[name], cache=True, **options)(function)
    except RuntimeError:  # No folder may be written: each process compiles for itself.
        kernel = numba.njit(SIGNATURES[name], **options)(function)
    return kernel
