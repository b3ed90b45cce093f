"""The parameter server's process: `python -m distkeras.wire CONTROL REPORT DRIVER`.

Reads its job from the descriptor CONTROL (the driver's own words, hence trusted; nothing that arrives by
network is unpickled), writes its port to the descriptor REPORT, and serves until CONTROL ends or the process
DRIVER: no server outlives its job. Its standard output is the user's, whose rules may print.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import resource
import select
import shutil
import struct
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center import Center, CenterConfig, Independent, restore_snapshot, take_snapshot
from distkeras.record import Recorded
from distkeras.wire.codecs import Codec, Packing
from distkeras.wire.compression import packing_of
from distkeras.wire.handshake import TIMEOUT
from distkeras.wire.handshake_limiter import MAX_PENDING
from distkeras.wire.log import follow_driver, log_to_driver
from distkeras.wire.server import THREADS, Server
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store, seconds_to_write
from distkeras.wire.tls import TLS

NOT_FINITE_CODE = 3
"""Of a process whose center is not finite any more: the driver starts it again from its last snapshot."""
EXIT_SECONDS = 5.0
LOOK_SECONDS = 0.5
logger = logging.getLogger(__name__)
LENGTH = struct.Struct("!Q")
SPARE_FILES = 64
SPARE_CONNECTIONS = 16
"""Beside four a worker: exchanges and signs of life, each perhaps of a process that was replaced as well."""


@dataclass(frozen=True)
class ServerJob:
    """What a server process is told at its start.

    Attributes:
        config: what decides what becomes of the center.
        initial: the first center, shape (size,); or one for each worker's own, shape (workers, size).
        token: the job's secret.
        host: address to bind.
        ports: candidates for the port; 0 lets the system choose.
        compression: the codec of the workers' messages, `None` for none.
        snapshots: when to write snapshots, and where: its address is set; `None` for none.
        temporary: remove the folder of the snapshots at the end.
        restore: go on from the last of them, where there is one.
        run: names the job, where its snapshots lie.
        epoch: of the lease on that place which a server of this job held that was killed; 0: none.
        since: events that the driver has seen of a server that was killed.
        settings: of the job, plain JSON, for the snapshots.
        local_name: Unix socket for workers on the server's machine, `None` for none.
        checksum: frames carry checksums.
        tls: encrypts the connections; `None`: nothing does.
        heartbeat: seconds of silence from which a worker counts as lost.
        timeout: seconds for which a worker's machine may acknowledge nothing.
        log_level: from which on the driver's log takes what the library says.
        record: file for the record of all requests; `None`: there is none.
    """

    config: CenterConfig
    initial: Vector
    token: bytes = field(repr=False)  # A secret: not in logs.
    host: str
    ports: tuple[int, ...] = (0,)
    compression: Codec | None = None
    snapshots: SnapshotOptions | None = None
    temporary: bool = False
    restore: bool = False
    run: str = ""
    epoch: int = 0
    since: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    local_name: str | None = None
    checksum: bool = False
    tls: TLS | None = None
    heartbeat: float = 30.0
    timeout: float = TIMEOUT
    log_level: int = logging.WARNING
    record: str | None = None

    @property
    def packing(self) -> Packing | None:
        """How vectors are compressed; `None`: not at all."""
        size = self.initial.shape[-1]
        return packing_of(self.config.algorithm, self.compression, size, self.config.trainable_of(size))

    @property
    def snapshot_seconds(self) -> float:
        """How long one snapshot may take."""
        return seconds_to_write(self.initial.nbytes)

    @property
    def exit_seconds(self) -> float:
        """How long the process may take to end: the driver waits for so long before it kills it."""
        if self.temporary or self.snapshots is None:
            return EXIT_SECONDS
        return EXIT_SECONDS + self.snapshot_seconds


class DriverStream(io.RawIOBase):
    """What the driver writes. It ends with the driver, even if a process that forked from it holds the pipe.

    Args:
        descriptor: the pipe's end.
        driver: number of the driver's process, whose child this one is.
    """

    def __init__(self, descriptor: int, driver: int) -> None:
        self._descriptor = descriptor
        self._driver = driver

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes, put them into `buffer` and return their number; 0: the driver has ended."""
        while not select.select([self._descriptor], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != self._driver:
                return 0
        return os.readv(self._descriptor, [buffer])


def read_job(stream: io.BufferedReader[Any]) -> ServerJob:
    """Read the job that the driver wrote: a pickle, and the arrays in it as they lie in memory.

    Raises:
        EOFError: the driver ended over it.
        TypeError: it wrote something else.
    """
    data, *buffers = (_read_block(stream) for _ in range(_read_length(stream)))
    job = pickle.loads(data, buffers=buffers)
    if not isinstance(job, ServerJob):
        raise TypeError(f"Expected a ServerJob from the driver. Received: {type(job)}")
    return job


def _read_length(stream: io.BufferedReader[Any]) -> int:
    data = stream.read(LENGTH.size)
    if len(data) < LENGTH.size:
        raise EOFError("The driver has ended.")
    (length,) = LENGTH.unpack(data)
    return int(length)


def _read_block(stream: io.BufferedReader[Any]) -> bytearray:
    block = bytearray(_read_length(stream))
    rest = memoryview(block)
    while rest:
        count = stream.readinto(rest)
        if not count:
            raise EOFError("The driver has ended.")
        rest = rest[count:]
    return block


def make_center(job: ServerJob) -> Center | Independent:
    """Return the center that `job` asks for."""
    return (Independent if job.config.independent else Center)(job.config, job.initial, clock=time.time)


def make_snapshot_writer(job: ServerJob, center: Center | Independent) -> SnapshotWriter | None:
    """Bring `center` to its last snapshot, if `job` asks for that, and keep snapshots from now on.

    Raises:
        SnapshotError: the last one does not fit this job.
        Fenced: another run has taken the address.
    """
    options = job.snapshots
    if options is None or options.address is None:
        return None
    store = Store(options.address, options.keep, job.run, job.epoch)
    if job.restore or not job.temporary:  # An address of the user's: better an error now.
        store.take()
    if job.restore:
        # Where there is none yet, it goes on from the very beginning.
        restore_snapshot(center, store.newest() or take_snapshot(center, job.settings), job.since)
    writer = SnapshotWriter(center, store, options, job.settings, job.snapshot_seconds)
    writer.start()
    return writer


def _allow_open_files(number: int) -> None:
    """Have the system allow this process so many open files, or as many as it will."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def go_back(reason: str) -> None:
    """End the process, so that the driver starts it again from its last snapshot, which is finite."""
    logger.error("The center goes back to its last snapshot: %s", reason)
    sys.stderr.flush()
    os._exit(NOT_FINITE_CODE)


def end_on_error(failed: threading.ExceptHookArgs) -> None:
    """End the process where one of the server's own threads ends by an exception: the driver sees why."""
    threading.__excepthook__(failed)
    if failed.thread is not None and failed.thread.name.startswith(THREADS):
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    """Serve one job."""
    threading.excepthook = end_on_error
    log_to_driver()
    if len(sys.argv) != 4:
        raise SystemExit("Expected CONTROL REPORT DRIVER: a trainer starts its parameter servers by itself.")
    control, report, driver = (int(argument) for argument in sys.argv[1:])
    for descriptor in (control, report):  # Not for a process that a rule may start.
        os.set_inheritable(descriptor, False)
    stream = io.BufferedReader(DriverStream(control, driver))
    try:
        job = read_job(stream)
    except EOFError:
        return  # There is no job after all, or no driver.
    follow_driver(job.log_level)
    packing, center = job.packing, make_center(job)
    writer = make_snapshot_writer(job, center)
    served = center if job.record is None else Recorded(center, job.record, restart=job.restore)
    job = replace(job, initial=np.empty(0, np.float32))  # The center has its own.
    if writer is not None and job.config.bad_updates.action == "skip":
        for member in center.members:
            member.finite.on_failure = go_back
    max_connections = 4 * job.config.num_workers + SPARE_CONNECTIONS
    _allow_open_files(max_connections + MAX_PENDING + SPARE_FILES)
    server = Server(
        served,
        job.token,
        job.host,
        job.ports,
        packing,
        snapshots=writer,
        local_name=job.local_name,
        checksum=job.checksum,
        tls=None if job.tls is None else job.tls.server(),
        max_connections=max_connections,
        heartbeat=job.heartbeat,
        timeout=job.timeout,
    )
    threading.Thread(target=server.serve, name=f"{THREADS}accept", daemon=True).start()
    with open(report, "w") as file:
        epoch = 0 if writer is None else writer.epoch
        print(json.dumps({"port": server.port, "epoch": epoch}), file=file)
    # A line is a reason: it ends the job for the workers. The end of the stream ends the process.
    for line in stream:
        server.stop(line.decode().strip())
    server.close()
    if writer is not None:
        if not job.temporary:  # Nothing is lost then of a training that is resumed.
            writer.write_now()
        writer.close()
    if job.temporary and job.snapshots is not None and job.snapshots.address is not None:
        shutil.rmtree(job.snapshots.address, ignore_errors=True)  # The driver, if it lives, does it too.
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still be inside a send to a dead peer: they must not keep the process.
    os._exit(0)
