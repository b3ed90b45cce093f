"""The flags of a job file's fields, made from the fields themselves."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import click
import msgspec

from distkeras.jobs.job_file import JobFile

Function = TypeVar("Function", bound=Callable[..., Any])

_PLAIN = ("train", "spark")
"""Tables whose fields are flags without the table's name before."""
_NAMED = {
    ("rule", "name"): "rule",
    ("output", "model"): "output",
    ("output", "run"): "run",
    ("data", "features"): "feature",
    ("data", "label"): "label",
    ("data", "sample_weight"): "sample-weight",
}
_PLURAL = {"arguments": "argument", "options": "option", "metrics": "metric"}
"""Flags that are given once for each entry."""
_PATHS = {("model", "file"), ("data", "path"), ("validation", "path"), ("output", "model"), ("output", "run")}
"""Fields with paths: in a flag they are relative to where the command runs, in the file to the file."""


def parsed(text: str) -> Any:
    """Return the value of `KEY=VALUE`: as TOML writes it, else as text."""
    try:
        return msgspec.toml.decode(f"value = {text}")["value"]
    except (msgspec.DecodeError, ValueError):
        return text


if TYPE_CHECKING:
    _PairType = click.ParamType[tuple[str, Any]]
else:  # Types of click 8.3 and older take no parameter.
    _PairType = click.ParamType


class Entry(_PairType):
    """`KEY=VALUE`, as a pair.

    Args:
        plain: whether values are texts, as of Spark's settings.
    """

    name = "key=value"

    def __init__(self, plain: bool = False) -> None:
        self._plain = plain

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return the key and the value of a text."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"Expected KEY=VALUE. Received: {value!r}", param, ctx)
        return key, text if self._plain else parsed(text)


def job_flags(function: Function) -> Function:
    """Give a command a flag for every field of a job file, as keyword arguments `table__field`."""
    for place, kind in reversed([*_fields()]):
        function = _option(place, kind)(function)
    return function


def _fields() -> list[tuple[tuple[str, ...], Any]]:
    """Return the place and the type of every field."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, kind in get_type_hints(JobFile, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = get_type_hints(kind, include_extras=True)
            found += [((name, field), hints[field]) for field in kind.__struct_fields__]
        else:
            found.append(((name,), kind))
    return found


def flag_of(place: tuple[str, ...]) -> str:
    """Return the flag of a field, without hyphens before."""
    if place in _NAMED:
        return _NAMED[place]
    last = _PLURAL.get(place[-1], place[-1])
    tables = [name for name in place[:-1] if name not in _PLAIN]
    return "-".join([*tables, last]).replace("_", "-")


def _option(place: tuple[str, ...], kind: Any) -> Callable[[Function], Function]:
    inner, help_text = _plain(kind)
    flag, name = f"--{flag_of(place)}", "__".join(place)
    settings: dict[str, Any] = {"help": help_text, "default": None}
    if inner is bool:
        flag = f"{flag}/--no-{flag_of(place)}"
    elif get_origin(inner) is list:
        settings |= {"multiple": True}
    elif get_origin(inner) is dict:
        settings |= {"multiple": True, "type": Entry(plain=get_args(inner)[1] is str)}
    elif get_origin(inner) is Literal:
        settings |= {"type": click.Choice(get_args(inner))}
    else:
        settings |= {"type": inner}
    return click.option(flag, name, **settings)


def _plain(kind: Any) -> tuple[Any, str]:
    """Return a type without `Annotated` and `None`, and its description."""
    description = ""
    while True:
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
            description = next((note.description for note in notes if note.description), description)
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(each for each in get_args(kind) if each is not type(None))
        else:
            return kind, description


def job_file_of(given: Path | None, tables: Mapping[str, Any]) -> Path | None:
    """Return the given job file, else `job.toml`; `None` if flags name a model, and so say everything."""
    is_whole = not {"function", "file"}.isdisjoint(tables.get("model", ()))
    return Path("job.toml") if given is None and not is_whole else given


def tables_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return given flags as the tables of a job file."""
    tables: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None or value == ():
            continue
        place = tuple(name.split("__"))
        if isinstance(value, tuple):
            value = dict(value) if isinstance(value[0], tuple) else list(value)
        if place in _PATHS and "://" not in value:
            value = os.path.abspath(value)
        at = tables
        for part in place[:-1]:
            at = at.setdefault(part, {})
        at[place[-1]] = value
    return tables
