"""Hostile frames against a live server: is the center untouched, and does the server cost what it did?

Mutated frames are sent by members of the job (the token proved first) and by strangers (none proved), over
many short connections. Every vector is NaN throughout, however its bytes are shifted, so that even a frame
that survives its mutation as a valid commit must be refused. Compared before and after: the center, bit by
bit, and the server's memory, threads and open files; at the end a worker trains on as if nothing had been.
JSON out.

python benchmarks/fuzz.py [--frames 1000000] [--jobs 4] [--out benchmarks/results/fuzz.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing as mp
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import recording

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Fail, Fetch, Join, Leave, Poll, Pull, Report, Request, Write
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.wire import frames
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.codecs import BF16, Packing, TopK
from distkeras.wire.connection import Connection
from distkeras.wire.handshake import NONCE_BYTES, SESSION_BYTES, Handshake

SIZE = 256
WORKERS = 4
SESSIONS = 8
SHARES = (
    ("members", None, 0.5),
    ("members", "bf16", 0.2),
    ("members", "topk", 0.1),
    ("strangers", None, 0.2),
)
# All values are kept: each is NaN, and one that is left refuses the message.
CODECS = {None: None, "bf16": BF16(), "topk": TopK(density=1.0)}
ANSWER_SECONDS = 30.0
UNANSWERED_SECONDS = 0.003
SETTLED_SECONDS = 30.0
INTERESTING = (0, 1, 2, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2**63,
    -(2**63),
    2**64 - 1,
    float("nan"),
    "",
    "é\x00",
    b"\xff",
    [],
    [[]],
    {},
    {"a": {}},
)


def corpus(compression: str | None) -> list[bytes]:
    """Return valid frames, one of each kind; the commits hold NaN alone."""
    nothing = np.full(SIZE, 2**32 - 1, np.uint32).view(np.float32)  # A NaN, wherever one begins to read.
    encoded = None
    codec = CODECS[compression]
    if codec is not None:
        packing = Packing(codec, SIZE, SIZE)
        encoded = frames.Encoded(codec.number, np.full(packing.num_bytes, 255, np.uint8))
        if isinstance(codec, TopK):  # Its indices must be in range for the rest to be looked at.
            packing.encode(nothing, encoded.data)
    requests: list[Request] = [
        Join(1, 0),
        Exchange(1, 1, 3, 96, 0, 3, nothing, {"loss": 0.5, "accuracy": 0.25}),
        Exchange(1, 1, 3, 96, 0, 3, nothing, {"loss": 0.5}, states=bytes(16)),
        Leave(1),
        Fail(1, "Traceback: ..."),
        Pull(),
        Poll(10**6),
        Write(nothing),
        Report(1, "state", 1, 0, 2, b"the state of an optimizer"),
        Report(1, "evaluation", 10, 0, 1, b"states of metrics"),
        Fetch(1, "evaluation", 10),
    ]
    return [
        b"".join(_bytes(request, encoded if isinstance(request, Exchange) else None)) for request in requests
    ]


def _bytes(request: Request, encoded: frames.Encoded | None) -> Iterator[bytes]:
    head, vector = frames.encode(request, encoded=encoded)
    yield head
    if vector is not None:
        yield vector.tobytes()


def flip(frame: bytes, draw: random.Random) -> bytes:
    """Change a few bits."""
    data = bytearray(frame)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def cut(frame: bytes, draw: random.Random) -> bytes:
    """Leave out the end, or a part."""
    low, high = sorted((draw.randrange(len(frame)), draw.randrange(len(frame))))
    return frame[:low] if draw.random() < 0.5 else frame[:low] + frame[high:]


def add(frame: bytes, draw: random.Random) -> bytes:
    """Put random bytes, or the frame again, somewhere inside."""
    place = draw.randrange(len(frame))
    return frame[:place] + draw.choice((draw.randbytes(draw.randrange(1, 64)), frame)) + frame[place:]


def lengths(frame: bytes, draw: random.Random) -> bytes:
    """Change one field of the header to a number that is often too much."""
    fields = list(frames.HEADER.unpack(frame[: frames.HEADER.size]))
    index = draw.randrange(1, len(fields))
    bits = (0, 8, 8, 8, 32, 64, 32)[index]
    fields[index] = draw.choice(INTERESTING) % 2**bits
    return frames.HEADER.pack(*fields) + frame[frames.HEADER.size :]


def fields(frame: bytes, draw: random.Random) -> bytes:
    """Change, drop or add a field of the text, and state its length as it is then."""
    magic, version, kind, codec, length, vector, checksum = frames.HEADER.unpack(frame[: frames.HEADER.size])
    body = frame[frames.HEADER.size :]
    values: list[Any] = msgspec.msgpack.decode(body[:length])
    if values:
        place = draw.randrange(len(values))
        more = draw.choice((*VALUES, draw.randrange(-9, 9), draw.randrange(-(2**63), 2**64)))
        values[place : place + draw.choice((0, 1, 1, 1, 1))] = [] if draw.random() < 0.1 else [more]
    text = msgspec.msgpack.encode(values)
    if draw.random() < 0.05:
        text = draw.choice((b"\x91" * 60_000, b"\x81\xa1a" * 9000, b"\xdd" * 60_000, b"\xff" * 100, b""))
    header = frames.HEADER.pack(magic, version, kind, codec, len(text), vector, checksum)
    return header + text + bytes(frames.padding_of(len(text))) + body[length + frames.padding_of(length) :]


def rubbish(frame: bytes, draw: random.Random) -> bytes:
    """Send something else altogether."""
    return draw.choice((draw.randbytes(len(frame)), b"GET / HTTP/1.1\r\n\r\n" * 9, bytes(len(frame))))


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    cut,
    add,
    lengths,
    fields,
    fields,
    rubbish,
)


def member(address: ServerAddress, session: bytes, frame: bytes, line: list[Connection]) -> str:
    """Send `frame` over an authenticated connection, kept in `line` while it lives; tell what came."""
    if not line:
        sock = socket.create_connection((address.host, address.port), ANSWER_SECONDS)
        Handshake(sock).prove_to_server(address.token, session)
        sock.settimeout(ANSWER_SECONDS)
        line.append(Connection(sock, frames.REPLIES, frames.MAX_REPLY_TEXT))
    sock = line[0].stream.sock
    whole = False
    try:
        sock.sendall(frame)
        whole = bool(select.select([sock], [], [], UNANSWERED_SECONDS)[0])
        if not whole:
            sock.shutdown(socket.SHUT_WR)  # The server waits for the rest of a frame that was cut short.
        answer = type(line[0].receive(np.empty(SIZE, np.float32))).__name__
    except TimeoutError:
        raise
    except OSError:
        whole, answer = False, "refused"
    if not whole:
        line.pop().close()
    return answer


def stranger(address: ServerAddress, frame: bytes, draw: random.Random) -> str:
    """Send `frame`, or a handshake with a wrong proof, without having proved anything."""
    with closing(socket.create_connection((address.host, address.port), ANSWER_SECONDS)) as sock:
        if draw.random() < 0.5:
            frame = draw.randbytes(NONCE_BYTES + SESSION_BYTES + 32)[: draw.randrange(1, 81)] + frame
        with suppress(ConnectionError):
            sock.sendall(frame)
    return "not heard"


def cost(process: psutil.Process) -> dict[str, float]:
    """Return what the server's process holds."""
    return {
        "megabytes": round(process.memory_info().rss / 1e6, 1),
        "threads": process.num_threads(),
        "files": process.num_fds(),
    }


def settled(process: psutil.Process, before: dict[str, float]) -> dict[str, float]:
    """Wait until the connections of strangers that are left waiting have ended, and return the cost then."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while (now := cost(process))["threads"] > before["threads"] and time.monotonic() < deadline:
        time.sleep(0.2)
    return now


@contextmanager
def server(compression: str | None) -> Iterator[ServerProcess]:
    """Run a server on its TCP port alone."""
    setup = ServerSetup(
        CenterConfig(DOWNPOUR(), WORKERS),
        options=ServerOptions(shared_memory=False, snapshots=None),
        compression=CODECS[compression],
    )
    process = ServerProcess(setup, np.zeros(SIZE, np.float32))
    with process:
        yield process


def commit(sequence: int) -> Exchange:
    """Return an honest commit of worker 0."""
    message = np.random.default_rng(sequence).standard_normal(SIZE).astype(np.float32)
    return Exchange(0, sequence, 1, 32, 0, sequence, message)


def attack(by: str, compression: str | None, num_frames: int, seed: int) -> dict[str, Any]:
    """Send `num_frames` mutated frames to a server of its own, and compare it before and after."""
    draw = random.Random(seed)
    valid = corpus(compression)
    outcomes: Counter[str] = Counter()
    with server(compression) as process:
        address = process.address
        watched = psutil.Process(process._process.pid)
        with Client(address) as worker, Client(address) as driver:
            worker.call(Join(0))
            for sequence in range(1, 11):
                worker.call(commit(sequence))
            center = driver.call(Pull()).center.tobytes()
            time.sleep(0.2)  # The threads of the handshakes have ended then.
            since, before = 0, cost(watched)
            sessions = [draw.randbytes(SESSION_BYTES) for _ in range(SESSIONS)]
            line: list[Connection] = []
            started = time.perf_counter()
            for number in range(num_frames):
                frame = draw.choice(MUTATIONS)(draw.choice(valid), draw)
                if by == "members":
                    outcomes[member(address, sessions[number % SESSIONS], frame, line)] += 1
                else:
                    outcomes[stranger(address, frame, draw)] += 1
                if number % 200 == 0:  # As the driver would.
                    since = driver.call(Poll(since)).next
                if number == min(num_frames // 20, 20_000):
                    # The interpreter's own pools have grown to their size by now.
                    warm = cost(watched)
            seconds = time.perf_counter() - started
            for connection in line:
                connection.close()
            while page := driver.call(Poll(since)):
                since = page.next
                if not page.events:
                    break
            untouched = driver.call(Pull()).center.tobytes() == center
            after = settled(watched, before)
        with Client(address) as worker:
            # Members could say that they come last, too.
            place = worker.call(Join(0, ticket=2**63 - 1)).sequence
            worker.call(commit(place + 1))
            trains_on = place == 10 and worker.call(Pull()).num_updates == 11
    return {
        "by": by,
        "compression": compression,
        "frames": num_frames,
        "seconds": round(seconds, 1),
        "center untouched": untouched,
        "a worker trains on": trains_on,
        "before": before,
        "warm": warm,
        "after": after,
        "outcomes": dict(outcomes.most_common()),
    }


def main() -> None:
    """Attack a plain server and such that compress, by members and by strangers."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1, help="attacks side by side, of the four")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    attacks = [(by, compression, round(share * options.frames)) for by, compression, share in SHARES]
    with ProcessPoolExecutor(options.jobs, mp.get_context("spawn")) as pool:
        running = [pool.submit(attack, *one, options.seed + index) for index, one in enumerate(attacks)]
        results = [future.result() for future in running]
    print(json.dumps(results, indent=2))
    if options.out is not None:
        run.write({"attacks": results}, options.out)


if __name__ == "__main__":
    main()
