"""Many workers on one parameter server: do all make steady, fair progress? JSON out.

Each connection commits a small model again and again for some seconds, without training in between, so that
the server is always busy. Reported are the exchanges per second of all, those of the connection that got
fewest and of the one that got most, and the time that an exchange takes.

python benchmarks/many_workers.py [--connections 1 4 16 64 256] [--size 10000] [--seconds 5] [--servers 1]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.messages import Exchange, Join
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.wire.client import ServerAddress
from distkeras.wire.group import connect

PROCESSES = 2


def exchange_for(
    addresses: tuple[ServerAddress, ...],
    worker: int,
    size: int,
    begin: Any,
    seconds: float,
    taken: dict[int, list[float]],
) -> None:
    """Be one connection: note in `taken` how long each exchange took."""
    own = taken.setdefault(worker, [])
    message = np.full(size, 1e-6, np.float32)
    with connect(addresses) as client:
        client.call(Join(worker))
        begin.wait()
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            client.call(Exchange(worker, len(own) + 1, 1, 1, 0, len(own) + 1, message))
            own.append(time.perf_counter() - started)


def be_many(
    addresses: tuple[ServerAddress, ...], workers: range, size: int, begin: Any, seconds: float, out: Any
) -> None:
    """Be the connections of one process."""
    taken: dict[int, list[float]] = {}
    threads = [
        threading.Thread(target=exchange_for, args=(addresses, worker, size, begin, seconds, taken))
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(taken)


def measure(
    connections: int, size: int, seconds: float, num_servers: int, shared_memory: bool
) -> dict[str, Any]:
    """Return figures of so many connections at once."""
    context = mp.get_context("spawn")
    begin, out = context.Barrier(connections), context.Queue()
    options = ServerOptions(shared_memory=shared_memory, snapshots=None)
    center = np.zeros(size, np.float32)
    setup = ServerSetup(CenterConfig(DOWNPOUR(), connections), options=options)
    with Servers(num_servers, setup, center) as servers:
        count = min(PROCESSES, connections)
        shares = [range(index, connections, count) for index in range(count)]
        processes = [
            context.Process(target=be_many, args=(servers.addresses, share, size, begin, seconds, out))
            for share in shares
        ]
        for process in processes:
            process.start()
        taken: dict[int, list[float]] = {}
        for _ in processes:
            taken |= out.get(timeout=seconds + 120)
        for process in processes:
            process.join()
    counts = sorted(len(times) for times in taken.values())
    every = np.concatenate([np.array(times) for times in taken.values()]) * 1e3
    return {
        "connections": connections,
        "exchanges per second": round(sum(counts) / seconds),
        "fewest of a connection": counts[0],
        "most of a connection": counts[-1],
        "fewest / most": round(counts[0] / counts[-1], 3),
        "ms, median": round(float(np.median(every)), 2),
        "ms, 99 %": round(float(np.percentile(every, 99)), 2),
        "ms, longest": round(float(every.max()), 2),
    }


def main() -> None:
    """Measure each number of connections."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--size", type=int, default=10_000, help="weights of the model")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--shared-memory", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {
        "size": options.size,
        "servers": options.servers,
        "transport": "shared memory" if options.shared_memory else "tcp",
        "results": [
            measure(count, options.size, options.seconds, options.servers, options.shared_memory)
            for count in options.connections
        ],
    }
    text = json.dumps(results, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
