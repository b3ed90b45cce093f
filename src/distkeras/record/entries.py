"""The record of a center: a file of every request, in the order in which it was handled. The file only grows.

    file:  magic 8, then entries
    entry: length of text 4 | bytes of vector 8 | CRC-32 of both 4   (big-endian), text, vector
    text:  JSON; `kind` is "begin", "restart", "step" or "outcome"

"begin" holds the center's settings and its first vector. "restart" holds the settings and the snapshot from
which a restarted server continued. A "step" is one request; its vector is the message as it reached the
center, and of a `Report` the data is left out. An "outcome" follows its step: the answers, by worker, with a
CRC-32 of each vector that was sent.
"""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import typing
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.center.answers import Answer, Exchanged, Joined, LogEntry, Pulled, Skipped
from distkeras.center.orders import Orders
from distkeras.center.requests import (
    Beat,
    Dismiss,
    Exchange,
    Fail,
    Join,
    Keep,
    Leave,
    Order,
    Pull,
    Report,
    Write,
)
from distkeras.events import Timing, WorkerAbout

MAGIC = b"DKRECORD"
VERSION = 1
FILE = "server-{}.record"
"""File name of one server's record in the folder of a job."""
_FILE = re.compile(r"server-(\d+)\.record")
_HEAD = struct.Struct("!IQI")


class RecordError(ValueError):
    """The file is not a record, comes from a later version, or is damaged."""


@dataclass(frozen=True)
class Silence:
    """A worker has sent nothing for `seconds` and counts as lost."""

    worker: int
    seconds: float


@dataclass(frozen=True)
class GraceOver:
    """The server looked at the center, because the grace of the open round was over."""


Recordable = (
    Join
    | Exchange
    | Leave
    | Beat
    | Fail
    | Pull
    | Order
    | Keep
    | Write
    | Report
    | Dismiss
    | Silence
    | GraceOver
)
"""The types of a record's steps."""
_VECTORS: dict[type, str] = {Exchange: "message", Write: "center"}
"""The names of their vectors."""
_STEPS: dict[str, Any] = {cls.__name__: cls for cls in typing.get_args(Recordable)}


@dataclass(frozen=True)
class Told:
    """The answer to one worker at a step.

    Attributes:
        worker: index of the worker; -1 for the driver.
        reply: name of the reply's class.
        staleness: staleness of the answered commit; 0 for other replies.
        checksum: CRC-32 of the vector that was sent; 0 for no vector.
        orders: the orders that were sent; `None` for no orders.
    """

    worker: int
    reply: str
    staleness: int
    checksum: int
    orders: Orders | None = None


@dataclass(frozen=True)
class Step:
    """One request that a center has handled.

    Attributes:
        number: number of the step in the record, from 0.
        time: seconds since the Unix epoch.
        request: the request. The message of an `Exchange` is as it reached the center.
        told: the answers, by worker; `None` if the server was killed during the step or `error` is set.
        error: name of the exception that the request raised; `None` for no exception.
        given: what the first of several servers decided; `None` at the first one.
    """

    number: int
    time: float
    request: Recordable
    told: tuple[Told, ...] | None = None
    error: str | None = None
    given: LogEntry | None = None


@dataclass(frozen=True)
class Start:
    """A server's start.

    Attributes:
        settings: settings of the server's center, plain JSON.
        vector: the first center; for a restart, the snapshot as bytes.
        restart: whether the server continues from a snapshot.
    """

    settings: dict[str, Any]
    vector: npt.NDArray[Any]
    restart: bool


class RecordWriter:
    """Appends to a record. Cuts off a half-written entry of a killed process first.

    Args:
        path: path of the file, which is created if it does not exist.

    Raises:
        RecordError: the file is not a record, or comes from a later version.
        OSError: the file cannot be written to.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        # Unbuffered: bytes handed to the system outlive a killed process, and bytes that a full disk refused
        # are not tried again.
        self._file: IO[bytes] = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._end = _end_of(self._file)
        self._file.truncate(self._end)
        if self._end == 0:
            self._write(MAGIC)
            self._end = len(MAGIC)

    def start(self, settings: Mapping[str, Any], vector: npt.NDArray[Any], *, restart: bool) -> None:
        """Append a server's start; see `Start` for the arguments."""
        self._append({"kind": "restart" if restart else "begin", "version": VERSION, **settings}, vector)

    def step(self, request: Recordable, time: float, given: LogEntry | None = None) -> None:
        """Append a request. Call it before handling the request: the center may overwrite its message."""
        vector = _sent_with(request)
        fields = {name: getattr(request, name) for name in _names(type(request))}
        if "states" in fields:
            fields["states"] = base64.b64encode(fields["states"]).decode()
        if isinstance(request, Report):
            fields["report"] = fields.pop("kind")
        if isinstance(request, Join) and request.about is not None:
            fields["about"] = asdict(request.about)
        if given is not None:
            fields["given"] = list(asdict(given).values())
        self._append({"kind": "step", "time": time, "type": type(request).__name__, **fields}, vector)

    def outcome(self, answers: list[Answer]) -> None:
        """Append the answers to the last request."""
        self._append({"kind": "outcome", "told": [list(asdict(told).values()) for told in told_by(answers)]})

    def failed(self, error: BaseException) -> None:
        """Append that the last request raised `error`."""
        self._append({"kind": "outcome", "error": type(error).__name__})

    def close(self) -> None:
        """Close the file, without a half-written entry."""
        try:
            self._file.truncate(self._end)
        finally:
            self._file.close()

    def _append(self, text: dict[str, Any], vector: npt.NDArray[Any] | None = None) -> None:
        head = json.dumps(text).encode()
        data = memoryview(b"") if vector is None else _little(vector).data.cast("B")
        checksum = zlib.crc32(data, zlib.crc32(head))
        self._write(_HEAD.pack(len(head), data.nbytes, checksum) + head)
        self._write(data)
        self._end += _HEAD.size + len(head) + data.nbytes

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]


def told_by(answers: list[Answer]) -> list[Told]:
    """Return a summary of `answers`."""
    checksums: dict[int, int] = {}  # The workers of a round receive the same vector.
    told = []
    for worker, reply in answers:
        vector = _vector_of(reply)
        checksum = 0
        if vector is not None:
            known = checksums.get(id(vector))
            checksum = zlib.crc32(_little(vector).data.cast("B")) if known is None else known
            checksums[id(vector)] = checksum
        staleness = reply.staleness if isinstance(reply, Exchanged) else 0
        orders: Orders | None = getattr(reply, "orders", None)
        told.append(Told(worker, type(reply).__name__, staleness, checksum, orders))
    return told


def records_in(folder: str) -> list[str]:
    """Return the paths of the records in `folder`, in the order of their servers."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = {int(match[1]): name for name in names if (match := _FILE.fullmatch(name))}
    return [os.path.join(folder, found[index]) for index in sorted(found)]


def read_record(path: str) -> Iterator[Start | Step]:
    """Yield the starts and steps of a record, in order. Only one vector is in memory at a time.

    A truncated last entry is left out: its server was killed while it wrote it.

    Args:
        path: path of the file.

    Raises:
        RecordError: the file is not a record, comes from a later version, or is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        _check_magic(file)
        number, dtype = 0, np.dtype("<f4")
        pending: Step | None = None
        for text, data in _entries(file):
            kind = text.pop("kind")
            if kind == "outcome" and pending is not None:
                told = text.get("told")
                known = None if told is None else tuple(map(_told, told))
                yield replace(pending, told=known, error=text.get("error"))
                pending = None
                continue
            if pending is not None:
                yield pending
                pending = None
            if kind == "step":
                pending = _step(number, text, np.frombuffer(data, dtype))
                number += 1
            else:
                dtype = np.dtype(text["dtype"]).newbyteorder("<")
                yield _start(kind, text, data, dtype)
        if pending is not None:
            yield pending


def _entries(file: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytearray]]:
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        text_length, vector_length, checksum = _HEAD.unpack(head)
        at = file.tell()
        if _size_of(file) < at + text_length + vector_length:
            return
        text, data = file.read(text_length), bytearray(vector_length)
        file.readinto(data)  # type: ignore[attr-defined]  # a BufferedReader
        if zlib.crc32(data, zlib.crc32(text)) != checksum:
            raise RecordError(f"Expected a whole entry. Received: a damaged one, at byte {at}")
        yield json.loads(text), data


def _step(number: int, text: dict[str, Any], vector: Vector) -> Step:
    time, name, given = text.pop("time"), text.pop("type"), text.pop("given", None)
    cls = _STEPS[name]
    if cls is Order:
        text["orders"] = Orders(*text["orders"])
    if cls is Exchange:
        text["states"] = base64.b64decode(text.get("states", ""))
        if (timing := text.get("timing")) is not None:
            text["timing"] = Timing(*timing)
    if cls is Join and text.get("about") is not None:
        text["about"] = WorkerAbout(**text["about"])
    if cls is Report:
        text |= {"kind": text.pop("report"), "data": b""}
    if cls in _VECTORS:
        text[_VECTORS[cls]] = vector.astype(vector.dtype.newbyteorder("="), copy=False)
    return Step(number, time, cls(**text), given=None if given is None else LogEntry(*given))


def _told(values: list[Any]) -> Told:
    *rest, orders = values if len(values) > 4 else [*values, None]  # Earlier records have no orders.
    told = Told(*rest)
    return told if orders is None else replace(told, orders=Orders(*orders))


def _start(kind: str, text: dict[str, Any], data: bytearray, dtype: np.dtype[Any]) -> Start:
    if text.pop("version") != VERSION:
        raise RecordError(
            f"Expected a record of version {VERSION}, as this version of distkeras writes. Received: "
            f"{str(text)[:100]}"
        )
    restart = kind == "restart"
    vector = np.frombuffer(data, np.uint8 if restart else dtype)
    if not restart:
        vector = vector.reshape(text["shape"]).astype(dtype.newbyteorder("="), copy=False)
    return Start(text, vector, restart)


def _end_of(file: IO[bytes]) -> int:
    """Return the end of the last whole entry; 0 for an empty file."""
    size = _size_of(file)
    file.seek(0)
    if size < len(MAGIC) and MAGIC.startswith(file.read()):
        return 0
    file.seek(0)
    _check_magic(file)
    end = file.tell()
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        text_length, vector_length, _ = _HEAD.unpack(head)
        following = end + _HEAD.size + text_length + vector_length
        if following > size:
            break
        end = following
        file.seek(end)
    return end


def _check_magic(file: IO[bytes]) -> None:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise RecordError(f"Expected a file that a server wrote with record=... Received: {file.name}")


def _size_of(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _names(cls: type) -> list[str]:
    """Return the fields of a request that are in the text. That of a report leaves out its data."""
    left_out = (_VECTORS.get(cls), "data")
    return [name for name in cls.__dataclass_fields__ if name not in left_out]  # type: ignore[attr-defined]


def _sent_with(request: Recordable) -> Vector | None:
    if isinstance(request, Exchange):
        return request.message
    return request.center if isinstance(request, Write) else None


def _vector_of(reply: object) -> Vector | None:
    if isinstance(reply, Exchanged):
        return reply.reply
    return reply.center if isinstance(reply, Joined | Skipped | Pulled) else None


def _little(vector: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(vector, vector.dtype.newbyteorder("<"))
