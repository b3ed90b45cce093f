"""What compression computes in an exchange, in milliseconds, beside a copy of the vector; how exact it is.

For each codec: what a worker does before it sends (error feedback included), what the server does with what
arrives, and for codecs that compress replies, what each does with the reply. Medians, one thread, JSON out.
Compiled kernels are used if Numba is installed; `NUMBA_DISABLE_JIT=1` shows NumPy alone.

python benchmarks/compression.py [--megabytes 2.6 40] [--repeats 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recording

from distkeras.algorithms import DOWNPOUR
from distkeras.center.answers import Exchanged
from distkeras.center.requests import Exchange
from distkeras.wire.codecs import REGISTRY, Codec
from distkeras.wire.compression import Compression, packing_of
from distkeras.worker.memory import keep_freed_memory


def measure(codec: Codec, size: int, repeats: int) -> dict[str, float]:
    """Return figures of one codec on changes of `size` weights, as large as a window makes them."""
    packing = packing_of(DOWNPOUR(), codec, size, size)
    assert packing is not None
    packing.load()
    own, server = (Compression(packing, at_server=at_server) for at_server in (False, True))
    delta = np.random.default_rng(0).normal(0, 1e-3, size).astype(np.float32)
    message, arrived, reply = np.empty_like(delta), np.zeros_like(delta), np.zeros_like(delta)
    center = np.zeros_like(delta)
    taken: defaultdict[str, list[float]] = defaultdict(list)

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = work(*arguments)
        taken[name].append((time.perf_counter() - started) * 1e3)
        return result

    whole = Exchanged(center.copy(), 0)
    if server.pack(whole) is None:
        own.take_note(whole, whole=True)
    for sequence in range(1, repeats + 1):
        timed("copy", np.copyto, message, delta)
        request = Exchange(0, sequence, 1, 1, 0, sequence, message)
        encoded = timed("worker encodes", own.pack, request)
        timed("server decodes", server.unpack, encoded.data, arrived)
        center += arrived
        if packing.replies:
            encoded = timed("server encodes", server.pack, Exchanged(center, 0))
            timed("worker decodes", own.unpack, encoded.data, reply)
    figures = {name: statistics.median(each) for name, each in taken.items()}
    figures["sum"] = sum(figures.values()) - figures["copy"]
    exact = np.empty(packing.num_bytes, np.uint8)
    packing.encode(delta, exact)
    packing.decode(exact, arrived)
    figures["bytes"] = exact.size / delta.nbytes
    figures["relative error"] = float(np.linalg.norm(arrived - delta) / np.linalg.norm(delta))
    return {name: float(f"{figure:.3g}") for name, figure in figures.items()}


def main() -> None:
    """Measure every codec at every size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, nargs="+", default=[2.6, 40.0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    keep_freed_memory(int(max(options.megabytes) * 2**20))  # As every worker does.
    results = {
        f"{megabytes:g} MB": {
            name: measure(codec(), int(megabytes * 2**20 / 4), options.repeats)
            for name, codec in REGISTRY.items()
        }
        for megabytes in options.megabytes
    }
    print(json.dumps(results, indent=1))
    if options.out is not None:
        run.write(results, options.out)


if __name__ == "__main__":
    main()
