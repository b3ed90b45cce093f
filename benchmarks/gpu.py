"""The worker on a GPU: its steps, its exchange, two workers on one GPU, and its results. JSON out.

python benchmarks/gpu.py [--quick] [--backends jax torch] [--parts steps exchange workers results]
                         [--out FILE]

It needs neither Spark nor TensorFlow, and runs on a CPU too, where nothing is copied ahead. For each backend,
in processes of their own that are made ready as a Spark task is:

- steps: by turns an epoch each, from the host's memory, of
  `resident`: Keras's compiled `train_step` alone, on one minibatch that lies on the device,
  `bare`: the same step on minibatches that are gathered at random and copied to the device two ahead,
  `bare_thread`: the same, gathered and copied by a thread,
  `worker`: the worker's replica and feed, copied ahead, without an exchange,
  `in_place`: the same with NumPy arrays, which the step itself copies,
  `loop`: the worker as in `SingleTrainer`: a commit to a server process after every 50 minibatches;
- exchange: the weights from the device to a vector and back, as the worker does it, and by pageable memory;
- workers: one and two worker processes on the same GPU and one server process: rows per second, GPU memory;
- results: the weights after some minibatches on the GPU against those on the CPU, in full precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import recording
from gpu_sides import (
    MODELS,
    Until,
    bare_sides,
    memory_of,
    our_feed,
    our_passes,
    our_replica,
    our_sides,
    pageable,
)
from step import WINDOW, Clock, Turns, data

BACKENDS = ("jax", "torch")
PARTS = ("steps", "exchange", "workers", "results")
BEGAN = time.monotonic()
RESULTS = Path(__file__).parent / "results" / "gpu.json"


def steps(backend: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the figures of each model."""
    from distkeras.algorithms import Sequential
    from distkeras.center import CenterConfig
    from distkeras.cluster.server import ServerProcess, ServerSetup
    from distkeras.wire.client import Client
    from distkeras.worker.loop import Loop

    turns = 3 if options.quick else 10
    for name in options.models:
        batch_size, windows = MODELS[name]
        rows = WINDOW * max(1, windows // options.shrink) * batch_size
        x, y = data(rows)
        replica, rule, clock = our_replica(name), Sequential(WINDOW), Clock()
        say(f"{name}: the worker's replica is built")
        sides = bare_sides(backend, name, batch_size, x, y) | our_sides(replica, batch_size, x, y)
        sides = {side: told(f"{name}, {side}", work) for side, work in sides.items()}
        config = CenterConfig(rule, num_trainable=replica.layout.num_trainable)
        feed = our_feed(replica.model, batch_size, x, y, turns + 2)
        with (
            ServerProcess(ServerSetup(config), replica.read()) as server,
            Client(server.address) as client,
            feed,
        ):
            passes = Turns(our_passes(feed, replica), clock, sides, "loop")
            Loop(replica, passes, rule, client.call, worker=0, num_epoch=turns + 2).run()
        taken = {side: each[1:] for side, each in clock.wall.items()}
        bare = min(statistics.median(taken[side]) for side in ("bare", "bare_thread"))
        yield {
            "model": name,
            "batch_size": batch_size,
            "steps": rows // batch_size,
            "microseconds_per_step": {
                side: spread(each, batch_size * 1e6 / rows) for side, each in taken.items()
            },
            "of_bare": {side: round(bare / statistics.median(each), 3) for side, each in taken.items()},
        }


def say(text: str) -> None:
    """Tell on standard error how far this process is: on a new machine much of its time is the start."""
    print(f"{time.monotonic() - BEGAN:.1f} s: {text}", file=sys.stderr, flush=True)


def told(what: str, work: Callable[[], None]) -> Callable[[], None]:
    """Return `work` with a word of how long it took."""

    def do() -> None:
        seconds = seconds_of(work)
        say(f"{what}: {seconds:.3f} s")

    return do


def spread(taken: list[float], factor: float = 1.0) -> list[float]:
    """Return the least, the median and the greatest of `taken`, times `factor`."""
    return [round(each * factor, 2) for each in (min(taken), statistics.median(taken), max(taken))]


def exchange(backend: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield gigabytes per second of the worker's reads and writes, and of copies by pageable memory."""
    for name in options.models:
        replica = our_replica(name)
        vector = np.random.default_rng(0).random(replica.layout.size, np.float32)
        works: dict[str, Callable[[], Any]] = {
            "write": partial(replica.write, vector),
            "read": replica.read,
        }
        works |= pageable(backend, vector)
        taken = {
            side: [seconds_of(work) for _ in range(4 if options.quick else 20)][2:]
            for side, work in works.items()
        }
        yield {
            "model": name,
            "megabytes": round(vector.nbytes / 1e6, 1),
            "milliseconds": {side: spread(each, 1e3) for side, each in taken.items()},
            "gigabytes_per_second": {
                side: round(vector.nbytes / 1e9 / statistics.median(each), 2) for side, each in taken.items()
            },
        }


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_worker(backend: str, options: argparse.Namespace) -> None:
    """Train as a worker of a server process; print when each window ended, and the memory of the GPU."""
    import pickle

    from distkeras.wire.client import Client
    from distkeras.worker.loop import Loop

    address, rule, worker = pickle.load(sys.stdin.buffer)
    batch_size, windows = MODELS[options.models[0]]
    replica = our_replica(options.models[0])
    ended: list[tuple[float, int]] = []
    with (
        our_feed(replica.model, batch_size, *data(batch_size * WINDOW * windows), None) as feed,
        Client(address) as client,
    ):
        Loop(
            replica,
            Until(our_passes(feed, replica), options.seconds),
            rule,
            client.call,
            worker=worker,
            num_epoch=1,
            on_commit=lambda window, _: ended.append((time.time(), window.samples)),
        ).run()
    print(json.dumps({"ended": ended, "memory": memory_of(backend)}), flush=True)


def workers(backend: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield rows per second of one worker process, and of two on the same GPU."""
    import pickle

    from distkeras.algorithms import DOWNPOUR
    from distkeras.center import CenterConfig
    from distkeras.cluster.server import ServerProcess, ServerSetup

    name = options.models[0]
    replica, rule = our_replica(name), DOWNPOUR(communication_window=WINDOW)
    for count in (1, 2):
        setup = ServerSetup(CenterConfig(rule, count, num_trainable=replica.layout.num_trainable))
        with ServerProcess(setup, replica.read()) as server:
            children = [
                child(backend, "--one-worker", "--share", str(count), input=True) for _ in range(count)
            ]
            for worker, each in enumerate(children):
                if each.stdin is not None:
                    each.stdin.write(pickle.dumps((server.address, rule, worker)))
                    each.stdin.close()
            told = [json.loads([*lines_of(each)][-1]) for each in children]
        began = max(each["ended"][1][0] for each in told)  # The first window compiles the step.
        ended = min(each["ended"][-1][0] for each in told)
        if began >= ended:
            raise RuntimeError(
                "Expected all workers to train at one time. Received: one ended before the last had begun. "
                "Give a larger --seconds."
            )
        rows = sum(rows for each in told for when, rows in each["ended"] if began < when <= ended)
        yield {
            "model": name,
            "workers": count,
            "rows_per_second": round(rows / (ended - began)),
            "windows": [len(each["ended"]) for each in told],
            "memory": [each["memory"] for each in told],
        }


def results(backend: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the greatest differences between weights that were trained on the GPU and on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        files = {place: os.path.join(folder, f"{place}.npz") for place in ("gpu", "cpu")}
        away = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        children = [
            child(backend, "--train-to", file, environment=away if place == "cpu" else {})
            for place, file in files.items()
        ]
        for each in children:
            deque(lines_of(each), maxlen=0)
        gpu, cpu = (np.load(file) for file in files.values())
        for name in options.models:
            start, one, other = gpu[f"{name} start"], gpu[name], cpu[name]
            yield {
                "model": name,
                "trained_on": [str(each["device"]) for each in (gpu, cpu)],
                "moved": float(np.abs(other - start).max()),
                "difference": float(np.abs(one - other).max()),
            }


def train_to(file: str, backend: str, options: argparse.Namespace) -> None:
    """Train each model for some minibatches in full precision; write its weights to `file`."""
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    else:
        import torch

        torch.backends.cudnn.allow_tf32 = False
    vectors: dict[str, Any] = {}
    for name in options.models:
        replica, draw = our_replica(name), np.random.default_rng(1)
        vectors[f"{name} start"] = draw.normal(0, 0.02, replica.layout.size).astype(np.float32)
        replica.write(vectors[f"{name} start"])
        with our_feed(replica.model, 32, *data(32 * 20), None) as feed:
            passes = our_passes(feed, replica)
            for minibatch in (each for epoch in range(2) for each in passes.epoch(epoch)):
                replica.train(minibatch.x, minibatch.y)
        vectors[name] = replica.read()
        vectors["device"] = np.array("device" if replica.device is not None else "host")
    np.savez(file, **vectors)


def child(
    backend: str, *arguments: str, input: bool = False, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start this script for one backend in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--child", backend, *arguments],
        stdin=subprocess.PIPE if input else None,
        stdout=subprocess.PIPE,
        env=os.environ | (environment or {}),
    )


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield what a child prints, until it has ended.

    Raises:
        RuntimeError: it failed.
    """
    with process:
        for line in process.stdout or ():
            yield line.decode()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} failed with exit code {process.returncode}.")


def as_child(backend: str, options: argparse.Namespace) -> None:
    """Do one part for one backend, and print its figures, a line each."""
    from distkeras.worker.environment import prepare_process
    from distkeras.worker.gpus import Sharing

    if options.part != "results" or options.train_to:  # That part itself only starts others.
        prepare_process(backend, 1, sharing=Sharing(machine=options.share))
    if options.one_worker:
        one_worker(backend, options)
    elif options.train_to:
        train_to(options.train_to, backend, options)
    else:
        part = {"steps": steps, "exchange": exchange, "workers": workers, "results": results}[options.part]
        for figures in part(backend, options):
            print(json.dumps({"backend": backend, "part": options.part} | figures), flush=True)


def accelerator() -> str | None:
    """Return the name of the GPU that `nvidia-smi` tells first."""
    try:
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(told.splitlines()), None)


def main() -> None:
    """Measure on every backend and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a third of the turns")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--shrink", type=int, default=1, help="divide the windows of a turn: for a CPU")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of workers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for name in ("--child", "--part", "--train-to"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--one-worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        as_child(options.child, options)
        return
    run = recording.begin(__file__)
    report: dict[str, Any] = {"accelerator": accelerator(), "results": []}
    for part in options.parts:
        for backend in options.backends:
            for line in lines_of(child(backend, "--part", part)):
                print(line, end="", file=sys.stderr, flush=True)
                report["results"].append(json.loads(line))
                run.write(report, options.out)


if __name__ == "__main__":
    main()
