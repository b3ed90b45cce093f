"""How a large object gets to the executors: as files that Spark brings to each of them once."""

from __future__ import annotations

import copy
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from distkeras.cluster.settings import is_local
from distkeras.worker.payload import Openable, Payload, name_of, pack

_sent: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Names of the payloads that an application, or a session of Spark Connect, has already."""

_lock = threading.Lock()


def deliver(spark: SparkSession, value: object) -> Payload:
    """Send `value` to all executors, those that come later too; return what a task opens: see `localized`.

    It stays as long as the application, or the session of Spark Connect: Spark has no way to take a file
    back. The same contents go once. What is small stays in the payload.

    Args:
        spark: the session whose tasks open it.
        value: anything that cloudpickle takes.

    Raises:
        OSError: the driver's disk is full.
    """
    if is_remote():
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            return _sent_once(spark, pack(value, folder))
    # Here Spark need not copy it, and removes it in the end.
    payload = pack(value, _spark_files())
    return payload if is_local(spark) else _sent_once(spark, payload)


@contextmanager
def delivered(spark: SparkSession, value: object) -> Iterator[Payload]:
    """Give `value` as `deliver` does; where driver and workers share a disk, its files go with the block.

    Args:
        spark: as in `deliver`.
        value: as in `deliver`.

    Raises:
        OSError: as in `deliver`.
    """
    if not is_local(spark):
        yield deliver(spark, value)
        return
    folder = tempfile.mkdtemp(prefix="distkeras-", dir=_spark_files())
    try:
        yield pack(value, folder)
    finally:
        shutil.rmtree(folder)


class LazyPayload:
    """A value that goes out as by `deliver` when the code that holds it does: to the session of that moment.

    Args:
        value: as in `deliver`.
    """

    def __init__(self, value: object) -> None:
        self.name = name_of(value)
        self._value = value

    def open(self) -> Any:
        """Return the value: it has not been sent."""
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the payload that a task opens."""
        return copy.copy, (deliver(SparkSession.active(), self._value),)


def localized(payload: Openable) -> Openable:
    """Return `payload` as a task of Spark opens it: with the folder where this executor's files lie."""
    if not isinstance(payload, Payload) or not payload.files or payload.folder is not None:
        return payload
    return replace(payload, folder=_spark_files())


def _spark_files() -> str:
    # Here: a client of Spark Connect need not have it.
    from pyspark import SparkFiles

    folder: str = SparkFiles.getRootDirectory()
    return folder


def _sent_once(spark: SparkSession, payload: Payload) -> Payload:
    if not payload.files:
        return payload
    paths = [f"{payload.folder}/{name}" for name in payload.files]
    with _lock:
        sent = _sent.setdefault(spark if is_remote() else spark.sparkContext, set())
        if payload.name not in sent:
            if is_remote():
                spark.addArtifacts(*paths, file=True)
            else:
                for path in paths:
                    spark.sparkContext.addFile(path)
            sent.add(payload.name)
    return replace(payload, folder=None)
