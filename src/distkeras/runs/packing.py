"""States of callbacks and of the driver as JSON. Arrays become references to files."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Keep = Callable[[list[Array]], str]
"""Stores arrays and returns the name of their file."""
Fetch = Callable[[str], list[Array]]
"""Returns the arrays in a file."""


class NotPlain(TypeError):
    """A value has no form as JSON and arrays."""


def pack(value: Any, keep: Keep) -> Any:
    """Return `value` as JSON from which `unpack` makes it again.

    Args:
        value: None, a number, a text, an array, or lists, tuples and dicts of these. NumPy's numbers become
            Python's. A list of arrays, such as a model's weights, is one file.
        keep: stores arrays.

    Raises:
        NotPlain: there is another type in `value`.
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case np.generic():
            return pack(value.item(), keep)
        case np.ndarray():
            return {"$array": keep([_plain(value)])}
        case list() if value and all(isinstance(part, np.ndarray) for part in value):
            return {"$arrays": keep([_plain(part) for part in value])}
        case list():
            return [pack(part, keep) for part in value]
        case tuple():
            return {"$tuple": [pack(part, keep) for part in value]}
        case dict() if all(isinstance(name, str) and name[:1] != "$" for name in value):
            return {name: pack(part, keep) for name, part in value.items()}
        case dict():
            return {"$dict": [[pack(name, keep), pack(part, keep)] for name, part in value.items()]}
    raise NotPlain(f"Expected numbers, texts, arrays, or lists and dicts of them. Received: {type(value)}")


def unpack(value: Any, fetch: Fetch) -> Any:
    """Return what `pack` was given."""
    match value:
        case list():
            return [unpack(part, fetch) for part in value]
        case {"$float": text}:
            return float(text)
        case {"$array": name}:
            return fetch(name)[0]
        case {"$arrays": name}:
            return fetch(name)
        case {"$tuple": parts}:
            return tuple(unpack(part, fetch) for part in parts)
        case {"$dict": pairs}:
            return {unpack(name, fetch): unpack(part, fetch) for name, part in pairs}
        case dict():
            return {name: unpack(part, fetch) for name, part in value.items()}
    return value


def to_text(value: Any) -> float | str:
    """Return a number of the logs for JSON, which has no NaN and no infinity: these become texts."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def files_in(value: Any) -> set[str]:
    """Return the names of the files to which a packed value refers."""
    if isinstance(value, Mapping):
        own = {str(value[name]) for name in ("$array", "$arrays") if name in value}
        return own.union(*map(files_in, value.values()))
    return set().union(*map(files_in, value)) if isinstance(value, list) else set()


def name_of(arrays: list[Array]) -> str:
    """Return a name that arrays of other contents do not have."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return f"arrays-{digest.hexdigest()[:32]}.npz"


def to_bytes(arrays: list[Array]) -> bytes:
    """Return `arrays` as a file."""
    file = io.BytesIO()
    # NumPy's format does not know types such as bfloat16: they are written as bytes, with their names.
    names = np.array([array.dtype.name for array in arrays])
    plain = [array.view(f"u{array.itemsize}") if _is_foreign(array) else array for array in arrays]
    np.savez(file, *plain, dtypes=names)
    return file.getvalue()


def from_bytes(data: bytes) -> list[Array]:
    """Return the arrays in a file."""
    import ml_dtypes  # A requirement of Keras.

    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = [archive[f"arr_{index}"] for index in range(len(archive["dtypes"]))]
        return [
            array if array.dtype.name == name else array.view(getattr(ml_dtypes, name))
            for array, name in zip(arrays, archive["dtypes"].tolist(), strict=True)
        ]


def _is_foreign(array: Array) -> bool:
    return array.dtype.kind == "V"


def _plain(array: Array) -> Array:
    if array.dtype.hasobject:
        raise NotPlain(f"Expected arrays of numbers. Received: an array of {array.dtype}")
    return array
