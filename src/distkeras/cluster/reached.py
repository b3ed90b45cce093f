"""Which servers the executors reach, wherever the servers run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from distkeras.cluster.shared_access import in_tasks
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.handshake import AuthenticationError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def unreached(spark: SparkSession, addresses: Sequence[ServerAddress], num_tasks: int) -> list[str]:
    """Return a sentence for each machine of an executor and each server that it cannot reach.

    Args:
        spark: the session; its executors have this package.
        addresses: the servers.
        num_tasks: number of tasks that try.
    """
    what = "tests the connections to the parameter servers"
    tried = in_tasks(spark, what, _trying(tuple(addresses)), num_tasks)
    return list(dict.fromkeys(fault for faults in tried for fault in faults))


def _trying(addresses: tuple[ServerAddress, ...]) -> Callable[[int], list[str]]:
    def try_all(_: int) -> list[str]:
        with ThreadPoolExecutor(len(addresses)) as pool:
            faults = list(pool.map(_fault, addresses))
        return [
            f"An executor on {platform.node()} cannot reach parameter server {index} at {address}: {fault}."
            for index, (address, fault) in enumerate(zip(addresses, faults, strict=True))
            if fault
        ]

    return try_all


def _fault(address: ServerAddress) -> str:
    try:
        with Client(address) as client:
            client.reach()
    except (OSError, AuthenticationError) as error:
        return str(error) or type(error).__name__
    return ""
