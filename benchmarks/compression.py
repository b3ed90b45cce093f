"""Speed of the codecs, in GB/s of float32: encode, decode, and all that a worker does (error feedback and a
copy of the message), beside a copy alone. JSON out.

python benchmarks/compression.py [--sizes 2.6 40] [--repeats 7]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np

from distkeras.center.messages import Exchange
from distkeras.wire.codecs import REGISTRY, Codec, Packing
from distkeras.wire.compression import Compression


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the shortest of `repeats` runs: the others were disturbed."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def measure(codec: Codec, size: int, repeats: int) -> dict[str, float]:
    """Return figures of one codec on `size` normal deviates."""
    vector = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    data, decoded = np.empty(codec.encoded_bytes(size), np.uint8), np.empty_like(vector)
    message, own = np.empty_like(vector), Compression(Packing(codec, size, size), at_server=False)
    request = Exchange(0, 1, 1, 1, 0, 1, message)
    gigabytes = vector.nbytes / 1e9
    figures = {
        "encode": gigabytes / seconds(lambda: codec.encode(vector, data), repeats),
        "decode": gigabytes / seconds(lambda: codec.decode(data, decoded), repeats),
    }
    error = np.linalg.norm(decoded - vector) / np.linalg.norm(vector)

    def commit() -> None:
        np.copyto(message, vector)
        own.encode(request)

    figures["worker"] = gigabytes / seconds(commit, repeats)
    return figures | {"bytes": data.size / vector.nbytes, "relative_error": float(error)}


def main() -> None:
    """Measure every codec at every size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=float, nargs="+", default=[2.6, 40.0], help="MB of float32")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    results: dict[str, object] = {"machine": platform.processor() or platform.machine()}
    for megabytes in options.sizes:
        size = int(megabytes * 1e6 / 4)
        source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
        copied = seconds(lambda: np.copyto(target, source), options.repeats)  # noqa: B023 (called at once)
        results[f"{megabytes:g} MB"] = {
            "copy": source.nbytes / 1e9 / copied,
            **{name: measure(codec(), size, options.repeats) for name, codec in REGISTRY.items()},
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
