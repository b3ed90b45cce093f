"""How much memory does a parameter server take? Its peak, in sizes of the center, with two workers. JSON out.

The promise: the center, its rule's state, one snapshot in flight and one message for each connection that is
being served. Peaks are the kernel's own (VmHWM), less what an idle server of a tiny center takes.

python benchmarks/memory.py [--parameters 100000000] [--exchanges 3]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import recording

from distkeras.algorithms import DOWNPOUR, Algorithm, FedAdam
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Join, Leave, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.store import SnapshotOptions

WORKERS = 2
ALLOWED = {
    "DOWNPOUR": 1 + WORKERS,
    "DOWNPOUR, with snapshots": 1 + WORKERS + 1,
    "FedAdam": 3 + WORKERS + 1,  # Two moments; the mean of a round, which is the reply to all its workers.
}


def work(address: ServerAddress, worker: int, exchanges: int) -> None:
    """Be a worker."""
    message = np.full(address.size, 1e-6, np.float32)
    with Client(address) as client:
        client.call(Join(worker))
        for sequence in range(1, exchanges + 1):
            client.call(Exchange(worker, sequence, 1, 1, 0, sequence, message))
        client.call(Leave(worker))


def peak(process: ServerProcess) -> float:
    """Return the most memory that the process has had in use, in MB."""
    status = Path(f"/proc/{process._process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


def measure(algorithm: Algorithm, size: int, exchanges: int, snapshots: SnapshotOptions | None) -> float:
    """Return the server's peak in MB."""
    context = mp.get_context("spawn")
    options = ServerOptions(shared_memory=False, snapshots=snapshots)
    initial = np.zeros(size, np.float32)
    with ServerProcess(ServerSetup(CenterConfig(algorithm, WORKERS), options=options), initial) as server:
        del initial
        workers = [
            context.Process(target=work, args=(server.address, worker, exchanges))
            for worker in range(WORKERS)
        ]
        for process in workers:
            process.start()
        for process in workers:
            process.join()
        with Client(server.address) as driver:
            driver.call(Pull())
        return peak(server)


def main() -> None:
    """Measure a rule without state, with snapshots, and one with state and rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--exchanges", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    center = options.parameters * 4 / 1e6
    results: dict[str, Any] = {"center, MB": center}
    with tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Algorithm, SnapshotOptions | None]] = [
            ("DOWNPOUR", DOWNPOUR(), None),
            ("DOWNPOUR, with snapshots", DOWNPOUR(), SnapshotOptions(folder, commits=2, keep=1)),
            ("FedAdam", FedAdam(), None),
        ]
        idle = measure(DOWNPOUR(), 10, 0, None)
        for name, algorithm, snapshots in cases:
            used = measure(algorithm, options.parameters, options.exchanges, snapshots) - idle
            results[name] = {
                "peak, MB": round(used),
                "peak, centers": round(used / center, 2),
                "allowed, centers": ALLOWED[name],
            }
    print(json.dumps(results, indent=2))
    if options.out is not None:
        run.write(results, options.out)


if __name__ == "__main__":
    main()
