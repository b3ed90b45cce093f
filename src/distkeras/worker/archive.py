"""What is inside Keras's own `.keras` file: its configuration, read and changed without loading the model."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

CONFIG = "config.json"
INITIALIZERS = "keras.initializers"
ZEROS: dict[str, Any] = {"module": INITIALIZERS, "class_name": "Zeros", "config": {}, "registered_name": None}


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
