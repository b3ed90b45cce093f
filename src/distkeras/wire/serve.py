"""The parameter server's process: `python -m distkeras.wire`.

Reads its job from standard input (the driver's own words, hence trusted; nothing that arrives by network is
unpickled), writes its port to standard output, and serves until standard input ends. The pipe ends with the
driver, also when that is killed: no server outlives its job.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

from distkeras.algorithms import Algorithm, Vector
from distkeras.center import Center, Independent
from distkeras.wire.codecs import Codec, Packing
from distkeras.wire.server import Server

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True)
class ServerJob:
    """What a server process is told at its start.

    Attributes:
        algorithm: the rule.
        initial: the first center, shape (size,); or one for each worker's own, shape (workers, size).
        num_trainable: its leading elements that the rule governs.
        num_workers: workers of the job.
        quorum: messages that complete a synchronous round, `None` for all.
        token: the job's secret.
        host: address to bind.
        ports: candidates for the port; 0 lets the system choose.
        compression: the codec of the workers' messages, `None` for none.
    """

    algorithm: Algorithm
    initial: Vector
    num_trainable: int
    num_workers: int
    quorum: int | None
    token: bytes
    host: str
    ports: tuple[int, ...] = (0,)
    compression: Codec | None = None

    @property
    def packing(self) -> Packing | None:
        """How the workers' messages travel; `None`: as they are."""
        if self.compression is None:
            return None
        return Packing(self.compression, self.initial.shape[-1], self.num_trainable)


def read_job(stream: BinaryIO) -> ServerJob:
    """Read the job that the driver wrote.

    Raises:
        TypeError: it wrote something else.
    """
    (length,) = LENGTH.unpack(stream.read(LENGTH.size))
    job = pickle.loads(stream.read(length))
    if not isinstance(job, ServerJob):
        raise TypeError(f"Expected a ServerJob on standard input. Received: {type(job)}")
    return job


def make_center(job: ServerJob) -> Center | Independent:
    """Return the center that `job` asks for."""
    if job.initial.ndim == 2:
        return Independent(job.algorithm, job.initial, num_trainable=job.num_trainable, clock=time.time)
    return Center(
        job.algorithm,
        job.initial,
        job.num_workers,
        num_trainable=job.num_trainable,
        quorum=job.quorum,
        clock=time.time,
    )


def main() -> None:
    """Serve one job."""
    logging.basicConfig(level=logging.WARNING, format="parameter server: %(message)s")
    job = read_job(sys.stdin.buffer)
    server = Server(make_center(job), job.token, job.host, job.ports, job.packing)
    threading.Thread(target=server.serve, daemon=True).start()
    print(json.dumps({"port": server.port}), flush=True)
    # A line is a reason: it ends the job for the workers. The end of the stream ends the process.
    for line in sys.stdin.buffer:
        server.stop(line.decode().strip())
    server.close()
    # Threads may still be inside a send to a dead peer: they must not keep the process.
    os._exit(0)
