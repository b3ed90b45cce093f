"""What it costs to look at a training: with everything on, against nothing.

The same training runs in turns. With everything on it has a run directory with its rollups, the page with
one reader of its stream, TensorBoard, Prometheus, which is scraped every second, and the progress bar in a
terminal of its own. With nothing on it has none of them. One Spark session and one process have all turns, so
that workers, compiled steps and caches are the same.

The time of a training is that from its first window to the end of `train`: the start of Spark's tasks differs
from turn to turn. `driver` are the processor seconds of this process in `train`, `viewer` those of the page's
process. JSON out, with the ratio of each pair, their median and their spread.

python benchmarks/monitor.py [--pairs 9] [--rows 60000] [--epochs 8] [--workers 2] [--window 5] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pty
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import psutil
import recording
from wide_mlp import data, model

from distkeras import ADAG
from distkeras.monitor import Dashboard, Prometheus, TensorBoard

VERSIONS = ("keras", "jax", "pyspark", "numpy", "starlette", "uvicorn", "tensorboardX", "prometheus-client")
SCRAPE_SECONDS = 1.0


@contextlib.contextmanager
def terminal() -> Iterator[list[int]]:
    """Make a pseudo-terminal the standard error, and read what is drawn there; yield the bytes so far."""
    own, theirs = pty.openpty()
    drawn, before = [0], sys.stderr

    def read() -> None:
        with contextlib.suppress(OSError):  # The other end is closed.
            while chunk := os.read(own, 65536):
                drawn[0] += len(chunk)

    reader = threading.Thread(target=read)
    with os.fdopen(theirs, "w", buffering=1) as stream:
        reader.start()
        sys.stderr = stream
        try:
            yield drawn
        finally:
            sys.stderr = before
    reader.join()
    os.close(own)


@contextlib.contextmanager
def onlookers(dashboard: Dashboard, prometheus: Prometheus) -> Iterator[dict[str, int]]:
    """Read the page's stream and scrape Prometheus, once the training has begun; yield how much was read."""
    ended, counts = threading.Event(), {"stream": 0, "scrapes": 0}
    streams: list[socket.socket] = []

    def follow() -> None:
        while dashboard.link is None and not ended.wait(0.1):
            pass
        if dashboard.link is None:
            return
        address = urlsplit(dashboard.link.address)
        given = parse_qs(address.fragment)
        [run], [token] = given["run"], given["token"]
        connection = http.client.HTTPConnection(address.netloc, timeout=60)
        connection.request(
            "GET", f"/api/stream?id={quote(run, safe='')}", headers={"x-distkeras-token": token}
        )
        streams.append(connection.sock)
        with connection.getresponse() as answer:
            while line := answer.readline():
                counts["stream"] += len(line)

    def scrape() -> None:
        while not ended.wait(SCRAPE_SECONDS):
            if address := prometheus.address:
                # The training may end at this moment, and the port with it.
                with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                    counts["scrapes"] += bool(answer.read())

    threads = [threading.Thread(target=each, daemon=True) for each in (follow, scrape)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        ended.set()
        for stream in streams:
            stream.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def viewer_seconds() -> float:
    """Return the processor seconds of the page's process so far; 0 without one."""
    return sum(
        sum(child.cpu_times()[:2])
        for child in psutil.Process().children()
        if any("distkeras.monitor.dashboard" in word for word in child.cmdline())
    )


def turn(args: argparse.Namespace, rows: Any, folder: Path | None) -> dict[str, float]:
    """Train once, with everything on in `folder`, or with nothing on; return where the time went."""
    options: dict[str, Any] = {"num_workers": args.workers, "num_epoch": args.epochs, "batch_size": 128}
    trainer = ADAG(
        model("sgd"), communication_window=args.window, seed=1, verbose=folder is not None, **options
    )
    with contextlib.ExitStack() as stack:
        monitors: dict[str, Any] = {}
        drawn, counts = [0], {"stream": 0, "scrapes": 0}
        if folder is not None:
            dashboard, prometheus = Dashboard(), Prometheus(port=0)
            board = TensorBoard(str(folder / "tensorboard"))
            monitors = {"run": folder / "run", "monitor": [dashboard, board, prometheus]}
            drawn = stack.enter_context(terminal())
            counts = stack.enter_context(onlookers(dashboard, prometheus))
        began, cpu, seen = time.time(), time.process_time(), viewer_seconds()
        trainer.train(rows, **monitors)
        ended = time.time()
        windows = trainer.get_history()
        return {
            "seconds": ended - windows[0].timestamp,
            "before": windows[0].timestamp - began,
            "driver": time.process_time() - cpu,
            "viewer": viewer_seconds() - seen,
            "windows": len(windows),
            "drawn": drawn[0],
            **counts,
        }


def summary(pairs: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return the median of the pairs' ratios of seconds, everything by nothing, and their spread."""
    ratios = sorted(pair["everything"]["seconds"] / pair["nothing"]["seconds"] for pair in pairs)
    low, _, high = statistics.quantiles(ratios, n=4)
    found = {"median": statistics.median(ratios), "lower quartile": low, "upper quartile": high}
    return {**found, "least": ratios[0], "most": ratios[-1]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--window", type=int, default=5, help="minibatches of a window")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    if args.pairs < 2:
        parser.error(f"Expected at least 2 pairs, for a spread. Received: --pairs {args.pairs}")
    run, rows = recording.begin(__file__), data(args.rows, 0)
    with tempfile.TemporaryDirectory() as root:
        turn(args, rows, None)  # Spark starts, and the step is compiled.
        turn(args, rows, Path(root, "first"))  # The viewer starts; libraries are imported.
        pairs = []
        for number in range(args.pairs):
            sides: list[Path | None] = [None, Path(root, str(number))]
            order = sides if number % 2 == 0 else sides[::-1]
            by_side = {"nothing" if side is None else "everything": turn(args, rows, side) for side in order}
            pairs.append({side: by_side[side] for side in ("nothing", "everything")})
            ratio = by_side["everything"]["seconds"] / by_side["nothing"]["seconds"]
            print(f"pair {number}: {json.dumps(pairs[-1])}: {ratio:.3f}", flush=True)
    before = {
        side: statistics.median(pair[side]["before"] for pair in pairs) for side in ("nothing", "everything")
    }
    arguments_of = {name: value for name, value in vars(args).items() if name != "out"}
    result = {
        "arguments": arguments_of,
        "backend": keras.backend.backend(),
        "pairs": pairs,
        "before the first window": before,
        "ratio": summary(pairs),
    }
    print(json.dumps(result["ratio"]))
    if args.out is not None:
        run.write(result, args.out)


if __name__ == "__main__":
    main()
