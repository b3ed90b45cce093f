"""Deprecation of public arguments: the old name works for some versions and gives a warning.

```python
@moved(Moved("window", "communication_window", since="0.2", gone_in="0.4"))
class Rule: ...
```

works on functions and on classes: trainers, frozen dataclasses, and Spark ML classes with Params. This module
imports nothing from this project.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Moved", "moved", "moved_in", "renamed"]

MOVED = "__moved__"
"""The attribute of a class that holds its moved arguments."""

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Moved:
    """An argument that was renamed, or that is now keyword-only.

    Args:
        old: the old name.
        new: the new name; equal to the old name if the argument only became keyword-only.
        since: the version that changed the argument.
        gone_in: the version that will no longer accept the old form.
        place: the old position, from 0 and without `self`, if the argument became keyword-only.

    Raises:
        ValueError: neither the name nor the position has changed.
    """

    old: str
    new: str
    since: str
    gone_in: str
    place: int | None = None

    def __post_init__(self) -> None:
        if self.old == self.new and self.place is None:
            raise ValueError(f"Expected a new name, or the old position. Received: {self!r}")

    def warn(self, where: str, what: str = "argument") -> None:
        """Warn the first caller outside this project that the old form is deprecated.

        Args:
            where: name of the function or class.
            what: kind of the old name in the message, such as "argument".
        """
        form = f"`{self.old}`" if self.old != self.new else f"`{self.old}` by position"
        warnings.warn(
            f"The {what} {form} of {where} is `{self.new}` since distkeras {self.since}: use that name. "
            f"The old form will be removed in {self.gone_in}.",
            DeprecationWarning,
            stacklevel=_levels_to_caller(),
        )


def moved(*table: Moved) -> Callable[[T], T]:
    """Return a decorator that makes a function or class also accept old forms, with a warning.

    A class accepts them in its constructor, and a Spark ML class also in `setParams`. Its instances keep the
    old names: as attributes, or as `getOld` and `setOld` of Params. Subclasses inherit all of this.

    Args:
        *table: the moved arguments.

    Warns:
        DeprecationWarning: an old form is used.

    Raises:
        TypeError: from the decorated function or class: an argument is given in both its old and new form.
    """

    def decorate(target: T) -> T:
        if not isinstance(target, type):
            return _taking(target, table, getattr(target, "__qualname__", repr(target)), own=0)
        for name in ("__init__", "setParams"):
            if hasattr(target, name):
                setattr(target, name, _taking(getattr(target, name), table, target.__name__, own=1))
        for each in table:
            if each.old != each.new:
                _keep_names(target, each)
        setattr(target, MOVED, (*moved_in(target), *table))
        return target

    return decorate


def moved_in(cls: type) -> tuple[Moved, ...]:
    """Return the moved arguments of a class and of its base classes."""
    table: tuple[Moved, ...] = getattr(cls, MOVED, ())
    return table


def renamed(given: Mapping[str, Any], table: tuple[Moved, ...], where: str) -> dict[str, Any]:
    """Return `given`, which holds arguments or saved Params, under the new names.

    Args:
        given: values by name.
        table: the moved arguments.
        where: name of the function or class, for error messages.

    Raises:
        TypeError: a value is given under both names.
    """
    found = dict(given)
    for each in table:
        if each.old != each.new and each.old in found:
            if each.new in found:
                raise TypeError(
                    f"{where} takes `{each.new}`, which was `{each.old}` before {each.since}: pass only the "
                    f"new one. Received: {each.old}={found[each.old]!r}, {each.new}={found[each.new]!r}"
                )
            found[each.new] = found.pop(each.old)
    return found


def _taking(function: T, table: tuple[Moved, ...], where: str, own: int) -> T:
    """Return `function`, which also accepts the old forms; `own` is 1 for a method (`self`), else 0."""
    kinds = inspect.Parameter
    parameters = inspect.signature(function).parameters.values()
    by_place = sum(part.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD) for part in parameters)
    places = {each.place + own: each for each in table if each.place is not None}

    @functools.wraps(function)
    def taking(*args: Any, **kwargs: Any) -> Any:
        for each in table:
            if each.old in kwargs and each.old != each.new:
                each.warn(where)
        kwargs = renamed(kwargs, table, where)
        while len(args) > by_place and len(args) - 1 in places:
            each = places[len(args) - 1]
            each.warn(where)
            if each.new in kwargs:
                raise TypeError(f"{where} was given `{each.new}` twice: by position and by name.")
            kwargs[each.new] = args[-1]
            args = args[:-1]
        return function(*args, **kwargs)

    return taking  # type: ignore[return-value]  # It accepts the signature of `function`, and more.


def _keep_names(cls: type, each: Moved) -> None:
    """Add the old name to `cls`, for reading and setting."""

    def warn() -> None:
        each.warn(cls.__name__, "name")

    if hasattr(cls, "_paramMap") or hasattr(cls, "setParams"):
        for prefix in ("get", "set"):
            new = getattr(cls, prefix + _title(each.new), None)
            if new is not None:
                setattr(cls, prefix + _title(each.old), _warning(new, warn))
        return

    def read(self: Any) -> Any:
        warn()
        return getattr(self, each.new)

    def write(self: Any, value: Any) -> None:
        warn()
        setattr(self, each.new, value)

    setattr(cls, each.old, property(read, write, doc=f"The old name of `{each.new}`."))


def _warning(method: Callable[..., Any], warn: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def warned(*args: Any, **kwargs: Any) -> Any:
        warn()
        return method(*args, **kwargs)

    return warned


def _title(name: str) -> str:
    return name[0].upper() + name[1:]


def _levels_to_caller() -> int:
    """Return the number of stack levels up to the first line outside this project."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "distkeras":
        level, frame = level + 1, frame.f_back
    return level
