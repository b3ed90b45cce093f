"""Frames: a fixed header, a short MessagePack text, and at most one vector of floats. Nothing is unpickled.

    magic 3 | version 1 | kind 1 | codec 1 | text length 4 | vector bytes 8 | checksum 4   (big-endian)
    text: the message's fields except the vector, in order, as a MessagePack array
    zeros, up to a multiple of 64 bytes from the start of the frame
    vector: little-endian float32, or float64 in jobs that use it; if the codec is not 0, the bytes that the
        codec made of it
    checksum: 0, or if the job asks for checksums, the CRC-32 of everything else

A frame's kind decides which fields it has and whether it carries a vector. Every length is checked before
its bytes are read.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import struct
import types
import typing
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from distkeras import events
from distkeras.algorithms import Vector
from distkeras.center import answers, requests
from distkeras.center.answers import MAX_PAGE_BYTES
from distkeras.center.requests import MAX_STATES

MAGIC = b"DKF"
VERSION = 7
HEADER = struct.Struct("!3sBBBIQI")
CHECKSUM = struct.Struct("!I")
_NO_CHECKSUM = bytes(CHECKSUM.size)
MAX_METRICS = 512 * 2**10
# The metrics of a commit and their states; or one part of a report.
MAX_REQUEST_TEXT = MAX_METRICS + MAX_STATES
# A page of events. The largest events came to the server as the text of a request, without name and time.
MAX_REPLY_TEXT = MAX_PAGE_BYTES + MAX_REQUEST_TEXT
MAX_ERROR = 8 * 2**10
LEFT_OUT = "metrics_left_out"
# Larger integers fit no counter, and would raise in the middle of the arithmetic.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
UNCODED = 0
# Alignment of a vector in the stream, and so in the kernel's memory. After 24 to 32 bytes its offset in the
# page would differ from that of NumPy's memory, and the copy would run at a third to a half of the speed.
ALIGNMENT = 64
_LITTLE: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}


class FrameError(Exception):
    """The bytes are not a valid frame of this protocol. The connection is closed."""


class TextTooLong(FrameError):
    """The message is too long: the other side would refuse it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """The server's last message: the job is over or, if `replaced`, over for the receiver."""

    reason: str
    replaced: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded vector, as it travels in a job with compression: number of its codec, and its bytes."""

    codec: int
    data: npt.NDArray[np.uint8]


Message = requests.Request | answers.Reply | Stopped

Form = tuple[int, int]
"""Number of a codec, and bytes of an encoded vector."""

REQUESTS: dict[int, type] = dict(enumerate(typing.get_args(requests.Request), start=1))
REPLIES: dict[int, type] = dict(enumerate((*typing.get_args(answers.Reply), Stopped), start=65))


@dataclasses.dataclass(frozen=True, slots=True)
class _Schema:
    """How a frame holds messages of one type.

    Attributes:
        kind: number of the type.
        max_text: most bytes of text that the other side accepts.
        vector: name of the field that holds the vector; `None` for none.
        values: returns the other fields of a message, in the order of the text.
        decoder: decodes them; it refuses anything but exactly these fields, each of its type.
        build: makes a message from these fields and the vector.
    """

    kind: int
    max_text: int
    vector: str | None
    values: Callable[[Any], Sequence[Any]]
    decoder: msgspec.msgpack.Decoder[Any]
    build: Callable[[Sequence[Any], Vector | None], Any]


def _hints(cls: type) -> dict[str, Any]:
    return {name: Integer if hint is int else hint for name, hint in typing.get_type_hints(cls).items()}


def _values_of(names: list[str]) -> Callable[[Any], Sequence[Any]]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda record: [getattr(record, name) for name in names]


def _schema(cls: type, kind: int, max_text: int) -> _Schema:
    hints = _hints(cls)
    vector = next((name for name, hint in hints.items() if hint == Vector), None)
    place = len(hints) if vector is None else list(hints).index(vector)
    texts = {name: hint for name, hint in hints.items() if hint != Vector}

    def build(values: Sequence[Any], array: Vector | None) -> Any:
        return cls(*values) if vector is None else cls(*values[:place], array, *values[place:])

    decoder = msgspec.msgpack.Decoder(tuple[tuple(texts.values())])  # type: ignore[misc]
    return _Schema(kind, max_text, vector, _values_of(list(texts)), decoder, build)


def _page_schema(kind: int, max_text: int) -> _Schema:
    """Return the schema of `Polled`. An event is an array of its name and its fields."""
    hints = {cls: _hints(cls) for cls in typing.get_args(events.Event)}
    values = {cls: _values_of(list(fields)) for cls, fields in hints.items()}
    texts = {
        cls: msgspec.defstruct(
            cls.__name__, list(fields.items()), tag=True, array_like=True, forbid_unknown_fields=True
        )
        for cls, fields in hints.items()
    }
    classes = {text: cls for cls, text in texts.items()}

    def list_events(page: answers.Polled) -> Sequence[Any]:
        listed = [[type(event).__name__, *values[type(event)](event)] for event in page.events]
        return listed, page.next, page.num_updates

    def build(page: Sequence[Any], _: Vector | None) -> answers.Polled:
        listed, following, num_updates = page
        found = [classes[type(text)](*msgspec.structs.astuple(text)) for text in listed]
        return answers.Polled(found, following, num_updates)

    event = functools.reduce(operator.or_, classes)
    decoder = msgspec.msgpack.Decoder(tuple[list[event], Integer, Integer])  # type: ignore[valid-type]
    return _Schema(kind, max_text, None, list_events, decoder, build)


_ENCODER = msgspec.msgpack.Encoder()
_SCHEMAS = {
    cls: _page_schema(kind, max_text) if cls is answers.Polled else _schema(cls, kind, max_text)
    for kinds, max_text in ((REQUESTS, MAX_REQUEST_TEXT), (REPLIES, MAX_REPLY_TEXT))
    for kind, cls in kinds.items()
}


def vector_of(message: Message) -> Vector | None:
    """Return the vector in `message`; `None` if it has none."""
    name = _SCHEMAS[type(message)].vector
    return None if name is None else getattr(message, name)


def error_text(error: str) -> str:
    """Return the end of a traceback, its most useful part, cut to `MAX_ERROR` and valid as UTF-8."""
    # File names may hold bytes that are not UTF-8. A character takes four bytes, or six if escaped.
    return error[-MAX_ERROR:].encode(errors="backslashreplace").decode()


def fitting(metrics: dict[str, float]) -> dict[str, float]:
    """Return the `metrics` that fit into a message, in order, and the number of those left out.

    Several thousand fit. A metric of many numbers, such as a confusion matrix, counts as one per number.
    """
    room = MAX_METRICS - 2**10  # For the other fields, and the last name.
    # A number takes 9 bytes, a character up to 4.
    if 16 * len(metrics) + 4 * sum(map(len, metrics)) <= room:
        return metrics
    kept = sum(size <= room for size in accumulate(16 + 4 * len(name) for name in metrics))
    return dict(islice(metrics.items(), kept)) | {LEFT_OUT: float(len(metrics) - kept)}


def encode(
    message: Message,
    checksum: bool = False,
    encoded: Encoded | None = None,
    dtype: str = "float32",
) -> tuple[bytes, npt.NDArray[Any] | None]:
    """Return the header, text and zeros as bytes, and the vector that follows, or its encoded bytes.

    Args:
        message: the message to send.
        checksum: whether the job asks for checksums.
        encoded: sent in place of the vector; `None` for the vector itself.
        dtype: data type of the vectors.

    Raises:
        TextTooLong: the other side would refuse so long a text.
    """
    schema = _SCHEMAS[type(message)]
    text = _ENCODER.encode(schema.values(message))
    if len(text) > schema.max_text:
        raise TextTooLong(
            f"Expected at most {schema.max_text} bytes of text in a {type(message).__name__}, a few metrics "
            f"of one number each. Received: {len(text)} bytes"
        )
    vector: npt.NDArray[Any] | None = None
    codec = UNCODED
    if encoded is not None:
        codec, vector = encoded.codec, encoded.data
    elif schema.vector is not None:
        vector = np.ascontiguousarray(getattr(message, schema.vector), _LITTLE[dtype])
    length = 0 if vector is None else vector.nbytes
    header = HEADER.pack(MAGIC, VERSION, schema.kind, codec, len(text), length, 0)
    if checksum:
        start = header[: -CHECKSUM.size]
        header = start + CHECKSUM.pack(_checksum(start, text, vector))
    whole = HEADER.size + len(text) + padding_of(len(text))
    return (header + text).ljust(whole, b"\0"), vector


def padding_of(text_length: int) -> int:
    """Return the number of zeros after a text."""
    return -(HEADER.size + text_length) % ALIGNMENT


def _checksum(start: bytes, text: bytes, vector: npt.NDArray[Any] | None) -> int:
    checksum = zlib.crc32(text, zlib.crc32(start))
    return checksum if vector is None else zlib.crc32(vector.data, checksum)


def check(header: bytes, text: bytes, vector: npt.NDArray[Any] | None, checksum: bool) -> None:
    """Raise FrameError unless the frame's checksum is right: 0 if the job does not ask for checksums.

    Args:
        header: `HEADER.size` bytes.
        text: as it arrived.
        vector: the bytes after the text, as they arrived; `None` for frames without a vector.
        checksum: whether the job asks for checksums.
    """
    if not checksum and header.endswith(_NO_CHECKSUM):
        return
    (received,) = CHECKSUM.unpack(header[-CHECKSUM.size :])
    expected = _checksum(header[: -CHECKSUM.size], text, vector) if checksum else 0
    if received != expected:
        raise FrameError(
            f"Expected checksum {expected}; the frame was damaged in transit. Received: {received}"
        )


def parse_header(
    header: bytes,
    kinds: dict[int, type],
    max_text: int,
    vector_bytes: int,
    forms: Mapping[type, Sequence[Form]] = types.MappingProxyType({}),
) -> tuple[type, int, Form]:
    """Return the frame's type, the length of its text, and the codec and length of its vector.

    Args:
        header: `HEADER.size` bytes.
        kinds: types that may arrive: `REQUESTS` or `REPLIES`.
        max_text: most bytes of text.
        vector_bytes: exact size of the vector, for frames that have one.
        forms: forms that the vectors of some types may have instead of plain floats of that size.

    Raises:
        FrameError: any part of the header is not as expected.
    """
    magic, version, kind, codec, text_length, length, _ = HEADER.unpack(header)
    if (magic, version) != (MAGIC, VERSION):
        raise FrameError(f"Expected a {MAGIC!r} frame of version {VERSION}. Received: {header!r}")
    cls = kinds.get(kind)
    if cls is None:
        raise FrameError(f"Expected a frame of kind {sorted(kinds)}. Received: kind={kind}")
    if text_length > max_text:
        raise FrameError(f"Expected at most {max_text} bytes of text. Received: {text_length}")
    form = codec, length
    expected = forms.get(cls) or ((UNCODED, 0 if _SCHEMAS[cls].vector is None else vector_bytes),)
    if form not in expected:
        known = " or ".join(f"{size} bytes of vector in codec {number}" for number, size in expected)
        raise FrameError(f"Expected {known} in a {cls.__name__}. Received: {length} bytes in codec {codec}")
    return cls, text_length, form


def parse(cls: type, text: bytes, vector: Vector | None) -> Any:
    """Return the message of type `cls`.

    Raises:
        FrameError: the text is not an array of exactly the fields of `cls`, each of its type.
    """
    schema = _SCHEMAS[cls]
    try:
        values = schema.decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"Expected the fields of a {cls.__name__}: {error}") from error
    return schema.build(values, vector)
