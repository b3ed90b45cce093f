"""Many workers on one parameter server: how many exchanges a second, and does each get its share? JSON out.

Each connection commits a model again and again for some seconds, without training in between, so that the
server is always busy. The connections are held by few processes without threads, which send prepared vectors
and count the bytes of the replies: a thread for each would cost more than the server. Beside each measurement
stands a raw TCP echo with as many connections of the same processes: one loop that adds what arrives to a
vector and sends that back. It says what the machine and these processes can do at most.

python benchmarks/many_workers.py [--connections 1 4 16 64 256 1024] [--size 10000] [--seconds 5] [--turns 1]
"""

from __future__ import annotations

import argparse
import json
import resource
import selectors
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import recording
from processes import clients, serving

from distkeras.algorithms import DOWNPOUR, Vector
from distkeras.center import CenterConfig
from distkeras.center.answers import Exchanged
from distkeras.center.requests import Exchange, Join
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.wire import frames
from distkeras.wire.client import ServerAddress
from distkeras.wire.connection import Connection
from distkeras.wire.handshake import SESSION_BYTES, Handshake

PROCESSES = 1


class Exchanger:
    """One connection that always has an exchange under way.

    Args:
        sock: a connected socket that does not block.
        make: returns the pieces of the next message.
        expected: bytes of a reply.

    Attributes:
        seconds: how long each exchange took.
    """

    def __init__(self, sock: socket.socket, make: Callable[[int], list[memoryview]], expected: int) -> None:
        self.sock = sock
        self._make, self._expected = make, expected
        self._out: list[memoryview] = []
        self._left = 0
        self._began = 0.0
        self.seconds: list[float] = []

    def begin(self) -> bool:
        """Start the next exchange; return whether all of it is sent."""
        self._began, self._left = time.perf_counter(), self._expected
        self._out = self._make(len(self.seconds) + 1)
        return self.send()

    def send(self) -> bool:
        """Send what the system takes; return whether all is sent."""
        try:
            while self._out:
                sent = self.sock.sendmsg(self._out)
                while self._out and sent >= len(self._out[0]):
                    sent -= len(self._out.pop(0))
                if sent:
                    self._out[0] = self._out[0][sent:]
        except BlockingIOError:
            return False
        return True

    def receive(self, buffer: memoryview) -> bool:
        """Receive what is there; return whether the reply is whole."""
        count = self.sock.recv_into(buffer[: self._left])
        if count == 0:
            raise ConnectionError("The server closed the connection.")
        self._left -= count
        if self._left:
            return False
        self.seconds.append(time.perf_counter() - self._began)
        return True


def keep_busy(exchangers: list[Exchanger], largest: int, seconds: float) -> None:
    """Exchange over all connections until the time is over."""
    buffer = memoryview(bytearray(largest))
    with selectors.DefaultSelector() as selector:
        for exchanger in exchangers:
            wanted = selectors.EVENT_READ if exchanger.begin() else _BOTH
            selector.register(exchanger.sock, wanted, exchanger)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, events in selector.select(1.0):
                exchanger = key.data
                if events & selectors.EVENT_WRITE and exchanger.send():
                    selector.modify(key.fd, selectors.EVENT_READ, exchanger)
                if events & selectors.EVENT_READ and exchanger.receive(buffer) and not exchanger.begin():
                    selector.modify(key.fd, _BOTH, exchanger)


_BOTH = selectors.EVENT_READ | selectors.EVENT_WRITE


def own_exchanger(address: ServerAddress, worker: int, message: Vector) -> Exchanger:
    """Return a connection to our server that has joined."""
    sock = socket.create_connection((address.host, address.port))
    handshake = Handshake(sock)
    handshake.prove_to_server(address.token, worker.to_bytes(SESSION_BYTES))
    sock.settimeout(None)
    connection = Connection(sock, frames.REPLIES, frames.MAX_REPLY_TEXT)
    connection.send(Join(worker))
    connection.receive(np.empty_like(message))
    sock.setblocking(False)
    head, _ = frames.encode(Exchanged(message, 0))  # However large its numbers: the zeros make it as long.
    expected = len(head) + message.nbytes

    def make(sequence: int) -> list[memoryview]:
        head, _ = frames.encode(Exchange(worker, sequence, 1, 1, 0, sequence, message))
        return [memoryview(head), message.data.cast("B")]

    return Exchanger(sock, make, expected)


def raw_exchanger(port: int, message: Vector) -> Exchanger:
    """Return a connection to the raw echo."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return Exchanger(sock, lambda _: [message.data.cast("B")], message.nbytes)


def be_many(target: str, where: Any, workers: range, size: int, pipe: Pipe) -> None:
    """Hold the connections of `workers` to the target; keep them busy for some seconds whenever told to."""
    _allow_open_files()
    message = np.full(size, 1e-6, np.float32)
    if target == "own":
        exchangers = [own_exchanger(where, worker, message) for worker in workers]
    else:
        exchangers = [raw_exchanger(where, message) for _ in workers]
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        keep_busy(exchangers, 2 * message.nbytes + 2**16, seconds)
        pipe.send([exchanger.seconds for exchanger in exchangers])


def serve_raw(size: int, pipe: Pipe) -> None:
    """Echo: one loop that adds each whole message to the center and sends the center back."""
    _allow_open_files()
    center = np.zeros(size, np.float32)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pipe.send(listener.getsockname()[1])
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, events in selector.select():
                if key.fileobj is listener:
                    sock = listener.accept()[0]
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.setblocking(False)
                    selector.register(sock, selectors.EVENT_READ, Echo(sock, center))
                elif key.data.go_on(events):
                    selector.modify(key.fd, key.data.wanted, key.data)
                elif key.data.gone:
                    selector.unregister(key.fd)
                    key.data.sock.close()


class Echo:
    """The echo's end of one connection.

    Attributes:
        wanted: the events that it waits for.
        gone: whether the other side has closed it.
    """

    def __init__(self, sock: socket.socket, center: Vector) -> None:
        self.sock, self.wanted, self.gone = sock, selectors.EVENT_READ, False
        self._center, self._vector = center, np.empty_like(center)
        self._whole = self._vector.data.cast("B")
        self._rest = self._whole

    def go_on(self, events: int) -> bool:
        """Receive and send what is possible; return whether `wanted` has changed."""
        before = self.wanted
        try:
            if self.wanted == selectors.EVENT_READ:
                count = self.sock.recv_into(self._rest)
                self._rest, self.gone = self._rest[count:], count == 0
                if self._rest or self.gone:
                    return False
                np.add(self._center, self._vector, out=self._center)
                np.copyto(self._vector, self._center)
                self._rest = self._whole
            self._rest = self._rest[self.sock.send(self._rest) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.gone = True
            return False
        if self._rest:
            self.wanted = selectors.EVENT_WRITE
        else:
            self.wanted, self._rest = selectors.EVENT_READ, self._whole
        return self.wanted != before


def exchanges(target: str, where: Any, connections: int, size: int, seconds: float) -> dict[str, Any]:
    """Return figures of so many connections to the target at once."""
    count = min(PROCESSES, connections)
    each = [(target, where, range(index, connections, count), size) for index in range(count)]
    with clients(be_many, each) as processes:
        taken = [times for those in processes.ask(seconds) for times in those]
    counts = sorted(map(len, taken))
    every = np.concatenate([np.array(times) for times in taken]) * 1e3
    return {
        "exchanges per second": round(sum(counts) / seconds),
        "fewest / most": round(counts[0] / counts[-1], 3),
        "ms, median": round(float(np.median(every)), 2),
        "ms, 99 %": round(float(np.percentile(every, 99)), 2),
        "ms, longest": round(float(every.max()), 2),
    }


def measure(connections: int, size: int, seconds: float, turns: int) -> dict[str, Any]:
    """Return figures of so many connections to our server, and to the echo, in turns."""
    options = ServerOptions(shared_memory=False, snapshots=None)
    setup = ServerSetup(CenterConfig(DOWNPOUR(), connections), options=options)
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with serving(serve_raw, size) as raw_port:
        for _ in range(turns):
            with ServerProcess(setup, np.zeros(size, np.float32)) as server:
                process = psutil.Process(server._process.pid)
                before = sum(process.cpu_times()[:2])
                own = exchanges("own", server.address, connections, size, seconds)
                spent = sum(process.cpu_times()[:2]) - before
                own["server, µs of processor time"] = round(spent / (own[_RATE] * seconds) * 1e6, 1)
            rows.append((own, exchanges("raw", raw_port, connections, size, seconds)))
    return {
        "connections": connections,
        **_medians([own for own, _ in rows]),
        "raw echo per second": _medians([raw for _, raw in rows])["exchanges per second"],
        "of raw speed": round(statistics.median(own[_RATE] / raw[_RATE] for own, raw in rows), 3),
    }


_RATE = "exchanges per second"


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def _allow_open_files() -> None:
    """Allow as many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Measure each number of connections."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--size", type=int, default=10_000, help="weights of the model")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--turns", type=int, default=1, help="medians of so many measurements")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    rows = []
    for count in options.connections:
        rows.append(measure(count, options.size, options.seconds, options.turns))
        print(json.dumps(rows[-1]), flush=True)
    if options.out is not None:
        run.write({"size": options.size, "results": rows}, options.out)


if __name__ == "__main__":
    main()
