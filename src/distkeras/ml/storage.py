"""Files at any address that Spark's Hadoop or fsspec supports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pyspark.sql.utils import is_remote

from distkeras.cluster.description import described

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Storage(Protocol):
    """Copies files to addresses and back."""

    def exists(self, address: str) -> bool:
        """Whether there is a file or a folder."""

    def delete(self, address: str) -> None:
        """Delete the folder, and everything in it."""

    def upload(self, local: Path, address: str) -> None:
        """Copy a local file; folders are made as needed."""

    def download(self, address: str, local: Path) -> None:
        """Copy to a local file."""


def storage_of(spark: SparkSession, address: str) -> Storage:
    """Return the storage for `address`: Hadoop's if it supports the scheme, else fsspec's.

    Raises:
        ValueError: neither supports the scheme.
    """
    scheme = urlsplit(address).scheme
    if is_remote():
        # Spark Connect uploads only to the server's default file system.
        return FsspecStorage(scheme) if scheme else ConnectStorage(spark)
    if not scheme or _hadoop_knows(spark, scheme):
        return HadoopStorage(spark)
    return FsspecStorage(scheme)


def _hadoop_knows(spark: SparkSession, scheme: str) -> bool:
    from py4j.protocol import Py4JJavaError

    file_system = spark._jvm.org.apache.hadoop.fs.FileSystem
    try:
        file_system.getFileSystemClass(scheme, _configuration(spark))
    except Py4JJavaError:
        return False
    return True


def _configuration(spark: SparkSession) -> Any:
    return spark._jsparkSession.sessionState().newHadoopConf()


class HadoopStorage:
    """Local disk, HDFS and every other file system with a Hadoop connector, through Spark's JVM.

    Args:
        spark: the session whose Hadoop settings are used.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._path = spark._jvm.org.apache.hadoop.fs.Path
        self._configuration = _configuration(spark)

    def _found(self, address: str) -> tuple[Any, Any]:
        path = self._path(address)
        return path.getFileSystem(self._configuration), path

    def exists(self, address: str) -> bool:
        """Whether there is a file or a folder."""
        with _java_message(address):
            files, path = self._found(address)
            return bool(files.exists(path))

    def delete(self, address: str) -> None:
        """Delete the folder, and everything in it."""
        with _java_message(address):
            files, path = self._found(address)
            files.delete(path, True)

    def upload(self, local: Path, address: str) -> None:
        """Copy a local file; folders are made as needed."""
        with _java_message(address):
            files, path = self._found(address)
            files.copyFromLocalFile(False, True, self._path(local.as_uri()), path)

    def download(self, address: str, local: Path) -> None:
        """Copy to a local file."""
        with _java_message(address):
            files, path = self._found(address)
            files.copyToLocalFile(False, path, self._path(local.as_uri()), True)


@contextmanager
def _java_message(address: str) -> Iterator[None]:
    """Convert a Java exception, with its long stack trace, to an OSError with its message."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import UnsupportedOperationException

    try:
        yield
    except Py4JJavaError as error:
        raise OSError(f"Hadoop cannot use {address!r}: {error.java_exception}") from error
    except UnsupportedOperationException as error:  # PySpark converts this Java exception itself.
        raise OSError(f"Hadoop cannot use {address!r}: {error}") from error


class ConnectStorage:
    """The default file system of a Spark Connect server, whose JVM is not accessible.

    Args:
        spark: the session.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def exists(self, address: str) -> bool:
        """Whether there is a file or a folder."""
        from pyspark.errors import AnalysisException

        try:
            with described(self._spark, "looks for a saved model"):
                self._spark.read.format("binaryFile").load(address).isEmpty()
        except AnalysisException:
            return False
        return True

    def delete(self, address: str) -> None:
        """Delete the folder, and everything in it."""
        from pyspark.ml.connect.readwrite import RemoteMLWriter

        RemoteMLWriter.handleOverwrite(address, True)

    def upload(self, local: Path, address: str) -> None:
        """Copy a local file; folders are made as needed."""
        self._spark.copyFromLocalToFs(str(local), address)

    def download(self, address: str, local: Path) -> None:
        """Copy to a local file, of at most 2 GiB."""
        with described(self._spark, "reads a saved model"):
            (row,) = self._spark.read.format("binaryFile").load(address).select("content").collect()
        local.write_bytes(row.content)


class FsspecStorage:
    """Addresses that Hadoop does not support, such as `gs://` or `memory://`, through fsspec in this process.

    Args:
        scheme: scheme of the addresses.

    Raises:
        ValueError: fsspec does not support the scheme either.
    """

    def __init__(self, scheme: str) -> None:
        import fsspec  # Imported here, because the import takes a quarter of a second.

        try:
            self._files = fsspec.filesystem(scheme)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"Expected an address whose scheme Hadoop or fsspec supports. Add the Hadoop connector to "
                f"Spark, or install fsspec's package for the scheme. Received: {scheme}://"
            ) from error

    def exists(self, address: str) -> bool:
        """Whether there is a file or a folder."""
        return bool(self._files.exists(address))

    def delete(self, address: str) -> None:
        """Delete the folder, and everything in it."""
        self._files.rm(address, recursive=True)

    def upload(self, local: Path, address: str) -> None:
        """Copy a local file; folders are made as needed."""
        self._files.makedirs(address.rpartition("/")[0], exist_ok=True)
        with local.open("rb") as source, self._files.open(address, "wb") as target:
            shutil.copyfileobj(source, target)

    def download(self, address: str, local: Path) -> None:
        """Copy to a local file."""
        with self._files.open(address, "rb") as source, local.open("wb") as target:
            shutil.copyfileobj(source, target)
