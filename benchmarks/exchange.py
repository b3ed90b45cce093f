"""What an exchange costs, commit and pull in one round trip, against the bare socket and others. JSON out.

Each target is measured beside a raw TCP echo that adds the same bytes to a NumPy vector and sends it back, in
the same run, the two in turn; figures are medians over the rounds. Workers and servers are processes of their
own on this machine. `--elephas` names the Python of an environment with elephas 7.3.

python benchmarks/exchange.py [--megabytes 0.5 2.6 40 200] [--targets ...] [--workers 1 2] [--overlap]
                              [--elephas PYTHON] [--rate 10gbit] [--out FILE]

With `--rate`, which takes root, loopback moves so much, both directions together, until the benchmark ends.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight
import recording
from processes import clients, serving

from distkeras.algorithms import DOWNPOUR, Vector
from distkeras.center import CenterConfig, Layout
from distkeras.center.answers import Exchanged, Joined
from distkeras.center.requests import Exchange, Join, Leave
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.wire import codecs
from distkeras.wire.client import ServerAddress
from distkeras.wire.group import connect
from distkeras.worker.loop import Loop
from distkeras.worker.memory import keep_freed_memory
from distkeras.worker.minibatch import Minibatch

TARGETS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "shared memory": {"shared_memory": True},
    "2 servers": {"num_servers": 2},
    "tls": {"tls": True},
    "checksum": {"checksum": True},
    **{name: {"compression": name} for name in ("fp16", "bf16", "int8", "sign", "topk")},
    "arrow flight": {},
}
SECONDS = 1.0
"""Of one measurement in a round."""
Call = Callable[[], None]


def serve_raw(size: int, out: Pipe) -> None:
    """Echo: add what arrives to the center, send the center back."""
    center, lock = np.zeros(size, np.float32), threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0))
    out.send(listener.getsockname()[1])

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = np.empty(size, np.float32)
        with sock, contextlib.suppress(ConnectionError):
            while True:
                _fill(sock, buffer)
                with lock:
                    np.add(center, buffer, out=center)
                    np.copyto(buffer, center)
                sock.sendall(buffer.data)

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def serve_flight(size: int, out: Pipe) -> None:
    """The same as a service of Arrow Flight."""

    class Service(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
        """Adds what is put, gives the center."""

        center, lock = np.zeros(size, np.float32), threading.Lock()

        def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            """Serve one worker."""
            writer.begin(SCHEMA)
            for chunk in reader:
                with self.lock:
                    self.center += chunk.data.column(0).to_numpy()
                    reply = self.center.copy()
                writer.write_batch(pa.record_batch([pa.array(reply)], SCHEMA))

    service = Service("grpc://127.0.0.1:0")
    out.send(service.port)
    service.serve()


SCHEMA = pa.schema([("weights", pa.float32())])


def raw_call(port: int, message: Vector) -> Call:
    """Return a function that makes one exchange with the raw echo."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = np.empty_like(message)

    def call() -> None:
        sock.sendall(message.data)
        _fill(sock, buffer)

    return call


def flight_call(port: int, message: Vector) -> Call:
    """Return a function that makes one exchange by Arrow Flight."""
    client = pyarrow.flight.connect(f"grpc://127.0.0.1:{port}")
    writer, reader = client.do_exchange(pyarrow.flight.FlightDescriptor.for_path("center"))
    writer.begin(SCHEMA)
    batch = pa.record_batch([pa.array(message)], SCHEMA)

    def call() -> None:
        writer.write_batch(batch)
        reader.read_chunk()

    return call


def own_call(
    addresses: tuple[ServerAddress, ...], worker: int, message: Vector, compression: str | None
) -> Call:
    """Return a function that makes one exchange with our servers."""
    client = connect(addresses)
    client.call(Join(worker))
    sequence = 0

    def call() -> None:
        nonlocal sequence
        sequence += 1
        own = message if compression is None else message.copy()  # The client overwrites it.
        reply = client.call(Exchange(worker, sequence, 1, 1, 0, sequence, own))
        if not isinstance(reply, Exchanged):
            raise TypeError(f"Expected Exchanged. Received: {reply!r}")

    return call


def be_worker(worker: int, target: str, where: Any, raw_port: int, size: int, pipe: Pipe) -> None:
    """Make exchanges with the target or the raw echo, as often as the pipe says; answer with the seconds."""
    keep_freed_memory(4 * size)  # As every worker does.
    # As a window's change is: to codecs it matters how values are distributed.
    message = np.random.default_rng(worker).normal(0, 1e-3, size).astype(np.float32)
    if target == "arrow flight":
        call = flight_call(where, message)
    else:
        call = own_call(where, worker, message, TARGETS[target].get("compression"))
    calls = {"target": call, "raw": raw_call(raw_port, message)}
    for call in calls.values():
        call()
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        name, count = order
        started = time.perf_counter()
        for _ in range(count):
            calls[name]()
        pipe.send((time.perf_counter() - started) / count)


@contextlib.contextmanager
def target_serving(target: str, size: int, num_workers: int) -> Iterator[Any]:
    """Run the target's servers; yield where they are."""
    if target == "arrow flight":
        with serving(serve_flight, size) as port:
            yield port
        return
    given = TARGETS[target]
    options = ServerOptions(
        shared_memory=given.get("shared_memory", False),
        tls=given.get("tls", False),
        checksum=given.get("checksum", False),
        snapshots=None,
    )
    setup = ServerSetup(
        CenterConfig(DOWNPOUR(), num_workers),
        options=options,
        compression=codecs.get(given.get("compression")),
    )
    with Servers(given.get("num_servers", 1), setup, np.zeros(size, np.float32)) as servers:
        yield servers.addresses


def measure(target: str, megabytes: float, num_workers: int, rounds: int) -> dict[str, Any]:
    """Return the figures of one target beside the raw echo."""
    size = int(megabytes * 2**20 / 4)
    with serving(serve_raw, size) as raw_port, target_serving(target, size, num_workers) as where:
        each = [(worker, target, where, raw_port, size) for worker in range(num_workers)]
        with clients(be_worker, each) as workers:

            def seconds(name: str, count: int) -> float:
                return statistics.fmean(workers.ask((name, count)))

            counts = {name: max(1, round(SECONDS / seconds(name, 1))) for name in ("raw", "target")}
            times = [{name: seconds(name, count) for name, count in counts.items()} for _ in range(rounds)]
    taken = statistics.median(row["target"] for row in times)
    raw = statistics.median(row["raw"] for row in times)
    return {
        "target": target,
        "megabytes": megabytes,
        "workers": num_workers,
        "ms": round(taken * 1e3, 3),
        "raw ms": round(raw * 1e3, 3),
        "GB/s": round(2 * 4 * size * num_workers / taken / 1e9, 2),
        "of raw speed": round(statistics.median(row["raw"] / row["target"] for row in times), 3),
    }


class Sleeper:
    """A replica whose window takes `seconds` and no processor time."""

    def __init__(self, size: int, seconds: float) -> None:
        self.layout = Layout((("weights", (size,)),))
        self._weights = np.zeros(size, np.float32)
        self._seconds = seconds

    def train(self, *_: Any) -> None:
        """Be busy elsewhere."""
        time.sleep(self._seconds)

    def read(self) -> Vector:
        """Return the weights."""
        return self._weights.copy()

    def write(self, vector: Vector) -> None:
        """Set them."""
        np.copyto(self._weights, vector)

    adopt = write

    def metrics(self) -> dict[str, float]:
        """There are none."""
        return {}

    def metrics_and_states(self) -> tuple[dict[str, float], list[Any]]:
        """There are none."""
        return {}, []

    def collect_metrics(self, *_: Any) -> None:
        """There are none."""


class Windows:
    """A feed of so many minibatches."""

    def __init__(self, count: int) -> None:
        self._count = count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield them."""
        for _ in range(start, self._count):
            yield Minibatch(None, None, None, 1)


def measure_overlap(megabytes: float, rounds: int, count: int = 20) -> dict[str, Any]:
    """Return how much of the exchange `overlap` hides where a core is free for it."""
    size = int(megabytes * 2**20 / 4)
    keep_freed_memory(4 * size)
    with target_serving("tcp", size, 1) as where, connect(where) as client:
        window = 3 * measure("tcp", megabytes, 1, rounds)["ms"] / 1e3
        base = 0

        def seconds(call: Callable[[Any], Any], overlap: bool) -> float:
            replica: Any = Sleeper(size, window)
            feed: Any = Windows(count)
            loop = Loop(replica, feed, DOWNPOUR(1), call, worker=0, num_epoch=1, overlap=overlap)
            started = time.perf_counter()
            loop.run()
            return time.perf_counter() - started

        def forget(request: Any) -> Any:
            """Answer as a server would that costs nothing."""
            match request:
                case Exchange():
                    return Exchanged(request.message, 0)
                case Join():
                    return Joined(np.zeros(size, np.float32), 0, 0, 0)
                case Leave():
                    return None

        def anew(request: Any) -> Any:
            nonlocal base
            if isinstance(request, Exchange):
                request = Exchange(0, base + request.sequence, 1, 1, 0, 0, request.message)
            reply = client.call(request)
            if isinstance(request, Join):
                base = reply.sequence
                reply = Joined(reply.center, 0, 0, 0)
            return reply

        rows = [(seconds(forget, False), seconds(anew, False), seconds(anew, True)) for _ in range(rounds)]
    nothing, waits, overlaps = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "megabytes": megabytes,
        "window ms": round(window * 1e3, 2),
        "exchange ms": round((waits - nothing) / count * 1e3, 2),
        "hidden": round((waits - overlaps) / (waits - nothing), 3),
    }


def _fill(sock: socket.socket, buffer: Vector) -> None:
    view = buffer.data.cast("B")
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise ConnectionError("The other side closed the connection.")
        view = view[count:]


@contextlib.contextmanager
def loopback_held_to(rate: str) -> Iterator[None]:
    """Let loopback move at most `rate` until the block ends, such as "10gbit"."""
    held = ["root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
    subprocess.run(["tc", "qdisc", "add", "dev", "lo", *held], check=True)
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


def main() -> None:
    """Measure, and write the record after every part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.5, 2.6, 40, 200])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="of which a figure is the median")
    parser.add_argument("--overlap", action="store_true", help="measure what overlap hides, too")
    parser.add_argument("--elephas", help="Python of an environment with elephas 7.3")
    parser.add_argument("--rate", help="hold loopback to so much, as tc(8) takes it, such as 1gbit")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    results: dict[str, Any] = {"rounds": options.rounds}
    with contextlib.nullcontext() if options.rate is None else loopback_held_to(options.rate):
        for name, measured in parts(options):
            results[name] = measured
            if options.out:
                run.write(results, options.out)


def parts(options: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Measure part by part; yield the name of each, and its figures."""

    def tell(row: dict[str, Any]) -> dict[str, Any]:
        print("  ".join(f"{name}: {value}" for name, value in row.items()), flush=True)
        return row

    each = itertools.product(options.megabytes, options.workers, options.targets)
    yield (
        "exchanges",
        [tell(measure(target, size, workers, options.rounds)) for size, workers, target in each],
    )
    if options.overlap:
        yield "overlap", [tell(measure_overlap(size, options.rounds)) for size in options.megabytes]
    if options.elephas:
        script = Path(__file__).with_name("exchange_elephas.py")
        lines = subprocess.run([options.elephas, script], check=True, capture_output=True, text=True).stdout
        yield "elephas", [tell(json.loads(line)) for line in lines.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
