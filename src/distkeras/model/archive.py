"""Keras's own `.keras` file as bytes: written, loaded, and its configuration read and changed in between."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

CONFIG = "config.json"
INITIALIZERS = "keras.initializers"
ZEROS: dict[str, Any] = {"module": INITIALIZERS, "class_name": "Zeros", "config": {}, "registered_name": None}


def write_archive(model: keras.Model) -> bytes:
    """Return `model` as Keras saves it, without how it is compiled: that travels apart, with less lost."""
    with tempfile.TemporaryDirectory() as folder, _as_if_not_compiled(model):
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()


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


def load_archive(archive: bytes, custom_objects: dict[str, Any]) -> keras.Model:
    """Return the model in `archive`, not compiled."""
    import keras  # Not before `prepare_process`.

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(archive)
        # The archive comes from the driver's own closure, so a lambda in it is the user's own.
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=False, safe_mode=False)


def digest_of(archive: bytes) -> str:
    """Return a name for the contents of `archive`, the same for a model that is saved twice."""
    found = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        for name in sorted(file.namelist()):
            if name != "metadata.json":  # It holds the time.
                found.update(name.encode() + file.read(name))
    return found.hexdigest()


def digest_of_all(*parts: bytes) -> str:
    """Return a name for `parts` in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def config_of(archive: bytes) -> dict[str, Any]:
    """Return the configuration in `archive`."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        config: dict[str, Any] = json.loads(file.read(CONFIG))
    return config


def without_initializers(archive: bytes) -> bytes:
    """Return `archive` with zeros for the initializers of Keras's layers, which serve their weights alone."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == CONFIG:
                data = json.dumps(_zeroed(json.loads(data))).encode()
            new.writestr(entry, data)
    return written.getvalue()


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
