"""Is an exchange slower than it was? One worker and a server of several states of the source. JSON out.

Each state has a server and a worker of its own, which stay while blocks of exchanges alternate between the
states; the ratios compare blocks that follow each other. On a machine with other work the wall-clock time
says little: then compare the processor time, that of worker and server together.

python benchmarks/exchange_turns.py BEFORE NOW [--megabytes 0.04 0.5 2.6] [--blocks 12] [--out FILE]

BEFORE and NOW are checkouts, such as those of `git worktree add`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import recording

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.answers import Exchanged
from distkeras.center.requests import Exchange, Join
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.wire.client import Client

TARGETS = ("tcp", "shared memory")
WARM_UP = 50


def be_session(target: str, megabytes: float) -> None:
    """Make exchanges for as many seconds as each line on standard input says; print what they cost."""
    size = int(megabytes * 2**20 / 4)
    message = np.full(size, 1e-6, np.float32)
    options = ServerOptions(shared_memory=target == "shared memory", snapshots=None)
    setup = ServerSetup(CenterConfig(DOWNPOUR()), options=options)
    with ServerProcess(setup, np.zeros(size, np.float32)) as server, Client(server.address) as client:
        client.call(Join(0))
        sequence = 0

        def exchange() -> float:
            nonlocal sequence
            sequence += 1
            started = time.perf_counter()
            reply = client.call(Exchange(0, sequence, 1, 1, 0, sequence, message))
            if not isinstance(reply, Exchanged):
                raise TypeError(f"Expected Exchanged. Received: {reply!r}")
            return time.perf_counter() - started

        for _ in range(WARM_UP):
            exchange()
        print("ready", flush=True)
        process = psutil.Process(server._process.pid)
        for line in sys.stdin:
            end, times = time.perf_counter() + float(line), []
            before = sum(process.cpu_times()[:2]) + time.process_time()
            while time.perf_counter() < end:
                times.append(exchange())
            spent = sum(process.cpu_times()[:2]) + time.process_time() - before
            print(json.dumps([statistics.median(times) * 1e6, spent * 1e6, len(times)]), flush=True)


@contextlib.contextmanager
def session(tree: Path, target: str, megabytes: float) -> Iterator[subprocess.Popen[str]]:
    """Run a session of the source in `tree`; yield it when it is ready."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--session", target, str(megabytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tree.resolve() / "src")},
    )
    with process:
        if ask(process) != "ready":
            raise RuntimeError(f"The session of {tree} did not start.")
        yield process


def ask(process: subprocess.Popen[str], order: str = "") -> str:
    """Send a line to a session, if there is one, and return the next that it prints."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("Expected a process with pipes.")
    if order:
        print(order, file=process.stdin, flush=True)
    return process.stdout.readline().strip()


def measure(trees: list[Path], target: str, megabytes: float, blocks: int, seconds: float) -> dict[str, Any]:
    """Return the figures of all states, each beside the first."""
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(session(tree, target, megabytes)) for tree in trees]
        rows: list[list[tuple[float, float, int]]] = [[] for _ in trees]
        for block in range(blocks):
            order = np.roll(range(len(trees)), block)  # So that no state always follows the same one.
            for index in order:
                rows[index].append(json.loads(ask(sessions[index], str(seconds))))
    spent = [sum(row[1] for row in those) / sum(row[2] for row in those) for those in rows]
    ratios = [
        statistics.median(row[0] / first[0] for row, first in zip(those, rows[0], strict=True))
        for those in rows
    ]
    return {
        "target": target,
        "megabytes": megabytes,
        "µs, median": [round(statistics.median(row[0] for row in those)) for those in rows],
        "over the first": [round(ratio, 2) for ratio in ratios],
        "µs of processor time": [round(each) for each in spent],
        "processor time over the first": [round(each / spent[0], 2) for each in spent],
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure each target at each size."""
    if sys.argv[1:2] == ["--session"]:
        be_session(sys.argv[2], float(sys.argv[3]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("trees", type=Path, nargs="+")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.04, 0.5, 2.6])
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a block")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    rows = []
    for megabytes in options.megabytes:
        for target in options.targets:
            rows.append(measure(options.trees, target, megabytes, options.blocks, options.seconds))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if options.out is not None:
        states = [tree.resolve().name for tree in options.trees]
        results = {"states": states, "results": rows}
        run.write(results, options.out)


if __name__ == "__main__":
    main()
