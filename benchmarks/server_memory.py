"""Does a server's memory grow with the number of its workers? Its peak, for asynchronous rules. JSON out.

All workers join, and all commit again and again at the same time. One process holds them and sends one vector
for all. Peaks are the kernel's own (VmHWM), less what a server of a tiny center takes.

python benchmarks/server_memory.py [--megabytes 32 400] [--workers 1 16 256] [--seconds 10] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import recording
from many_workers import exchanges
from memory import peak

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup


def measure(size: int, workers: int, seconds: float) -> tuple[float, int]:
    """Return the server's peak in MB, and how many exchanges it has made."""
    setup = ServerSetup(
        CenterConfig(DOWNPOUR(), workers), options=ServerOptions(shared_memory=False, snapshots=None)
    )
    with ServerProcess(setup, np.zeros(size, np.float32)) as server:
        row = exchanges("own", server.address, workers, size, seconds)
        return peak(server), round(row["exchanges per second"] * seconds)


def main() -> None:
    """Measure each size with each number of workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, nargs="+", default=[32, 400])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    idle, _ = measure(10, 1, 0.5)
    rows: list[dict[str, Any]] = []
    for megabytes in options.megabytes:
        for workers in options.workers:
            used, count = measure(int(megabytes * 2**20 / 4), workers, options.seconds)
            row = {
                "center, MiB": megabytes,
                "workers": workers,
                "peak, MiB": round((used - idle) * 1e6 / 2**20),
            }
            row |= {"allowed, MiB": round(3 * megabytes + 64), "exchanges": count}
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.out is not None:
        run.write({"idle, MB": round(idle), "results": rows}, options.out)


if __name__ == "__main__":
    main()
