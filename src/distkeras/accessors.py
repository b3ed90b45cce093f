"""Getters and setters for the Params of a class, as Spark's own classes have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from pyspark.ml.param import Param, Params

__all__ = ["accessors"]

P = TypeVar("P", bound=type[Params])


def accessors(cls: P, read: Callable[[Any], Any] = lambda value: value) -> P:
    """Add a `getX` and a `setX` to `cls` for every Param, and return it. Methods that it defines are kept.

    Args:
        cls: a class with Params.
        read: converts the value of a Param to the return value of its getter.
    """
    for name in dir(cls):
        if isinstance(getattr(cls, name, None), Param):
            title = name[0].upper() + name[1:]
            for prefix, method in (("get", _getter(name, read)), ("set", _setter(name))):
                if prefix + title not in vars(cls):
                    setattr(cls, prefix + title, method)
    return cls


def _getter(name: str, read: Callable[[Any], Any]) -> Callable[[Params], Any]:
    def get(self: Params) -> Any:
        return read(self.getOrDefault(name))

    get.__doc__ = f"Return the value of `{name}`, or its default."
    return get


def _setter(name: str) -> Callable[[Params, Any], Params]:
    def set_(self: Params, value: Any) -> Params:
        return cast(Params, self._set(**{name: value}))

    set_.__doc__ = f"Set `{name}` and return self."
    return set_
