"""Is `ServerOptions(memory=)` right? What each kind of training may need, and a server's real peak. JSON out.

Workers are threads here, and exchange all at once through real clients. Peaks are the kernel's own (VmHWM).
A server may take less than it was said to need, because not everything comes at once; it should take no more.

python benchmarks/server_needs.py [--megabytes 16] [--workers 6] [--exchanges 6] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import recording
from memory import peak

from distkeras.algorithms import DCASGD, DOWNPOUR, EASGD, FedAdam, LocalSGD, StreamingDiLoCo
from distkeras.center import CenterConfig, Fragments
from distkeras.center.requests import Exchange, Join, Keep, Leave, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.servers import Servers
from distkeras.wire.codecs import FP4, Int8, TopK
from distkeras.wire.group import connect
from distkeras.wire.store import SnapshotOptions


def setups(size: int, workers: int) -> dict[str, tuple[ServerSetup, int]]:
    """Return what to measure: the settings and the number of servers, by name."""
    third = size // 3
    parts = tuple(((low, high),) for low, high in ((0, third), (third, 2 * third), (2 * third, size)))

    def setup(algorithm: Any, shared: bool = False, codec: Any = None, **config: Any) -> ServerSetup:
        options = ServerOptions(shared_memory=shared, snapshots=None)
        return ServerSetup(CenterConfig(algorithm, workers, **config), options=options, compression=codec)

    return {
        "asynchronous": (setup(DOWNPOUR()), 1),
        "asynchronous, copies at ends of epochs": (setup(DOWNPOUR(), epoch_rows=workers), 1),
        "asynchronous, several servers": (setup(DOWNPOUR()), 2),
        "asynchronous, shared memory": (setup(DOWNPOUR(), shared=True), 1),
        "needs_pulled": (setup(DCASGD()), 1),
        "rounds": (setup(LocalSGD()), 1),
        "rounds with state": (setup(FedAdam()), 1),
        "rounds, shared memory": (setup(LocalSGD(), shared=True), 1),
        "rounds, several servers": (setup(LocalSGD()), 2),
        "fragments": (setup(StreamingDiLoCo(3, fragments=3), fragments=Fragments(parts)), 1),
        "ensemble": (setup(DOWNPOUR(), independent=True), 1),
        "int8": (setup(DOWNPOUR(), codec=Int8()), 1),
        "int8 of weights": (setup(EASGD(), codec=Int8()), 1),
        "fp4": (setup(DOWNPOUR(), codec=FP4()), 1),
        "topk": (setup(DOWNPOUR(), codec=TopK()), 1),
    }


def work(servers: Servers, config: CenterConfig, worker: int, size: int, exchanges: int) -> None:
    """Be a worker."""
    fragments = config.fragments
    with connect(servers.addresses, patience=60.0) as client:
        client.call(Join(worker))
        for sequence in range(1, exchanges + 1):
            fragment = (sequence - 1) % config.num_fragments
            own = size if fragments is None else fragments.sizes[fragment]
            message = np.full(own, 1e-6, np.float32)
            client.call(Exchange(worker, sequence, 1, 1, 0, sequence, message, fragment=fragment))
        client.call(Leave(worker))


def measure(setup: ServerSetup, count: int, size: int, exchanges: int, folder: str) -> dict[str, Any]:
    """Return the needs and the peak of the last server of `count`, in MiB, with snapshots."""
    config = setup.center
    snapshots = SnapshotOptions(folder, commits=config.num_workers, keep=1)
    setup = replace(setup, options=replace(setup.options, snapshots=snapshots))
    shape = (config.num_workers, size) if config.independent else (size,)
    with Servers(count, setup, np.zeros(shape, np.float32)) as servers:
        with connect(servers.addresses, patience=60.0) as driver:
            if config.epoch_rows is not None:
                for epoch in range(exchanges):
                    driver.call(Keep(config.epoch_end(epoch)))
            workers = [
                threading.Thread(target=work, args=(servers, config, worker, size, exchanges))
                for worker in range(config.num_workers)
            ]
            for thread in workers:
                thread.start()
            for thread in workers:
                thread.join()
            driver.call(Pull())
        used = peak(servers.processes[-1]) * 1e6 / 2**20
    need = ServerParts(count, setup, shape[-1]).needs()[-1]
    total = sum(need.values()) / 2**20
    each = {purpose: round(bytes_ / 2**20) for purpose, bytes_ in need.items()}
    return {"needed, MiB": round(total), "peak, MiB": round(used), "of it": each}


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--exchanges", type=int, default=6)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    size = int(options.megabytes * 2**20 / 4)
    results: dict[str, Any] = {"center, MiB": options.megabytes, "workers": options.workers}
    for name, (setup, count) in setups(size, options.workers).items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(setup, count, size, options.exchanges, folder)
        print(name, json.dumps(results[name]), flush=True)
    if options.out is not None:
        run.write(results, options.out)


if __name__ == "__main__":
    main()
