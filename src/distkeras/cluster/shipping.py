"""Send this package to executors that lack it, or have another version of it."""

from __future__ import annotations

import logging
import pickle
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import cloudpickle
from pyspark.cloudpickle import register_pickle_by_value
from pyspark.sql.utils import is_remote

import distkeras
from distkeras.cluster import executor_side

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SHIP = "spark.distkeras.ship"
"""Setting of a Spark application: whether the driver may send its own distkeras to the executors."""

_shipped: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""The digest that was sent to an application, or to a session of Spark Connect."""

_lock = threading.Lock()

logger = logging.getLogger(__name__)

register_pickle_by_value(executor_side)


@cache
def own_sources() -> dict[str, bytes]:
    """Return the Python files of this package, by path."""
    return dict(executor_side.sources_of(next(iter(distkeras.__path__))))


@cache
def own_digest() -> str:
    """Return the digest of this package's source: of an editable installation too."""
    return executor_side.digest_of(own_sources())


def may_ship(spark: SparkSession) -> bool:
    """Whether this application lets the driver send its own distkeras: `spark.distkeras.ship`.

    Raises:
        ValueError: the setting is neither true nor false.
    """
    value = str(spark.conf.get(SHIP, "true"))
    if value.lower() not in ("true", "false"):
        raise ValueError(f"Expected `{SHIP}` to be true or false. Received: {SHIP}={value}")
    return value.lower() == "true"


def ship(spark: SparkSession) -> None:
    """Send this package to all executors of the application, later ones too; once.

    It goes as a zip file, which Python workers put before what is installed.

    Raises:
        OSError: the driver's disk is full.
    """
    key = spark if is_remote() else spark.sparkContext
    with _lock:
        if _shipped.get(key) == own_digest():
            return
        if is_remote():
            with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
                spark.addArtifacts(str(zipped(folder)), pyfile=True)
        else:
            from pyspark import SparkFiles

            path = list(sys.path)
            # Spark need not copy files from this folder, and deletes them at its end.
            spark.sparkContext.addPyFile(str(zipped(SparkFiles.getRootDirectory())))
            sys.path[:] = path  # Spark puts the file there, too; this process has the package.
        _shipped[key] = own_digest()
        logger.info("The driver's distkeras %s was sent to the executors.", distkeras.__version__)


def zipped(folder: str) -> Path:
    """Write this package, with its version, into a zip file in `folder`, and return its path.

    The name of the file has the digest.
    """
    version = distkeras.__version__
    path = Path(folder, f"distkeras-{own_digest()}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in own_sources().items():
            file.writestr(f"distkeras/{name}", content)
        # Where executors have a distkeras of their own, theirs must not tell the version of this one.
        metadata = f"Metadata-Version: 2.4\nName: distkeras\nVersion: {version}\n"
        file.writestr(f"distkeras-{version}.dist-info/METADATA", metadata)
    return path


def carried(
    function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return `function` in a form that a Python worker unpickles only with the driver's own distkeras.

    Unpickling imports this package: a worker that has another one says so first, instead of failing somewhere
    inside; one that had imported another one before the driver sent its own imports it anew.

    Args:
        function: what `mapInArrow` takes.
    """
    pickled, digest, check = cloudpickle.dumps(function), own_digest(), executor_side.check_package

    def opened(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        check(digest)
        yield from pickle.loads(pickled)(batches)

    return opened
