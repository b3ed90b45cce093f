"""The driver's handle of a parameter server's process: start, address, restart and stop it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

import cloudpickle

from distkeras.algorithms import Vector
from distkeras.center import CenterConfig
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.process import Process, ServerFailed
from distkeras.cluster.story import Story
from distkeras.record.entries import FILE
from distkeras.wire import shared_memory
from distkeras.wire.client import ServerAddress
from distkeras.wire.codecs import Codec
from distkeras.wire.handshake import TOKEN_BYTES
from distkeras.wire.log import level_of_driver
from distkeras.wire.redaction import secrets_in
from distkeras.wire.serve import EXIT_SECONDS, LENGTH, NOT_FINITE_CODE, ServerJob
from distkeras.wire.store import SnapshotOptions
from distkeras.wire.tls import fingerprint_of, make_tls

NOTICE_SECONDS = 2.0
START_SECONDS = 300.0  # A large snapshot may have to be downloaded.

__all__ = ["ServerFailed", "ServerProcess", "ServerSetup", "launched"]


@contextlib.contextmanager
def launched(count: int) -> Iterator[list[Process]]:
    """Yield processes that import a server's modules while the driver examines the data.

    A `ServerProcess` takes one out of the list. The block ends the remaining ones.

    Args:
        count: number of processes.
    """
    processes: list[Process] = []
    try:
        processes.extend(Process() for _ in range(count))
        yield processes
    finally:
        for process in processes:
            process.end()


@dataclass(frozen=True)
class ServerSetup:
    """The settings of one server of a job.

    Attributes:
        center: settings that decide how the center handles messages.
        host: address at which the workers reach the server.
        bind: address that the server binds; `None` for `host`.
        options: ports, encryption, checksums, snapshots.
        compression: the codec of the workers' messages, `None` for none.
        settings: settings of the job, plain JSON, for the snapshots.
        index: index of the server in the job.
        leads: whether other servers follow this one.
        leader: address of the first server, for those that follow it.
        report_bytes: size of the local states of all workers that send theirs.
        token: the job's secret; empty for a new one.
        moves: as in `ServerJob`.
    """

    center: CenterConfig
    host: str = "127.0.0.1"
    bind: str | None = None
    options: ServerOptions = field(default_factory=ServerOptions)
    compression: Codec | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    leads: bool = False
    leader: ServerAddress | None = None
    report_bytes: int = 0
    token: bytes = field(default=b"", repr=False)
    moves: bool = False

    @property
    def record(self) -> str | None:
        """File of the server's record; `None` for no record."""
        folder = self.options.record
        return None if folder is None else os.path.join(os.path.abspath(folder), FILE.format(self.index))


class ServerProcess:
    """A parameter server in its own process, for the duration of one `with` block.

    If the process is killed, or ends because its center is not finite, `revive` restarts it from its last
    snapshot, on the same port with the same token. It ends with the block, or with the driver, however that
    ends.

    Args:
        setup: the settings of the server.
        initial: the first center, shape (size,); or one for each worker, shape (workers, size).
        resume: number of the next event of an earlier job: resume from its last snapshot.
        again: whether that was a process of this job on another machine, whose orders stay in force.
        launched: processes to take one from, if any is left; default: start one now.
        story: the story of the job; default: a new one.

    Raises:
        ServerFailed: the process did not start.
    """

    def __init__(
        self,
        setup: ServerSetup,
        initial: Vector,
        *,
        resume: int | None = None,
        again: bool = False,
        launched: list[Process] | None = None,
        story: Story | None = None,
    ) -> None:
        self._name = f"Parameter server {setup.index}"
        self._story = story or Story()
        self._launched = [] if launched is None else launched
        options = setup.options
        shared = options.shared_memory and setup.compression is None
        tls = make_tls() if options.tls is True else options.tls or None
        pin = b"" if tls is None else fingerprint_of(tls.server())
        token = setup.token or secrets.token_bytes(TOKEN_BYTES)
        self._story.keep_secret([token.hex(), repr(token)[2:-1]])
        if options.snapshots is not None:
            self._story.keep_secret(secrets_in(options.snapshots.address, options.snapshots.storage_options))
        self._restarts_left = options.restarts if options.snapshots is not None else 0
        self._folder: str | None = None
        self._job = ServerJob(
            setup.center,
            initial,
            token,
            setup.bind or setup.host,
            options.ports,
            setup.compression,
            snapshots=self._addressed(options.snapshots),
            temporary=self._folder is not None,
            restore=resume is not None,
            resumes=resume is not None and not again,
            run=secrets.token_hex(4),
            since=resume or 0,
            settings=setup.settings,
            local_name=shared_memory.new_name() if shared else None,
            checksum=options.checksum,
            tls=tls,
            heartbeat=options.heartbeat,
            timeout=options.timeout,
            log_level=level_of_driver(),
            record=setup.record,
            leads=setup.leads,
            leader=setup.leader,
            moves=setup.moves,
            index=setup.index,
        )
        port = self._start()
        self._job = replace(self._job, ports=(port,), restore=True, resumes=False)
        self.address = ServerAddress(
            setup.host,
            port,
            self._job.token,
            initial.shape[-1],
            self._job.local_name,
            checksum=options.checksum,
            tls=None if tls is None else tls.client,
            pin=pin,
            packing=self._job.packing,
            timeout=options.timeout,
            dtype=setup.center.dtype,
            layout=setup.center.layout,
        )

    def _addressed(self, snapshots: SnapshotOptions | None) -> SnapshotOptions | None:
        if snapshots is None or snapshots.address is not None:
            return snapshots
        self._folder = tempfile.mkdtemp(prefix="distkeras-")
        return replace(snapshots, address=self._folder)

    def revive(self, since: int, seconds: float = 0.0) -> bool:
        """Restart the process from its last snapshot if it has ended, or ends within `seconds`.

        Args:
            since: number of the next event to be polled. That event then reports the windows to train again.
            seconds: how long to wait for its end.

        Returns:
            Whether it was restarted.

        Raises:
            ServerFailed: it has ended and may not be restarted, or did not start.
        """
        if self._process.wait(seconds) is None:
            return False
        self._use_restart(ServerFailed(self._process.died()))
        self._job = replace(self._job, since=since)
        self._start()
        return True

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def _use_restart(self, failure: ServerFailed) -> None:
        """Count a restart of the process, which has ended; raise `failure` if it may not be restarted."""
        code = self._process.wait() or 0
        lost = f"is lost: its process {self._process.how_it_ended()}."
        if self._restarts_left == 0 or not (code < 0 or code == NOT_FINITE_CODE):
            self._tell(f"{lost} It does not restart.", logging.ERROR)
            raise failure
        self._restarts_left -= 1
        left = f"{self._restarts_left} restarts are left"
        self._tell(f"{lost} It restarts from its last snapshot; {left}.", logging.WARNING)
        self._process.hang_up()

    def _start(self) -> int:
        """Start the process and return its port. A process that is killed before it is up restarts."""
        while True:
            self._process = self._launched.pop() if self._launched else Process()
            self._process.story = self._story
            self._tell(f"starts: process {self._process.pid}.")
            try:
                return self._hand_over()
            except ServerFailed as failure:
                if self._process.poll() is None:  # The process runs, but never reported that it is up.
                    self.close()
                    raise
                try:
                    self._use_restart(failure)
                except ServerFailed:
                    self.close()
                    raise
            except BaseException:
                self.close()
                raise

    def _hand_over(self) -> int:
        try:
            _write_job(self._job, self._process.control)
            line = self._process.report(START_SECONDS)
        except BrokenPipeError as error:
            raise ServerFailed(self._process.died()) from error
        except TimeoutError as error:
            raise ServerFailed(str(error)) from error
        if not line:
            raise ServerFailed(self._process.died())
        report = json.loads(line)
        self._job = replace(self._job, epoch=report["epoch"])
        self._tell(f"is up: {self._job.host}, port {report['port']}, process {self._process.pid}.")
        return int(report["port"])

    def _tell(self, what: str, level: int = logging.INFO) -> None:
        self._story.tell(f"{self._name} {what}", level, __name__)

    def stop(self, reason: str) -> None:
        """Answer the next request of every worker with the end of the job. The driver may continue to ask."""
        if self._process.control.closed:  # The process could not be restarted.
            return
        with contextlib.suppress(BrokenPipeError):  # The process has ended: there is nothing to stop.
            self._process.control.write(reason.replace("\n", " ").encode() + b"\n")
            self._process.control.flush()

    def hang_up(self) -> None:
        """Let the process end, after a last snapshot if it is due; `close` waits for it."""
        self._process.hang_up()

    def close(self) -> None:
        """End the process, which may first write its last snapshot; kill it after a time limit.

        A wait of more than a moment is logged. An exception meanwhile, such as a second Ctrl-C, leaves the
        process alone: it has the same limit, and ends by itself.
        """
        self.hang_up()
        limit = self._job.exit_seconds
        if self._process.wait(min(NOTICE_SECONDS, limit)) is None:
            if limit > EXIT_SECONDS and self._job.snapshots is not None:
                self._tell(
                    f"writes its last snapshot to {self._job.snapshots.address}, for which it has "
                    f"{limit:.0f} s.",
                    logging.WARNING,
                )
            if self._process.wait(limit) is None:
                self._tell(f"did not end within {limit:.0f} s, and is killed.", logging.WARNING)
                self._process.kill()
                self._process.wait()
        self._tell(f"has ended: its process {self._process.how_it_ended()}.")
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # A process that was not killed has deleted it.

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_job(job: ServerJob, stream: IO[bytes]) -> None:
    """Write `job` in the form that `read_job` takes; arrays are written without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(job, protocol=5, buffer_callback=buffers.append)
    stream.write(LENGTH.pack(1 + len(buffers)))
    for block in (memoryview(data), *(buffer.raw() for buffer in buffers)):
        stream.write(LENGTH.pack(block.nbytes))
        stream.write(block)
    stream.flush()
