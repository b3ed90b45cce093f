"""What a run says of itself in `run.json`, without secrets."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from distkeras.wire.redaction import HIDDEN

_SECRET = re.compile(r"secret|passw|token|credential|storage_options|\bkey\b|_key\b|\bkey_", re.IGNORECASE)
_PACKAGES = ("distkeras", "keras", "pyspark", "numpy", "jax", "tensorflow", "torch")


def plain(value: Any, hide: Callable[[str], str]) -> Any:
    """Return `value` as JSON for people to read: objects become dicts of their fields, or their names.

    Values whose names say that they are secret are hidden, and so are secrets in texts.
    """
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {
            hide(str(name)): HIDDEN if _SECRET.search(str(name)) and part is not None else plain(part, hide)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part, hide) for part in value]
    if isinstance(value, os.PathLike):
        return hide(os.fspath(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **plain(fields, hide)}
    if callable(getattr(value, "item", None)):  # A number of NumPy.
        return plain(value.item(), hide)
    return getattr(value, "__qualname__", type(value).__qualname__)


def this_process() -> dict[str, Any]:
    """Return the machine, the process and the versions that it uses."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        module = sys.modules.get(name)  # Importing one takes seconds, and what is not imported is not used.
        if module is not None or name in ("distkeras", "pyspark"):
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = str(getattr(module, "__version__", "unknown"))
    return {"host": platform.node(), "pid": os.getpid(), "versions": versions}
