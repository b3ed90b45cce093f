"""The code of a Spark task that runs one parameter server of a job on its executor."""

from __future__ import annotations

import json
import platform
import secrets
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distkeras.cluster.process import ServerFailed
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.handshake import AuthenticationError
from distkeras.wire.interfaces import own_hosts
from distkeras.wire.lease import Lease
from distkeras.wire.log import follow_driver_in_worker
from distkeras.wire.mailbox import pause_for
from distkeras.wire.mailbox_answers import MailboxAnswers
from distkeras.wire.mailbox_files import Seal
from distkeras.wire.server_place import Location, ServerPlace

if TYPE_CHECKING:
    from distkeras.algorithms import Vector
    from distkeras.worker.payload import Openable

ANSWER_SECONDS = 1.0
CHECK_SECONDS = 2.0
"""Seconds between two looks whether another process serves in place of this one."""
IDLE_PAUSES = 5
"""The pause between two looks for a request grows to so many times the first one, while none comes."""
BEGIN = "begin"


@dataclass(frozen=True)
class ServerTask:
    """What a task has to know to run a server.

    Attributes:
        setup: the settings of the server, with its token.
        initial: the first center of its part, delivered.
        address: where it can be found.
        seal: marks the files of its mailbox.
        resume: number of the next event of an earlier driver's job; `None` for a new one.
        abandoned: seconds without a request of the driver after which the server ends.
        log_level: least level of the library's messages that go to the executor's log.
    """

    setup: ServerSetup
    initial: Openable
    address: ServerAddress
    seal: Seal = field(repr=False)
    resume: int | None
    abandoned: float
    log_level: int

    @property
    def place(self) -> ServerPlace:
        """The folder that says where the server is."""
        if self.address.place is None:
            raise ValueError(f"Expected the address of a server with a place. Received: {self.address}")
        return self.address.place


def run(task: ServerTask, initial: Vector, executor: str) -> str:
    """Serve to the end of the job.

    Args:
        task: the server.
        initial: its first center.
        executor: id of the executor.

    Returns:
        Why the server could not go on; "" if the driver has ended it. It is not raised, since Spark would
        retry the same error. Spark retries a task that is lost with its process; the next one goes on from
        the last snapshot, under a larger epoch.

    Raises:
        Fenced: another task serves in place of this one.
        OSError: the shared folder cannot be used from here.
    """
    follow_driver_in_worker(task.log_level)
    lease = task.place.lease(secrets.token_hex(4))
    _wait_for_the_loss_of_another(task)
    lease.take(0, 0)
    try:
        return _Serving(task, lease, executor).run(initial)
    except ServerFailed:
        return traceback.format_exc()


def _wait_for_the_loss_of_another(task: ServerTask) -> None:
    """Wait while another task serves: with speculation Spark starts a copy of a task that does not end."""
    while task.place.epoch():
        try:
            with Client(task.address) as client:
                client.reach()
        except (OSError, AuthenticationError):
            return
        time.sleep(CHECK_SECONDS)


class _Abandoned(ServerFailed):
    """The driver has not been heard for too long."""


class _Serving:
    """One task's server, with its restarts on this executor."""

    def __init__(self, task: ServerTask, lease: Lease, executor: str) -> None:
        self._task, self._lease, self._executor = task, lease, executor
        self._folder = task.place.folder
        self._pause = pause_for(self._folder)
        self._heard = time.monotonic()

    def run(self, initial: Vector) -> str:
        task = self._task
        again = self._lease.epoch > 1
        if again and task.setup.options.snapshots is None:
            raise ServerFailed("The parameter server's task was lost, and there are no snapshots of it.")
        since = self._begin() if again else task.resume
        with ServerProcess(task.setup, initial, resume=since, again=again) as process:
            try:
                while not self._serve(process):
                    self._lease.take(0, self._lease.epoch)
                    process.revive(self._begin())
            except _Abandoned as silent:
                process.stop(str(silent))  # Else the workers would look for the next server.
                raise
        return ""

    def _begin(self) -> int:
        """Wait until the driver has said which events it has read; return the number of the next one."""
        name = f"{self._lease.epoch}/{BEGIN}"
        while (sealed := self._folder.read(name)) is None:
            self._check()
            time.sleep(self._pause)
        self._heard = time.monotonic()
        return int(json.loads(self._task.seal.open(name, sealed))["since"])

    def _serve(self, process: ServerProcess) -> bool:
        """Announce the server and answer its mailbox; return False if its process has ended."""
        address, epoch = process.address, self._lease.epoch
        machine = platform.node()
        self._task.place.announce(
            Location(epoch, tuple(own_hosts()), address.port, address.local_name, machine, self._executor)
        )
        due, pause = time.monotonic() + CHECK_SECONDS, self._pause
        with Client(address, patience=ANSWER_SECONDS) as client:
            answers = MailboxAnswers(self._folder, epoch, self._task.seal, client, address, process.stop)
            while not answers.ended:
                if process.has_ended():
                    return False
                if answers.answer_next():
                    self._heard, pause = time.monotonic(), self._pause
                    continue
                if time.monotonic() >= due:
                    self._check()
                    due = time.monotonic() + CHECK_SECONDS
                time.sleep(pause)
                pause = min(1.5 * pause, IDLE_PAUSES * self._pause)
        return True

    def _check(self) -> None:
        self._lease.check()
        silence = time.monotonic() - self._heard
        if silence > self._task.abandoned:
            raise _Abandoned(
                f"The driver has sent no request for {silence:.0f} s. The parameter server writes its last "
                "snapshot and ends. Placement(abandoned=...) sets this limit."
            )
