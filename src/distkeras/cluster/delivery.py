"""Send a large object to the executors, as files that each of them receives once from Spark."""

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
"""Names of the payloads already sent to an application, or to a session of Spark Connect."""

_lock = threading.Lock()


def deliver(spark: SparkSession, value: object) -> Payload:
    """Send `value` to all executors, including later ones; return a payload for tasks: see `localized`.

    The files exist as long as the application, or the session of Spark Connect: Spark cannot remove a file.
    Equal contents are sent once. Small values stay in the payload.

    Args:
        spark: the session whose tasks open it.
        value: any object that cloudpickle can pickle.

    Raises:
        OSError: the driver's disk is full.
    """
    if is_remote():
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            return _sent_once(spark, pack(value, folder))
    # Spark need not copy files from this folder, and deletes them at its end.
    payload = pack(value, _spark_files())
    return payload if is_local(spark) else _sent_once(spark, payload)


@contextmanager
def delivered(spark: SparkSession, value: object) -> Iterator[Payload]:
    """Yield `value` as `deliver` does; if driver and workers share a disk, delete its files after the block.

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
    """A value that is sent by `deliver` when the code that holds it is pickled, to the session active then.

    Args:
        value: as in `deliver`.
    """

    def __init__(self, value: object) -> None:
        self.name = name_of(value)
        self._value = value

    def open(self) -> Any:
        """Return the value; this object still holds it."""
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the payload that a task opens."""
        return copy.copy, (deliver(SparkSession.active(), self._value),)


def localized(payload: Openable) -> Openable:
    """Return `payload` in the form that a Spark task can open: with the folder of this executor's files."""
    if not isinstance(payload, Payload) or not payload.files or payload.folder is not None:
        return payload
    return replace(payload, folder=_spark_files())


def _spark_files() -> str:
    # Imported here: a client of Spark Connect need not have it.
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
