"""Keras's own `.keras` file: written, loaded, and its configuration read and changed in between."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import operator
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, SupportsIndex

if TYPE_CHECKING:
    import keras
    from _typeshed import WriteableBuffer

CONFIG = "config.json"
METADATA = "metadata.json"
INITIALIZERS = "keras.initializers"
MEMORY_BYTES = 2**20
"""What is larger is kept on disk."""

ZEROS: dict[str, Any] = {"module": INITIALIZERS, "class_name": "Zeros", "config": {}, "registered_name": None}


class Stored:
    """A saved model, kept beside the model itself: on disk, so that a large one takes no memory.

    Its file has no name: it goes with this object, and with the process. Pickled, it is its bytes.

    Args:
        file: an open file, for this object alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] = file
        if os.fstat(file.fileno()).st_size <= MEMORY_BYTES:
            # A process has few open files, and may have many small models.
            with file:
                file.seek(0)
                self._file = io.BytesIO(file.read())

    @classmethod
    def of(cls, data: bytes) -> Stored:
        """Store `data`."""
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(data)
        file.flush()
        return cls(file)

    def open(self) -> BinaryIO:
        """Return the bytes as a file to read, with a place of its own."""
        if isinstance(self._file, io.BytesIO):
            return io.BytesIO(self._file.getvalue())
        return io.BufferedReader(_Reading(self._file.fileno()))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        if operator.index(protocol) < 5 or isinstance(self._file, io.BytesIO):
            with self.open() as file:
                return Stored.of, (file.read(),)
        data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return Stored.of, (pickle.PickleBuffer(data),)


class _Reading(io.RawIOBase):
    """A file read at a place of this object's own, whoever else reads it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = (0, self._place, os.fstat(self._descriptor).st_size)[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = os.preadv(self._descriptor, [buffer], self._place)
        self._place += count
        return count


def write_archive(model: keras.Model) -> Stored:
    """Return `model` as Keras saves it, without how it is compiled: that travels apart, with less lost.

    Times are left out too: a model that is saved twice gives the same bytes.
    """
    with tempfile.TemporaryDirectory() as folder, _as_if_not_compiled(model):
        path = Path(folder) / "model.keras"
        model.save(path)
        with path.open("rb") as file:
            return _rewritten(file, lambda config: config)


@contextlib.contextmanager
def _as_if_not_compiled(model: keras.Model) -> Iterator[None]:
    # Else Keras writes the optimizer's state too, as much again as the model and more.
    attributes = vars(model)
    kept = {name: attributes[name] for name in ("optimizer", "compiled") if name in attributes}
    attributes.update(optimizer=None, compiled=False)
    try:
        yield
    finally:
        del attributes["optimizer"], attributes["compiled"]
        attributes.update(kept)


def load_archive(archive: Stored, custom_objects: dict[str, Any]) -> keras.Model:
    """Return the model in `archive`, not compiled."""
    import keras  # Not before `prepare_process`.

    with tempfile.TemporaryDirectory() as folder:
        # Keras takes the weights of a zipped file to memory all together, those in a folder one by one.
        with archive.open() as source, zipfile.ZipFile(source) as file:
            file.extractall(folder)
        # The archive comes from the driver itself, so a lambda in it is the user's own.
        return keras.saving.load_model(folder, custom_objects=custom_objects, compile=False, safe_mode=False)


def load_without_weights(archive: Stored, custom_objects: dict[str, Any]) -> keras.Model:
    """Return the model in `archive`, not compiled, with the weights that its initializers draw."""
    import keras

    model: keras.Model = keras.saving.deserialize_keras_object(
        config_of(archive), custom_objects=custom_objects, safe_mode=False
    )
    return model


def has_assets(archive: Stored) -> bool:
    """Whether there are files besides configuration and weights, such as vocabularies."""
    with archive.open() as source, zipfile.ZipFile(source) as file:
        return any(name.startswith("assets/") for name in file.namelist())


def digest_of(stored: Stored) -> str:
    """Return a name for the contents."""
    found = hashlib.sha256()
    with stored.open() as file:
        for piece in iter(lambda: file.read(2**20), b""):
            found.update(piece)
    return found.hexdigest()


def digest_of_all(*parts: bytes) -> str:
    """Return a name for `parts` in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def config_of(archive: Stored) -> dict[str, Any]:
    """Return the configuration in `archive`."""
    with archive.open() as source, zipfile.ZipFile(source) as file:
        config: dict[str, Any] = json.loads(file.read(CONFIG))
    return config


def without_initializers(archive: Stored) -> Stored:
    """Return `archive` with zeros for the initializers of Keras's layers, which serve their weights alone."""
    with archive.open() as file:
        return _rewritten(file, _zeroed)


def _rewritten(file: IO[bytes], change: Callable[[Any], Any]) -> Stored:
    """Return the archive in `file` with another configuration, and without times."""
    written = tempfile.TemporaryFile()  # noqa: SIM115
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            with old.open(name) as source, new.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target:
                if name == CONFIG:
                    target.write(json.dumps(change(json.load(source))).encode())
                elif name != METADATA:  # It holds the time.
                    shutil.copyfileobj(source, target)
    written.flush()
    return Stored(written)


def _zeroed(config: Any, *, own: bool = False) -> Any:
    """Copy `config`; `own`: it is the inner part of one of Keras's own layers."""
    if isinstance(config, list):
        return [_zeroed(item) for item in config]
    if not isinstance(config, dict):
        return config
    inner = str(config.get("module", "")).startswith("keras.layers")
    return {
        key: ZEROS
        if own and key.endswith("_initializer") and _is_of_keras(value)
        else _zeroed(value, own=inner and key == "config")
        for key, value in config.items()
    }


def _is_of_keras(value: Any) -> bool:
    return isinstance(value, dict) and value.get("module") == INITIALIZERS
