"""Lines of JSON, `[name, fields]`, in the numbered files of a folder of a run."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import msgspec

from distkeras.runs.folder import Folder, RunError

_NAME = re.compile(r"(\d{5,})\.jsonl")
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_ENCODER = msgspec.json.Encoder()
_LINE = msgspec.json.Decoder(tuple[str, msgspec.Raw])


class Lines:
    """Encodes and decodes the lines of one folder.

    Args:
        classes: dataclasses of what is in the lines.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._classes = {cls.__name__: cls for cls in classes}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            name: msgspec.json.Decoder(cls) for name, cls in self._classes.items()
        }
        self._with_text = {
            cls
            for cls in self._classes.values()
            if {"error", "reason"} & {field.name for field in fields(cls)}
        }

    def encode(self, record: Any, hide: Callable[[str], str] = str) -> bytes:
        """Return `record` as a line.

        Args:
            record: the event, or what else is in the lines.
            hide: removes secrets from texts.
        """
        cls = type(record)
        if cls in self._with_text:
            texts = {name: hide(text) for name in ("error", "reason") if (text := getattr(record, name, ""))}
            record = replace(record, **texts)
        if not all(_is_finite(getattr(record, name)) for name in cls.__dataclass_fields__):
            # JSON has no such numbers: they are texts in the file.
            return _ENCODER.encode((cls.__name__, _without_special(asdict(record)))) + b"\n"
        return _ENCODER.encode((cls.__name__, record)) + b"\n"

    def decode(self, line: bytes) -> Any:
        """Return what is in a line; `None` for a kind that this release does not know.

        Raises:
            RunError: the line is none of these.
        """
        try:
            name, raw = _LINE.decode(line)
            if name not in self._decoders:
                return None
            with contextlib.suppress(msgspec.ValidationError):
                return self._decoders[name].decode(raw)
            return msgspec.convert(_with_special(msgspec.json.decode(raw)), self._classes[name])
        except msgspec.MsgspecError as error:
            raise RunError(f"Expected an event on each line. Received: {line[:100]!r}: {error}") from error


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return True


def _without_special(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_special(part) for name, part in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _with_special(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_special(part) for name, part in value.items()}
    return _SPECIAL.get(value, value) if isinstance(value, str) else value


def numbers_in(folder: Folder, name: str) -> list[int]:
    """Return the numbers of the files in the folder `name` of a run, in order."""
    found = map(_NAME.fullmatch, folder.names(name))
    return sorted(int(match[1]) for match in found if match is not None)


def file_of(name: str, number: int) -> str:
    """Return the path of a file in the folder of a run."""
    return f"{name}/{number:05d}.jsonl"


class Tail:
    """Reads the lines of a folder, also while they are written.

    A line that is half written is read when it is whole. Where another file follows it never will be: its
    writer was killed.

    Args:
        folder: the folder of the run.
        name: name of the folder in it.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._number, self._offset = 0, 0

    def new(self) -> Iterator[tuple[str, bytes]]:
        """Yield the lines since the last call, each with its file and place."""
        for number in numbers_in(self._folder, self._name):
            if number < self._number or (number == self._number and not self._folder.appends):
                continue
            if number > self._number:
                self._number, self._offset = number, 0
            name = file_of(self._name, number)
            with self._folder.reading(name) as path, path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if line.endswith(b"\n"):
                        where = f"{name}, byte {self._offset}"
                        self._offset += len(line)
                        yield where, line
