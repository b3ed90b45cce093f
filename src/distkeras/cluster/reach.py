"""Check whether every executor can open connections to the parameter servers, before anything is trained."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)
from pyspark.sql.utils import is_remote

import distkeras.cluster.shipping  # noqa: F401 (it lets functions of `executor_side` travel by value)
from distkeras.cluster import executor_side
from distkeras.cluster.settings import is_local
from distkeras.cluster.stage import Stage, row_type, short_tasks
from distkeras.wire.reachability import connector

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
ANSWER = row_type(executor=T.StringType(), host=T.StringType(), faults=T.ArrayType(T.StringType()))

logger = logging.getLogger(__name__)


class Address(Protocol):
    """Where a server listens."""

    @property
    def host(self) -> str:
        """Host name or address, as the executors are told it."""

    @property
    def port(self) -> int:
        """TCP port."""


class ServerUnreachable(ConnectionError):
    """An executor cannot open a TCP connection to a parameter server: a firewall, a NAT, or a wrong name.

    Args:
        faults: a sentence for each executor and server.
        mend: what the user can do.

    Attributes:
        faults: as given.
    """

    def __init__(self, faults: Sequence[str], mend: str) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        more = f" And {len(self.faults) - 5} more." if len(self.faults) > 5 else ""
        super().__init__(
            "Expected every executor to open TCP connections to the parameter servers. Received: "
            f"{' '.join(self.faults[:5])}{more} {mend}"
        )


_MEND = (
    "Open the port between the machines; ServerOptions(ports=(40123,)) fixes it. If executors know "
    "this machine by another name or address, such as behind a NAT, set ServerOptions(host=..., bind=...). "
    'With server_placement="executors" executors need not reach it.'
)


def check_reachable(
    spark: SparkSession, addresses: Sequence[Address], num_workers: int, limit: float = ANSWER_SECONDS
) -> None:
    """Let every executor open a TCP connection to every parameter server.

    One short task a worker does so, and more if Spark knows of more executors. If other jobs keep an executor
    busy until `limit`, a warning names it. Where all workers run on this machine nothing is checked.

    Args:
        spark: the session.
        addresses: the servers.
        num_workers: number of workers.
        limit: seconds until all executors have answered.

    Raises:
        ServerUnreachable: an executor cannot; the message says which, to which server, and why.
    """
    if is_local(spark):
        return
    deadline = time.monotonic() + limit
    answered: set[str] = set()
    while True:
        num_tasks = max(num_workers, len(known_executors(spark)))
        rows = _ask(spark, addresses, num_tasks, max(1.0, deadline - time.monotonic()))
        _refuse_faults(rows, addresses)
        answered |= {row.executor for row in rows}
        missing = sorted({f"Executor {known}" for known in known_executors(spark)} - answered)
        if rows and not missing:
            return
        if time.monotonic() > deadline:
            logger.warning(
                "Within %.0f s no task ran on %s: it is not known whether workers there can reach the "
                "parameter servers.",
                limit,
                ", ".join(missing) if missing else "any executor",
            )
            return
        time.sleep(0.1)


def known_executors(spark: SparkSession) -> set[str]:
    """Return the identifiers of the executors that Spark knows; over Spark Connect it tells none."""
    if is_remote():
        return set()
    return set(str(spark.sparkContext._jsc.sc().getExecutorIds().mkString(" ")).split())


def _ask(spark: SparkSession, addresses: Sequence[Address], num_tasks: int, limit: float) -> list[Any]:
    attempts = connector([(each.host, each.port) for each in addresses], CONNECT_SECONDS)
    tasks = short_tasks(spark, _asker(attempts), ANSWER, num_tasks)
    return Stage(tasks, "tests the connections to the parameter servers").result(limit) or []


def _refuse_faults(rows: Sequence[Any], addresses: Sequence[Address]) -> None:
    faults = [
        f"{row.executor} on {row.host} cannot reach parameter server {index} at {address.host}:"
        f"{address.port}: {fault}."
        for row in rows
        for index, (address, fault) in enumerate(zip(addresses, row.faults, strict=True))
        if fault
    ]
    if faults:
        raise ServerUnreachable(faults, _MEND)


def _asker(attempts: Callable[[], list[str]]) -> Callable[[int], tuple[str, str, list[str]]]:
    # A nested function travels by value, so it runs where this package is not installed.
    executor_id = executor_side.executor_id

    def ask(_: int) -> tuple[str, str, list[str]]:
        import platform

        known = executor_id()
        executor = "An executor" if known in ("", "driver") else f"Executor {known}"
        return executor, platform.node(), attempts()

    return ask
