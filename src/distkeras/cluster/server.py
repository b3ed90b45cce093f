"""The parameter server's process, as the driver sees it: started, addressed, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cloudpickle
from pyspark.sql.utils import is_remote

from distkeras.algorithms import Algorithm, Vector
from distkeras.wire.client import ServerAddress
from distkeras.wire.codecs import Codec
from distkeras.wire.connection import TOKEN_BYTES
from distkeras.wire.serve import LENGTH, ServerJob

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXIT_SECONDS = 5.0


class ServerFailed(RuntimeError):
    """The parameter server's process did not start, or ended before the job."""


@dataclass(frozen=True)
class ServerOptions:
    """Where the parameter server listens and how long workers look for it.

    Attributes:
        host: name or address at which the workers reach it; default: the loopback interface where all workers
            run on this machine, else `spark.driver.host`.
        bind: address that it binds, where that is another, as behind a NAT; default: that of `host`, or
            `spark.driver.bindAddress` where `host` is `spark.driver.host`.
        ports: candidates, tried in order, for networks that leave only some open; 0 lets the system choose.
        patience: seconds for which a worker tries to reach a server that does not answer.
    """

    host: str | None = None
    bind: str | None = None
    ports: tuple[int, ...] = (0,)
    patience: float = 60.0


def addresses(spark: SparkSession, options: ServerOptions) -> tuple[str, str]:
    """Where the workers reach the server, and what it binds.

    Raises:
        ValueError: Spark Connect, where nothing says how executors reach this process, and no `host`.
    """
    if options.host is not None:
        return options.host, options.bind or options.host
    if is_remote():
        raise ValueError(
            "Spark Connect does not tell how its executors reach this process. Give the trainer "
            "server=ServerOptions(host=...) with an address of this machine. Received: host=None"
        )
    if spark.conf.get("spark.master", "local").split("[")[0] == "local":
        return "127.0.0.1", options.bind or "127.0.0.1"
    host = str(spark.conf.get("spark.driver.host", "127.0.0.1"))
    return host, options.bind or str(spark.conf.get("spark.driver.bindAddress", host))


class ServerProcess:
    """A parameter server in a process of its own, for the time of one `with` block.

    It ends with the block, and with the driver however that ends: its standard input is a pipe from here.

    Args:
        algorithm: the rule.
        initial: the first center, shape (size,); or one for each worker's own, shape (workers, size).
        num_trainable: its leading elements that the rule governs.
        num_workers: workers of the job.
        host: address at which the workers reach it.
        bind: address that it binds; default: `host`.
        options: ports.
        quorum: messages that complete a synchronous round, `None` for all.
        compression: the codec of the workers' messages, `None` for none.

    Raises:
        ServerFailed: the process did not come up.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        initial: Vector,
        num_trainable: int,
        num_workers: int,
        *,
        host: str,
        bind: str | None = None,
        options: ServerOptions,
        quorum: int | None = None,
        compression: Codec | None = None,
    ) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        job = cloudpickle.dumps(
            ServerJob(
                algorithm,
                initial,
                num_trainable,
                num_workers,
                quorum,
                token,
                bind or host,
                options.ports,
                compression,
            )
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "distkeras.wire"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A rule may come from a module that only this process finds: beside its script, say.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the driver, which then ends this process in good order.
        )
        try:
            port = self._start(job)
        except BaseException:
            self.close()
            raise
        self.address = ServerAddress(host, port, token, initial.shape[-1])

    def _start(self, job: bytes) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ServerFailed("The parameter server's process has no pipes.")
        try:
            stdin.write(LENGTH.pack(len(job)) + job)
            stdin.flush()
        except BrokenPipeError as error:
            raise ServerFailed(_died(self._process.wait())) from error
        line = stdout.readline()
        if not line:
            raise ServerFailed(_died(self._process.wait()))
        return int(json.loads(line)["port"])

    def check(self, seconds: float = 0.0) -> None:
        """Raise ServerFailed if the process has ended, or ends within `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise ServerFailed(_died(self._process.wait(seconds)))

    def stop(self, reason: str) -> None:
        """Tell every worker, at its next word, that the job is over. The driver may go on asking."""
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # It has ended: there is nobody to stop any more.
                stdin.write(reason.replace("\n", " ").encode() + b"\n")
                stdin.flush()

    def close(self) -> None:
        """End the process; by force if it does not within a few seconds."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # What was not read by a dead process is lost.
                    pipe.close()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _died(code: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"The parameter server's process {how}. What it wrote to standard error says why."
