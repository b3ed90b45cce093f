"""Saving and loading of estimators and models: Spark's metadata as JSON, with Keras's own file beside it.

    <address>/metadata/part-00000   class, uid, Params, versions; Spark's pipelines read this path
    <address>/model.keras           can also be opened with `keras.saving.load_model`

Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)

from distkeras import __version__
from distkeras.ml.params import custom_objects_of
from distkeras.ml.serialization import check_findable
from distkeras.ml.storage import storage_of
from distkeras.moved import moved_in, renamed

if TYPE_CHECKING:
    from pyspark.ml.param import Params

FORMAT = 1
"""Version of the saved format. It is raised when older versions of distkeras can no longer read the files."""

METADATA = "metadata/part-00000"
ARCHIVE = "model.keras"


class LoadError(ValueError):
    """Saved files cannot be read. The message says what was found and what was expected."""


class KerasWritable(MLWritable):  # type: ignore[misc]
    """Abstract: can be saved, alone or as a stage of a pipeline."""

    def write(self) -> KerasWriter:
        """Return the writer: `.write().overwrite().save(address)`."""
        return KerasWriter(self)


class KerasReadable(MLReadable):  # type: ignore[misc]
    """Abstract: can be loaded."""

    _compiled: ClassVar[bool] = True

    @classmethod
    def read(cls) -> KerasReader:
        """Return the reader. `load(address)` is short for `read().load(address)`.

        The user's classes and functions in the model must be registered with Keras, or be in a scope:
        `with keras.saving.custom_object_scope({...}): PipelineModel.load(address)`.
        """
        return KerasReader(cls)


class KerasWriter(MLWriter):  # type: ignore[misc]
    """Saves an estimator or a model.

    Args:
        instance: the estimator or model to save.
    """

    def __init__(self, instance: Params) -> None:
        super().__init__()
        self._instance = instance

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to the folder `path`, an address that Hadoop or fsspec supports.

        Raises:
            FileExistsError: the path exists already, and `overwrite()` was not called.
            OSError: the path is not writable.
            ValueError: neither Hadoop nor fsspec supports the address, or loading could not find a custom
                object.
            TypeError: a Param has no JSON form.
        """
        path = os.fspath(path)
        storage = storage_of(self.sparkSession, path)
        if self._instance.isDefined("customObjects"):
            check_findable(self._instance.getOrDefault("customObjects"))
        metadata = self._metadata()
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / ARCHIVE
            text = Path(folder) / "metadata"
            if self._instance.isDefined("model"):
                self._instance.getOrDefault("model").save(archive)
            text.write_text(metadata)
            if storage.exists(path):
                if not self.shouldOverwrite:
                    raise FileExistsError(
                        f"The path {path!r} exists already. To replace it, use `.write().overwrite()"
                        f".save(...)`. Received: path={path!r}"
                    )
                storage.delete(path)
            if archive.exists():
                storage.upload(archive, f"{path.rstrip('/')}/{ARCHIVE}")
            storage.upload(text, f"{path.rstrip('/')}/{METADATA}")

    def _metadata(self) -> str:
        params = {
            param.name: value for param, value in self._instance._paramMap.items() if param.name != "model"
        }
        extra: dict[str, Any] = {
            "distkeras": {
                "format": FORMAT,
                "version": __version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
                "model": self._instance.isDefined("model"),
            }
        }
        if hasattr(self._instance, "validation_metrics"):
            extra["distkeras"]["validationMetrics"] = self._instance.validation_metrics
        text = DefaultParamsWriter._get_metadata_to_save(self._instance, self.sparkSession, extra, params)
        return f"{text}\n"


class KerasReader(MLReader):  # type: ignore[misc]
    """Loads an estimator or a model.

    Args:
        cls: class of the saved estimator or model.
    """

    def __init__(self, cls: type[Any]) -> None:
        super().__init__()
        self._cls = cls

    def load(self, path: str | os.PathLike[str]) -> Any:
        """Return the estimator or model that was saved at `path`.

        Raises:
            LoadError: distkeras saved nothing there, or another class, or in a newer format; a file is
                missing; or the model uses an unknown class.
        """
        path = os.fspath(path)
        storage = storage_of(self.sparkSession, path)
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "metadata"
            address = f"{path.rstrip('/')}/{METADATA}"
            if not storage.exists(address):
                raise LoadError(f"distkeras has saved nothing here: {address!r} does not exist.")
            storage.download(address, text)
            metadata = _parsed(text, address)
            saved = self._checked(metadata, path)
            instance = self._cls()
            instance._resetUid(metadata["uid"])
            metadata["paramMap"] = renamed(metadata["paramMap"], moved_in(self._cls), self._cls.__name__)
            DefaultParamsReader.getAndSetParams(instance, metadata)
            if saved["model"]:
                archive, address = Path(folder) / ARCHIVE, f"{path.rstrip('/')}/{ARCHIVE}"
                if not storage.exists(address):
                    raise LoadError(f"A saved file is missing: {address!r} does not exist.")
                storage.download(address, archive)
                instance._set(model=_loaded(archive, saved, path, instance))
        if hasattr(instance, "validation_metrics"):
            instance.validation_metrics = saved.get("validationMetrics", {})
        return instance

    def _checked(self, metadata: dict[str, Any], path: str) -> dict[str, Any]:
        """Return distkeras's own part of the metadata, after a check of class and format."""
        name = f"{self._cls.__module__}.{self._cls.__name__}"
        saved: dict[str, Any] = metadata.get("distkeras", {})
        if metadata.get("class") != name:
            raise LoadError(f"Expected a {name} at {path!r}. Received: a {metadata.get('class')}")
        if saved.get("format", FORMAT + 1) > FORMAT:
            raise LoadError(
                f"Expected format {FORMAT}, which distkeras {__version__} reads. Received: format "
                f"{saved.get('format')} at {path!r}, saved by distkeras {saved.get('version')}. "
                "Upgrade distkeras."
            )
        return saved


def _parsed(text: Path, address: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text.read_text())
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict):
        raise LoadError(
            f"Expected the JSON object that distkeras saves. Received: something else at {address!r}"
        )
    return metadata


def _loaded(archive: Path, saved: dict[str, Any], path: str, instance: Any) -> keras.Model:
    try:
        objects = custom_objects_of(instance)
        return keras.saving.load_model(archive, custom_objects=objects, compile=instance._compiled)
    except Exception as error:
        raise LoadError(
            f"Keras {keras.__version__} cannot load the model at {path!r}, which Keras {saved.get('keras')} "
            f"saved (distkeras {saved.get('version')}): {error}\nIf the model uses a class of yours, "
            "pass the class as `customObjects` before you save, register it with "
            "`keras.saving.register_keras_serializable()`, or load inside "
            "`keras.saving.custom_object_scope({...})`."
        ) from error
