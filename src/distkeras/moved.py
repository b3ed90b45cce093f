"""Public arguments that have moved: for a while the old name still works, and whoever uses it is told.

```python
@moved(Moved("window", "communication_window", since="0.2", gone_in="0.4"))
class Rule: ...
```

works on functions, and on classes: trainers, frozen dataclasses, and Spark ML classes with Params. Imports
nothing of this project.
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
"""The attribute of a class that holds what has moved."""

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Moved:
    """One argument that has another name now, or is given by name alone now.

    Args:
        old: the name that it had.
        new: the name that it has; the same where it is only no longer taken by position.
        since: the version that moved it.
        gone_in: the version that will no longer take the old form.
        place: the position at which it was taken, from 0 and without `self`, where it no longer is.

    Raises:
        ValueError: it has not moved at all.
    """

    old: str
    new: str
    since: str
    gone_in: str
    place: int | None = None

    def __post_init__(self) -> None:
        if self.old == self.new and self.place is None:
            raise ValueError(f"Expected another name, or the position that it had. Received: {self!r}")

    def warn(self, where: str, what: str = "argument") -> None:
        """Tell the first caller outside of this project that the old form goes.

        Args:
            where: name of the function or class.
            what: of which it is the name.
        """
        form = f"`{self.old}`" if self.old != self.new else f"`{self.old}` by position"
        warnings.warn(
            f"The {what} {form} of {where} is `{self.new}` since distkeras {self.since}, by that name. "
            f"The old form will be gone in {self.gone_in}.",
            DeprecationWarning,
            stacklevel=_levels_to_caller(),
        )


def moved(*table: Moved) -> Callable[[T], T]:
    """Return a decorator by which a function or class takes old forms too, with a warning.

    A class takes them in its constructor, and in `setParams` where it is one of Spark ML. Its instances have
    the old names too: as attributes, or as `getOld` and `setOld` of Params. Subclasses inherit it all.

    Args:
        *table: what has moved.

    Warns:
        DeprecationWarning: an old form is used.

    Raises:
        TypeError: from what is decorated: an argument is given in its old and in its new form.
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
    """Return what has moved of the arguments of a class, and of those that it derives from."""
    table: tuple[Moved, ...] = getattr(cls, MOVED, ())
    return table


def renamed(given: Mapping[str, Any], table: tuple[Moved, ...], where: str) -> dict[str, Any]:
    """Return `given`, arguments or Params that were saved, under the names that they have now.

    Args:
        given: by name.
        table: what has moved.
        where: of what, for the errors.

    Raises:
        TypeError: one is given under both names.
    """
    found = dict(given)
    for each in table:
        if each.old != each.new and each.old in found:
            if each.new in found:
                raise TypeError(
                    f"{where} takes `{each.new}`, which was `{each.old}` before {each.since}: give the new "
                    f"one alone. Received: {each.old}={found[each.old]!r}, {each.new}={found[each.new]!r}"
                )
            found[each.new] = found.pop(each.old)
    return found


def _taking(function: T, table: tuple[Moved, ...], where: str, own: int) -> T:
    """Return `function` that takes the old forms too; `own` of its first arguments are its own."""
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

    return taking  # type: ignore[return-value]  # of the same signature, and more


def _keep_names(cls: type, each: Moved) -> None:
    """Give `cls` the old name beside the new one, for reading and setting."""

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
    """How far up the stack the first line is that is not of this project."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "distkeras":
        level, frame = level + 1, frame.f_back
    return level
