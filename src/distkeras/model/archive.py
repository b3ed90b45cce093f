"""Write, load and rewrite Keras's own `.keras` file."""

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
"""Larger archives are kept on disk."""

ZEROS: dict[str, Any] = {"module": INITIALIZERS, "class_name": "Zeros", "config": {}, "registered_name": None}


class Stored:
    """A saved model, kept beside the model itself: on disk, so that a large one takes no memory.

    The file has no name: it is deleted with this object or with the process. A pickle holds the bytes.

    Args:
        file: an open file that this object alone uses.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file: IO[bytes] = file
        if os.fstat(file.fileno()).st_size <= MEMORY_BYTES:
            # A process may open few files, and may have many small models.
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
        """Return a file to read the bytes from, with its own read position."""
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
    """A file with its own read position, independent of other readers."""

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
    """Return `model` as Keras saves it, without its compile settings: they travel separately, with less lost.

    Times are left out too: saving a model twice gives the same bytes.
    """
    with tempfile.TemporaryDirectory() as folder, _as_if_not_compiled(model):
        path = Path(folder) / "model.keras"
        model.save(path)
        with path.open("rb") as file:
            return _rewritten(file, lambda config: config)


@contextlib.contextmanager
def _as_if_not_compiled(model: keras.Model) -> Iterator[None]:
    # Otherwise Keras also writes the optimizer's state, which is larger than the model.
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
        # Keras reads the weights of a zipped file into memory all together, those in a folder one by one.
        with archive.open() as source, zipfile.ZipFile(source) as file:
            file.extractall(folder)
        # The archive comes from the driver itself, so a lambda in it is the user's own.
        return keras.saving.load_model(folder, custom_objects=custom_objects, compile=False, safe_mode=False)


def load_without_weights(archive: Stored, custom_objects: dict[str, Any]) -> keras.Model:
    """Return the model in `archive`, not compiled, with new weights drawn by its initializers."""
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
    """Return a digest of the contents."""
    found = hashlib.sha256()
    with stored.open() as file:
        for piece in iter(lambda: file.read(2**20), b""):
            found.update(piece)
    return found.hexdigest()


def digest_of_all(*parts: bytes) -> str:
    """Return a digest of `parts` in their order."""
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
    """Return `archive` with zeros as initializers of Keras's layers, which only use them for weights."""
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
    """Copy `config`; `own`: it is the inner `config` of one of Keras's own layers."""
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
