"""How the driver reaches the shared folder of servers on executors: by itself, or by short Spark jobs."""

from __future__ import annotations

import pickle
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa
from pyspark.sql.types import BinaryType, IntegerType

from distkeras.cluster.delivery import deliver, localized
from distkeras.cluster.stage import Stage, row_type
from distkeras.wire import mailbox
from distkeras.wire.mailbox import Carried, Errand
from distkeras.wire.mailbox_files import CHUNK_BYTES
from distkeras.wire.shared_folder import SharedFolder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from distkeras.worker.payload import Openable

COURIER_SECONDS = 20.0
"""Longest time for which one Spark job waits for a reply: an interrupted driver leaves it behind."""
SPREAD_SECONDS = 0.3
"""Duration of a task of the check, so that one executor does not run them all one after another."""
ERRORS = (OSError, ValueError, ImportError)
"""What a filesystem raises for an address that cannot be used."""

T = TypeVar("T")


class NotShared(ValueError):
    """Servers on executors have no folder that all machines share."""


class Access(Protocol):
    """Runs functions where the shared folder can be reached.

    Attributes:
        pause: least seconds between two polls of the servers' events.
        slots: task slots that it needs.
        told: how it reaches the folder, in words.
    """

    pause: float
    slots: int
    told: str

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function` returns there."""

    def carry(self, errand: Errand, seconds: float, look: Callable[[], None]) -> Carried:
        """Put a request into a mailbox, and wait for its reply, as `mailbox.carry`."""


class Direct:
    """The driver reaches the folder.

    Args:
        folder: the shared folder.
    """

    slots = 0
    told = "the driver reads and writes there itself"

    def __init__(self, folder: SharedFolder) -> None:
        self.pause = 0.0 if folder.is_local else 1.0

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function` returns."""
        return function(*arguments)

    def carry(self, errand: Errand, seconds: float, look: Callable[[], None]) -> Carried:
        """As `mailbox.carry`."""
        return mailbox.carry(errand, seconds, look)


class Courier:
    """The driver does not reach the folder: a Spark job of one task does what is to be done there.

    The jobs run one after another, so that they need one task slot.

    Args:
        spark: the session.
    """

    pause = 2.0
    slots = 1
    told = "short Spark jobs read and write there for the driver"

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._lock = threading.Lock()

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function` returns in a task; raise what it raises."""
        with self._lock:
            call = deliver(self._spark, (function, arguments))
            (result,) = in_tasks(self._spark, "reads and writes the shared folder", _opened(call), 1)
        return result  # type: ignore[no-any-return]

    def carry(self, errand: Errand, seconds: float, look: Callable[[], None]) -> Carried:
        """As `mailbox.carry`, by as many jobs as it takes."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            limit = max(0.0, min(left, COURIER_SECONDS))
            carried = self.do(mailbox.carry, errand, limit)
            if carried.files or carried.epoch != errand.epoch or left <= 0:
                return carried
            look()
            errand = replace(errand, files=())  # They are there.


def in_tasks(spark: SparkSession, what: str, function: Callable[[int], Any], count: int) -> list[Any]:
    """Return what `function` returns for 0 to `count` - 1, each in a Spark task of its own.

    `what` says what they do, for Spark's web pages.

    Raises:
        Exception: what it raises in one of them; or Spark's error.
    """
    answers = row_type(task=IntegerType(), data=BinaryType())
    frame = spark.range(0, count, 1, count).mapInArrow(_answering(function), answers)
    pieces: dict[int, bytearray] = {}
    for row in Stage(frame, what).result(threading.TIMEOUT_MAX) or []:
        pieces.setdefault(row.task, bytearray()).extend(row.data)
    results = []
    for task in sorted(pieces):
        error, result = pickle.loads(pieces[task])  # Our own code has written it, in our own job.
        if error is not None:
            raise error
        results.append(result)
    return results


def _answering(function: Callable[[int], Any]):  # type: ignore[no-untyped-def]  # pyspark's own type is private
    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                outcome: tuple[Exception | None, Any]
                try:
                    outcome = None, function(index)
                except Exception as error:  # Spark would retry it, and hide it in a long message.
                    outcome = error, None
                data = pickle.dumps(outcome)
                for start in range(0, len(data), CHUNK_BYTES):
                    piece = data[start : start + CHUNK_BYTES]
                    yield pa.RecordBatch.from_pydict(
                        {"task": pa.array([index], pa.int32()), "data": pa.array([piece], pa.binary())}
                    )

    return answer


def _opened(call: Openable) -> Callable[[int], Any]:
    def open_and_do(_: int) -> Any:
        function, arguments = localized(call).open()
        return function(*arguments)

    return open_and_do


def find_access(spark: SparkSession, folder: SharedFolder, num_tasks: int) -> Access:
    """Check that all executors share `folder`, and return how the driver reaches it.

    The driver and one task each write a small file. If each sees the other's, the driver reaches the folder.
    Then many tasks look for what the first one has written.

    Args:
        spark: the session.
        folder: the shared folder.
        num_tasks: number of tasks that look.

    Raises:
        NotShared: an executor cannot use the folder, or does not see what another one has written.
    """
    courier = Courier(spark)
    check = folder.under(f"check-{secrets.token_hex(8)}")
    by_driver = _try_write(check, "driver")
    try:
        try:
            sees_driver = courier.do(_meet, check)
        except ERRORS as error:
            raise NotShared(_text(folder, f"on an executor: {type(error).__name__}: {error}")) from error
        here = by_driver and sees_driver and check.read("executor") is not None
        where = in_tasks(spark, "checks the shared folder", _looking(check), num_tasks)
        courier.do(check.remove)
    finally:
        if by_driver:
            check.remove()
    if blind := sorted({host for host, sees in where if not sees}):
        raise NotShared(_text(folder, f"a file of one executor is missing on {', '.join(blind)}"))
    return Direct(folder) if here else courier


def _text(folder: SharedFolder, received: str) -> str:
    return (
        "Servers on executors need a folder that all executors share, on a filesystem of fsspec: a mounted "
        "filesystem, S3, GCS or HDFS with its driver in the executors' Python. Set it with `run=` or "
        f"Placement(shared=...). Received: {folder}; {folder.hide(received)}"
    )


def _try_write(folder: SharedFolder, name: str) -> bool:
    try:
        folder.write(name, b"driver")
    except ERRORS:  # The driver need not reach it: a courier does.
        return False
    return True


def _meet(folder: SharedFolder) -> bool:
    folder.write("executor", b"executor")
    return folder.read("driver") == b"driver"


def _looking(folder: SharedFolder) -> Callable[[int], tuple[str, bool]]:
    def look(_: int) -> tuple[str, bool]:
        time.sleep(SPREAD_SECONDS)
        try:
            return platform.node(), folder.read("executor") == b"executor"
        except ERRORS:
            return platform.node(), False

    return look
