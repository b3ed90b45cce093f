"""The parameter server's process: `python -m distkeras.wire CONTROL REPORT DRIVER`.

Reads its job from the file descriptor CONTROL, which only the driver writes and which is therefore trusted
(nothing from the network is unpickled). Writes its port to the descriptor REPORT, and serves until CONTROL or
the process DRIVER ends: no server outlives its job. Standard output is left to the user's algorithm.
"""

from __future__ import annotations

import gc
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
from distkeras.center import (
    AnyCenter,
    CenterConfig,
    Fragmented,
    Independent,
    Regional,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.follower import Follower
from distkeras.center.request_log import RequestLog
from distkeras.record import Recorded
from distkeras.wire.client import ServerAddress
from distkeras.wire.codecs import Codec
from distkeras.wire.event_loop import THREADS
from distkeras.wire.fragment_compression import AnyPacking, packing_for
from distkeras.wire.handshake import TIMEOUT
from distkeras.wire.handshake_limiter import MAX_PENDING
from distkeras.wire.log import follow_driver, log_to_driver
from distkeras.wire.malloc import return_large_blocks
from distkeras.wire.server import Server
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store, seconds_to_write
from distkeras.wire.tls import TLS

NOT_FINITE_CODE = 3
"""Exit code if the center is not finite any more: the driver restarts the server from its last snapshot."""
EXIT_SECONDS = 5.0
LOOK_SECONDS = 0.5
logger = logging.getLogger(__name__)
LENGTH = struct.Struct("!Q")
SPARE_FILES = 64
SPARE_CONNECTIONS = 16
"""Besides two per worker: its own, and that of a process that was replaced."""


@dataclass(frozen=True)
class ServerJob:
    """Everything that a server process needs at its start.

    Attributes:
        config: settings that decide the result.
        initial: the first center, shape (size,); or each worker's own, shape (workers, size).
        token: the job's secret.
        host: address to bind.
        ports: candidates for the port; 0 lets the system choose.
        compression: the codec of the workers' messages; `None` for none.
        snapshots: when and where to write snapshots, with its address set; `None` for none.
        temporary: whether to remove the folder of the snapshots at the end.
        restore: whether to continue from the last snapshot, if there is one.
        resumes: whether that snapshot is of another driver's training, whose order to stop is over.
        run: name of the job, in the folder of its snapshots.
        epoch: epoch of the lease that this job's killed server held on that folder; 0 for none.
        since: number of a killed server's events that the driver has read.
        settings: settings of the job, plain JSON, for the snapshots.
        local_name: Unix socket for workers on the server's machine; `None` for none.
        checksum: whether frames carry checksums.
        tls: encrypts the connections; `None` for no encryption.
        heartbeat: seconds of silence after which a worker counts as lost.
        timeout: seconds after which a machine that acknowledges nothing counts as gone.
        log_level: level from which the driver logs the library's messages.
        record: file for the record of all requests; `None` for no record.
        leads: whether other servers of the job follow this one.
        leader: address of the server that this one follows; `None` for none.
        moves: whether the server may be started again elsewhere. Its end alone is then not that of the job:
            workers whose connection is cut look for the next one.
        index: index of the server in the job.
    """

    config: CenterConfig
    initial: Vector
    token: bytes = field(repr=False)  # Secret: not in logs.
    host: str
    ports: tuple[int, ...] = (0,)
    compression: Codec | None = None
    snapshots: SnapshotOptions | None = None
    temporary: bool = False
    restore: bool = False
    resumes: bool = False
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
    leads: bool = False
    leader: ServerAddress | None = None
    moves: bool = False
    index: int = 0

    @property
    def packing(self) -> AnyPacking | None:
        """Fragments and compression of the vectors; `None` for neither."""
        return packing_for(self.config, self.compression, self.initial.shape[-1])

    @property
    def snapshot_seconds(self) -> float:
        """Longest time for one snapshot, in seconds."""
        return seconds_to_write(self.initial.nbytes)

    @property
    def exit_seconds(self) -> float:
        """Longest time for the process to end, in seconds: the driver waits so long before it kills it."""
        if self.temporary or self.snapshots is None:
            return EXIT_SECONDS
        return EXIT_SECONDS + self.snapshot_seconds


class DriverStream(io.RawIOBase):
    """Reads from the driver's pipe. It ends with the driver, even if a forked process keeps the pipe open.

    Args:
        descriptor: the read end of the pipe.
        driver: process id of the driver, the parent of this process.
    """

    def __init__(self, descriptor: int, driver: int) -> None:
        self._descriptor = descriptor
        self._driver = driver

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes, write them to `buffer` and return their number; 0 after the driver has ended."""
        while not select.select([self._descriptor], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != self._driver:
                return 0
        return os.readv(self._descriptor, [buffer])


def read_job(stream: io.BufferedReader[Any]) -> ServerJob:
    """Read the job from the driver: a pickle, followed by its arrays as raw bytes.

    Raises:
        EOFError: the driver ended before the end of the job.
        TypeError: the driver sent something else.
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


def make_snapshot_writer(job: ServerJob, center: AnyCenter) -> SnapshotWriter | None:
    """Restore `center` from its last snapshot if `job` asks for it, and write snapshots from now on.

    Raises:
        SnapshotError: the last snapshot does not fit this job.
        Fenced: another run has taken the address.
    """
    options = job.snapshots
    if options is None or options.address is None:
        return None
    store = Store(options.address, options.keep, job.run, job.epoch, options.storage_options)
    if job.restore or not job.temporary:  # For an address of the user's, errors should come now.
        store.take()
    if job.restore:
        # If there is no snapshot yet, it continues from the very start.
        snapshot = store.newest() or take_snapshot(center, job.settings)
        restore_snapshot(center, snapshot.resumed() if job.resumes else snapshot, job.since)
    writer = SnapshotWriter(center, store, options, job.settings, job.snapshot_seconds)
    writer.start()
    return writer


def _allow_open_files(number: int) -> None:
    """Raise the limit of this process's open files to `number`, or as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        number = min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def go_back(reason: str) -> None:
    """End the process, so that the driver restarts it from its last snapshot, which is finite."""
    logger.error("The center restarts from its last snapshot: %s", reason)
    sys.stderr.flush()
    os._exit(NOT_FINITE_CODE)


def end_on_error(failed: threading.ExceptHookArgs) -> None:
    """End the process if one of the server's own threads fails, so that the driver sees the error."""
    threading.__excepthook__(failed)
    if failed.thread is not None and failed.thread.name.startswith(THREADS):
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    """Serve one job."""
    return_large_blocks()
    threading.excepthook = end_on_error
    log_to_driver()
    if len(sys.argv) != 4:
        raise SystemExit("Expected CONTROL REPORT DRIVER: trainers start their parameter servers themselves.")
    control, report, driver = (int(argument) for argument in sys.argv[1:])
    for descriptor in (control, report):  # Not for processes that an algorithm may start.
        os.set_inheritable(descriptor, False)
    stream = io.BufferedReader(DriverStream(control, driver))
    try:
        job = read_job(stream)
    except EOFError:
        return  # The driver has ended, or gave up the job.
    follow_driver(job.log_level)
    log = RequestLog(restored=job.restore) if job.leads else None
    packing, center = job.packing, make_center(job.config, job.initial, clock=time.time, request_log=log)
    writer = make_snapshot_writer(job, center)
    served: AnyCenter | Recorded | Follower = center
    if job.record is not None:
        served = Recorded(center, job.record, restart=job.restore)
    if job.leader is not None and not isinstance(served, Independent | Fragmented | Regional | Follower):
        served = Follower(served)
    job = replace(job, initial=np.empty(0, np.float32))  # Free it: the center has a copy.
    if writer is not None and job.config.bad_updates.action == "skip":
        for each in [*center.members, *([center.top] if isinstance(center, Regional) else [])]:
            each.finite.on_failure = go_back
    max_connections = 2 * job.config.num_workers + SPARE_CONNECTIONS
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
        leader=job.leader,
        index=job.index,
    )
    gc.freeze()  # What is there now stays: collections need not look at it, for a tenth of a second each.
    threading.Thread(target=server.serve, name=f"{THREADS}accept", daemon=True).start()
    with open(report, "w") as file:
        epoch = 0 if writer is None else writer.epoch
        print(json.dumps({"port": server.port, "epoch": epoch}), file=file)
    if packing is not None:
        packing.load()  # While the workers start.
    # A line is the reason for which the job ends for the workers. The end of the stream ends the process.
    for line in stream:
        server.stop(line.decode().strip())
    if not job.moves:  # Else the process's end cuts the connections.
        server.close()
    if writer is not None:
        if not job.temporary:  # So that a resumed training loses nothing.
            writer.write_now()
        writer.close()
    if job.temporary and job.snapshots is not None and job.snapshots.address is not None:
        shutil.rmtree(job.snapshots.address, ignore_errors=True)  # The driver, if it lives, removes it too.
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads may still send to a dead peer: they must not keep the process alive.
    os._exit(0)
