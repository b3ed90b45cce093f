"""The options of the parameter server, and its address."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distkeras.cluster.settings import is_local, is_remote
from distkeras.wire.handshake import TIMEOUT
from distkeras.wire.store import SnapshotOptions
from distkeras.wire.tls import TLS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class ServerOptions:
    """Options of the parameter server: address, timeouts, snapshots, encryption.

    Attributes:
        host: name or address at which the workers reach the server; default: the loopback interface if all
            workers run on this machine, else `spark.driver.host`.
        bind: address that the server binds if it differs from `host`, for example behind a NAT; default:
            `host`, or `spark.driver.bindAddress` if `host` is `spark.driver.host`.
        ports: candidates, tried in order, for networks with only some open ports; 0 lets the system choose.
        patience: seconds for which a worker retries a server that does not answer.
        timeout: seconds after which a connection is reopened if the machine at its other end acknowledges
            nothing. It does not limit the time to a reply.
        snapshots: when and where the server writes its state; `None` for no snapshots: then a killed server
            ends the training.
        restarts: how often a killed server restarts from its last snapshot.
        heartbeat: seconds without a message after which a worker counts as lost: it is reported, and
            synchronous rounds may continue without it. Workers send heartbeats three times as often, also
            during windows of hours.
        start: seconds after which a training ends with an error if a worker's task runs, others train, and
            that worker has not asked for the center. It reads its validation rows before. Over Spark Connect,
            which tells nothing of tasks, this holds for synchronous algorithms, and `give_up` for the others.
        give_up: seconds after which a training ends with an error: without a message from a lost worker,
            until the executors have imported Keras, or until the first worker has started.
        shared_memory: workers on the server's own machine, if it runs Linux, exchange through memory that
            both map, instead of TCP. Compressed messages always use TCP.
        tls: encrypt the connections: `True` for a certificate that is created for each job and pinned by the
            workers (`pip install 'distkeras[tls]'` on the driver), or a `TLS` with contexts of your own.
        checksum: send a CRC-32 with every frame, for networks that corrupt data; TLS detects that by itself.
        record: a folder on the driver's machine. Each server writes there all requests that it handles, in
            order, with the vector of every commit: `distkeras.record.replay` replays them to the same
            center. The server then processes exchanges of several workers one at a time. Default: no record.
        memory: most bytes that each parameter server may need. A training that may need more is refused with
            the figures, before a server starts. Default: not checked.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: seconds or bytes are not positive, `restarts` is negative, or `ports` is empty or has a
            wrong one.
    """

    host: str | None = None
    bind: str | None = None
    ports: tuple[int, ...] = (0,)
    patience: float = 60.0
    snapshots: SnapshotOptions | None = field(default_factory=SnapshotOptions)
    restarts: int = 3
    timeout: float = TIMEOUT
    heartbeat: float = 30.0
    start: float = 600.0
    give_up: float = 1800.0
    shared_memory: bool = True
    tls: bool | TLS = False
    checksum: bool = False
    record: str | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tls, bool | TLS):
            raise TypeError(
                "`tls` must be True, False or a distkeras.TLS: two functions that create the contexts of "
                f"server and workers. Received: tls={self.tls!r}"
            )
        if not isinstance(self.snapshots, SnapshotOptions | None):
            raise TypeError(
                "`snapshots` must be a distkeras.SnapshotOptions, such as SnapshotOptions('/a/folder'), or "
                f"None for none. Received: snapshots={self.snapshots!r}"
            )
        if not isinstance(self.record, str | None) or self.record == "":
            raise TypeError(
                "`record` must be the path of a folder on the driver's machine, such as '/data/run', or "
                f"None. Received: record={self.record!r}"
            )
        for name in ("heartbeat", "timeout", "patience", "start", "give_up"):
            _check_seconds(name, getattr(self, name), finite=name in ("heartbeat", "timeout"))
        self._check_ports()
        if self.memory is not None and (type(self.memory) is not int or self.memory <= 0):
            raise ValueError(
                "`memory` must be a positive number of bytes, such as 8 * 2**30, or None for no limit. "
                f"Received: memory={self.memory!r}"
            )
        if isinstance(self.restarts, bool) or not isinstance(self.restarts, int) or self.restarts < 0:
            raise ValueError(f"`restarts` must be an integer from 0. Received: restarts={self.restarts!r}")

    @property
    def resumable(self) -> bool:
        """Whether snapshots are stored where another driver may find them."""
        return self.snapshots is not None and self.snapshots.address is not None

    def _check_ports(self) -> None:
        given = self.ports
        fits = isinstance(given, tuple | list) and all(
            isinstance(port, int) and not isinstance(port, bool) and 0 <= port < 2**16 for port in given
        )
        if not fits or not given:
            raise ValueError(
                "`ports` must hold at least one number from 0 to 65535; 0 lets the system choose. "
                f"Received: ports={given!r}"
            )


def _check_seconds(name: str, value: object, finite: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not value > 0 or (finite and math.isinf(value)):  # type: ignore[operator, arg-type]
        kind = "positive and finite" if finite else "positive"
        raise ValueError(f"`{name}` must be a number of seconds, {kind}. Received: {name}={value!r}")


def addresses(spark: SparkSession, options: ServerOptions) -> tuple[str, str]:
    """Return the server's address for the workers, and the address that it binds.

    Raises:
        ValueError: `host` is missing over Spark Connect, which cannot give an address of this process.
    """
    if options.host is not None:
        return options.host, options.bind or options.host
    if is_remote():
        raise ValueError(
            "Spark Connect does not know how its executors reach this process. Give the trainer "
            "server=ServerOptions(host=...) with an address of this machine. Received: host=None"
        )
    if is_local(spark):
        return "127.0.0.1", options.bind or "127.0.0.1"
    host = str(spark.conf.get("spark.driver.host", "127.0.0.1"))
    return host, options.bind or str(spark.conf.get("spark.driver.bindAddress", host))
