"""Digests of the code of a user's functions: editing a function changes its digest, redefining it does not.

The digest covers the function's instructions, constants, defaults and closure, and the functions, classes and
plain values of its own module that it names. It does not cover other modules, files, code in C, or the
contents of objects that are neither plain values nor functions.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distkeras.model.functions import is_filled, names_in


def code_of(**functions: Callable[..., Any] | None) -> dict[str, str]:
    """Return the digest of each of `functions` that is not None, by name.

    The keys contain the version of Python, because different versions compile the same function to different
    instructions. Only keys that both sides have are compared.
    """
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return {
        f"{name}, its code in {version}": hashlib.sha256(repr(_described(function, {})).encode()).hexdigest()[
            :16
        ]
        for name, function in functions.items()
        if function is not None
    }


def _described(value: Any, seen: dict[int, Any]) -> Any:
    """Return tuples of plain values that are equal for equal code, in this process or in another."""
    match value:
        case bool() | int() | float() | complex() | str() | bytes() | None:
            return (type(value).__name__, value)
        case types.CodeType():
            return _of_code(value, seen)
        case list() | tuple():
            return [_described(part, seen) for part in value]
        case dict():
            return [(_described(key, seen), _described(part, seen)) for key, part in value.items()]
        case set() | frozenset():
            return sorted(repr(_described(part, seen)) for part in value)
        case np.ndarray():
            data = b"" if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
            return (str(value.dtype), value.shape, hashlib.sha256(data).hexdigest())
        case types.ModuleType():
            return ("module", value.__name__)
    if id(value) in seen:  # A recursive function.
        return "above"
    seen[id(value)] = value
    match value:
        case types.FunctionType():
            return ("function", *_of_function(value, seen))
        case types.MethodType():
            return ("method", _described(value.__func__, seen), _described(value.__self__, seen))
        case functools.partial():
            return ("partial", *(_described(part, seen) for part in (value.func, value.args, value.keywords)))
        case type():
            return (
                "class",
                value.__name__,
                [base.__name__ for base in value.__bases__],
                _of_class(value, seen),
            )
    if hasattr(value, "__wrapped__"):  # For example by `functools.cache`.
        return ("around", _described(value.__wrapped__, seen))
    name = getattr(value, "__qualname__", None)  # A function in C.
    if name is not None:
        return ("name", name)
    kept = {key: part for key, part in getattr(value, "__dict__", {}).items() if _is_plain(part)}
    return ("object", _described(type(value), seen), _described(dict(sorted(kept.items())), seen))


def _of_function(function: types.FunctionType, seen: dict[int, Any]) -> Iterator[Any]:
    yield _described(function.__code__, seen)
    yield _described(function.__defaults__, seen)
    yield _described(function.__kwdefaults__, seen)
    for cell in function.__closure__ or ():
        # A cell is empty if its name is bound later, as in a recursive function.
        yield _described(cell.cell_contents, seen) if is_filled(cell) else "empty"
    for name in sorted(names_in(function.__code__)):
        if name in function.__globals__:
            yield name, _of_global(function.__globals__[name], function.__module__, seen)


def _of_global(value: Any, module: str, seen: dict[int, Any]) -> Any:
    if isinstance(value, types.FunctionType | type) and value.__module__ != module:
        return ("elsewhere", value.__module__, value.__qualname__)
    if isinstance(value, types.FunctionType | type) or _is_plain(value):
        return _described(value, seen)
    return type(value).__qualname__


def _of_class(cls: type, seen: dict[int, Any]) -> list[Any]:
    """Return the methods and plain values in the body of the class, without those it inherits."""
    members = {
        name: part for name, part in vars(cls).items() if not name.startswith("__") or name == "__call__"
    }
    kept = {
        name: part
        for name, part in members.items()
        if isinstance(part, types.FunctionType) or _is_plain(part)
    }
    return [(name, _described(part, seen)) for name, part in sorted(kept.items())]


def _of_code(code: types.CodeType, seen: dict[int, Any]) -> Any:
    """Describe the code without file, line numbers and function names, which differ after a redefinition."""
    constants = [_described(part, seen) for part in code.co_consts]
    return (code.co_code, code.co_exceptiontable, constants, code.co_names, code.co_varnames, code.co_flags)


def _is_plain(value: Any) -> bool:
    match value:
        case bool() | int() | float() | complex() | str() | bytes() | None:
            return True
        case list() | tuple() | set() | frozenset():
            return all(_is_plain(part) for part in value)
        case dict():
            return all(_is_plain(key) and _is_plain(part) for key, part in value.items())
        case np.ndarray():
            return not value.dtype.hasobject
    return False
