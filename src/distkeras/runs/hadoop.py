"""Spark's own Hadoop file systems as a filesystem of fsspec, through the JVM of this process."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec import AbstractFileSystem

from distkeras.wire.redaction import without_secrets


def hadoop_of(scheme: str) -> HadoopFileSystem | str:
    """Return Hadoop's filesystem for addresses with `scheme`, or the reason why there is none."""
    try:
        from pyspark.sql import SparkSession
        from pyspark.sql.utils import is_remote
    except ImportError:
        return "PySpark is missing"
    if is_remote():
        return (
            "Spark Connect gives this process no access to the file systems of its server. Install fsspec's "
            "driver for the scheme here, or use webhdfs:// for HDFS"
        )
    spark = SparkSession.getActiveSession() or SparkSession._instantiatedSession
    if spark is None:
        return "no Spark session has been started in this process"
    files = HadoopFileSystem(spark)
    return files if files.knows(scheme) else "it has no file system for this scheme on its class path"


class HadoopFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """HDFS, and every other file system with a Hadoop connector. Paths are whole addresses.

    Files are read and written as copies on the local disk, because bytes are slow through the gateway. They
    cannot be appended to.

    Args:
        spark: a classic session, whose Hadoop settings are used.
    """

    protocol = "hadoop"
    cachable = False

    def __init__(self, spark: Any) -> None:
        super().__init__()
        self._jvm = spark._jvm
        self._gateway = spark.sparkContext._gateway
        self._hadoop = self._jvm.org.apache.hadoop.fs
        self._configuration = spark._jsparkSession.sessionState().newHadoopConf()

    def knows(self, scheme: str) -> bool:
        """Whether there is a file system for addresses with `scheme`."""
        from py4j.protocol import Py4JJavaError

        try:
            self._hadoop.FileSystem.getFileSystemClass(scheme, self._configuration)
        except Py4JJavaError:
            return False
        return True

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.rstrip("/")  # The scheme and the host decide on the file system.

    def _found(self, address: str) -> tuple[Any, Any]:
        path = self._hadoop.Path(address)
        return path.getFileSystem(self._configuration), path

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return the files in a folder; for a file, the file itself."""
        with java_message(path):
            files, folder = self._found(path)
            found = [_facts(status) for status in files.listStatus(folder)]
        return found if detail else [facts["name"] for facts in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file or a folder."""
        with java_message(path):
            files, address = self._found(path)
            return _facts(files.getFileStatus(address))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and those above it."""
        with java_message(path):
            files, folder = self._found(path)
            if not exist_ok and files.exists(folder):
                raise FileExistsError(path)
            files.mkdirs(folder)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a folder."""
        self.makedirs(path)

    def rm_file(self, path: str) -> None:
        """Remove a file, or an empty folder."""
        with java_message(path):
            files, address = self._found(path)
            if not files.exists(address):
                raise FileNotFoundError(path)
            files.delete(address, False)

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        self.rm_file(path)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        """Rename a file, in place of an earlier one: both are complete at every moment."""
        overwrite = self._gateway.new_array(self._hadoop.Options.Rename, 1)
        overwrite[0] = self._hadoop.Options.Rename.OVERWRITE
        with java_message(path1):
            source, target = self._hadoop.Path(path1), self._hadoop.Path(path2)
            context = self._hadoop.FileContext.getFileContext(source.toUri(), self._configuration)
            context.rename(source, target, overwrite)

    def put_file(self, lpath: str, rpath: str, *_: Any, **__: Any) -> None:
        """Copy a local file, in place of an earlier one."""
        with java_message(rpath):
            files, target = self._found(rpath)
            files.copyFromLocalFile(False, True, self._local(lpath), target)

    def get_file(self, rpath: str, lpath: str, *_: Any, **__: Any) -> None:
        """Copy to a local file."""
        with java_message(rpath):
            files, source = self._found(rpath)
            files.copyToLocalFile(False, source, self._local(lpath), True)

    def _local(self, path: str) -> Any:
        return self._hadoop.Path("file://" + os.path.abspath(path))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode == "rb":
            return _Download(self, path)
        if mode == "wb":
            return _Upload(self, path)
        raise NotImplementedError(f"Expected the mode 'rb' or 'wb'. Received: mode={mode!r}")


class _Download(io.FileIO):
    """A copy on the local disk of a file to read."""

    def __init__(self, fs: HadoopFileSystem, path: str) -> None:
        with tempfile.TemporaryDirectory(prefix="distkeras-") as folder:
            copy = os.path.join(folder, "copy")
            fs.get_file(path, copy)
            super().__init__(copy, "r")  # The open file stays when its name is removed.


class _Upload(io.FileIO):
    """A local file to write, which is copied when it is closed without an exception."""

    def __init__(self, fs: HadoopFileSystem, path: str) -> None:
        self._fs, self._path = fs, path
        self._folder = tempfile.TemporaryDirectory(prefix="distkeras-")
        super().__init__(os.path.join(self._folder.name, "copy"), "w")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._path = ""
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        with self._folder as folder:
            if self._path:
                self._fs.put_file(os.path.join(folder, "copy"), self._path)


def _facts(status: Any) -> dict[str, Any]:
    folder = bool(status.isDirectory())
    name = str(status.getPath().toString())
    return {"name": name, "size": int(status.getLen()), "type": "directory" if folder else "file"}


@contextmanager
def java_message(address: str) -> Iterator[None]:
    """Convert a Java exception, with its long stack trace, to an OSError with its message.

    Raises:
        FileNotFoundError: in place of Java's own.
        OSError: in place of any other exception of Java.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors.exceptions.captured import CapturedException

    try:
        yield
    except Py4JJavaError as error:
        name = error.java_exception.getClass().getName()
        if name.endswith("FileNotFoundException"):
            raise FileNotFoundError(address) from None
        raise OSError(f"Hadoop cannot use {without_secrets(address)}: {error.java_exception}") from None
    except CapturedException as error:  # PySpark converts some Java exceptions itself.
        raise OSError(f"Hadoop cannot use {without_secrets(address)}: {error}") from None
