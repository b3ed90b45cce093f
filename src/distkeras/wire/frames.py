"""Frames: a fixed header, a little JSON, and at most one float32 vector. Nothing is ever unpickled.

    magic 3 | version 1 | kind 1 | codec 1 | text length 4 | vector bytes 8 | checksum 4   (big-endian)
    text: the message's fields as a JSON object, UTF-8
    vector: little-endian float32; where the codec is not 0, what that codec made of a message or reply
    checksum: 0, or where the job asks for one, the CRC-32 of all the rest

A frame's kind decides which fields it has and whether it carries a vector; every length is checked before
a byte of it is read.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import types
import typing
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras import events
from distkeras.algorithms import Vector
from distkeras.center import messages
from distkeras.center.messages import MAX_PAGE

MAGIC = b"DKF"
VERSION = 2
HEADER = struct.Struct("!3sBBBIQI")
_BEFORE_CHECKSUM = struct.Struct("!3sBBBIQ")
_CHECKSUM = struct.Struct("!I")
MAX_REQUEST_TEXT = 64 * 2**10
# A page of events, each of which came to the server as the text of a request.
MAX_REPLY_TEXT = MAX_PAGE * MAX_REQUEST_TEXT
# Characters of an error: JSON may write one as six bytes.
MAX_ERROR = MAX_REQUEST_TEXT // 8
MAX_INTEGER = 2**63
UNCODED = 0
_LITTLE_FLOAT = np.dtype("<f4")


class FrameError(Exception):
    """Bytes that are no frame of this protocol. The connection that brought them is closed."""


class TextTooLong(FrameError):
    """A message of one's own that the other side would not take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped:
    """The server's last word: nobody is to commit any more, or, where `replaced`, not the one who is told."""

    reason: str
    replaced: bool = False


Message = messages.Request | messages.Reply | Stopped

Form = tuple[int, int]
"""Number of a codec, and bytes of a vector in it."""

REQUESTS: dict[int, type] = dict(enumerate(typing.get_args(messages.Request), start=1))
REPLIES: dict[int, type] = dict(enumerate((*typing.get_args(messages.Reply), Stopped), start=65))
_KIND_OF = {cls: kind for kind, cls in (REQUESTS | REPLIES).items()}
_EVENTS = {cls.__name__: cls for cls in typing.get_args(events.Event)}


def _schema(cls: type) -> tuple[str | None, dict[str, Any]]:
    """The name of the field that holds the vector, if any, and the types of the others."""
    hints = typing.get_type_hints(cls)
    vectors = [name for name, hint in hints.items() if hint == Vector]
    binary = (Vector, messages.Encoded | None)
    return (vectors[0] if vectors else None), {
        name: hint for name, hint in hints.items() if hint not in binary
    }


_SCHEMAS = {cls: _schema(cls) for cls in (*_KIND_OF, *_EVENTS.values())}


def vector_of(message: Message) -> Vector | None:
    """Return the vector in `message`; `None` where it has none."""
    name, _ = _SCHEMAS[type(message)]
    return None if name is None else getattr(message, name)


def encode(
    message: Message, checksum: bool = False, encoded: messages.Encoded | None = None
) -> tuple[bytes, npt.NDArray[Any] | None]:
    """Return header and text as bytes, and the vector that follows them: float32, or a codec's bytes.

    Args:
        message: what to send.
        checksum: whether the job asks for checksums.
        encoded: what travels in place of its vector; default: what an `Exchange` says itself.

    Raises:
        TextTooLong: the text is longer than the other side takes.
    """
    vector_field, fields = _SCHEMAS[type(message)]
    limit = MAX_REQUEST_TEXT if type(message) in REQUESTS.values() else MAX_REPLY_TEXT
    text = json.dumps({name: _plain(getattr(message, name)) for name in fields}).encode()
    if len(text) > limit:
        raise TextTooLong(
            f"Expected at most {limit} bytes of text in a {type(message).__name__}, a few metrics of "
            f"one number each. Received: {len(text)} bytes"
        )
    vector: npt.NDArray[Any] | None = None
    codec = UNCODED
    if isinstance(message, messages.Exchange):
        encoded = encoded or message.encoded
    if encoded is not None:
        codec, vector = encoded.codec, encoded.data
    elif vector_field is not None:
        vector = np.ascontiguousarray(getattr(message, vector_field), _LITTLE_FLOAT)
    length = 0 if vector is None else vector.nbytes
    start = _BEFORE_CHECKSUM.pack(MAGIC, VERSION, _KIND_OF[type(message)], codec, len(text), length)
    return start + _CHECKSUM.pack(_checksum(start, text, vector) if checksum else 0) + text, vector


def _checksum(start: bytes, text: bytes, vector: npt.NDArray[Any] | None) -> int:
    checksum = zlib.crc32(text, zlib.crc32(start))
    return checksum if vector is None else zlib.crc32(vector.data, checksum)


def check(header: bytes, text: bytes, vector: npt.NDArray[Any] | None, checksum: bool) -> None:
    """Raise FrameError unless the frame's checksum is right: 0 where the job asks for none.

    Args:
        header: `HEADER.size` bytes.
        text: as it arrived.
        vector: what follows the text, as it arrived; `None` for frames without one.
        checksum: whether the job asks for checksums.
    """
    (received,) = _CHECKSUM.unpack(header[-_CHECKSUM.size :])
    expected = _checksum(header[: -_CHECKSUM.size], text, vector) if checksum else 0
    if received != expected:
        raise FrameError(
            f"Expected checksum {expected}; the frame was damaged on its way. Received: {received}"
        )


def parse_header(
    header: bytes,
    kinds: dict[int, type],
    max_text: int,
    vector_bytes: int,
    forms: Mapping[type, Sequence[Form]] = types.MappingProxyType({}),
) -> tuple[type, int, Form]:
    """Return the frame's type, the length of its text, and codec and length of its vector.

    Args:
        header: `HEADER.size` bytes.
        kinds: what may come: `REQUESTS` or `REPLIES`.
        max_text: most bytes of text.
        vector_bytes: exact size of the vector of those frames that have one.
        forms: that the vectors of some types may have, where those are not plain float32 of that size.

    Raises:
        FrameError: anything that is not exactly as it must be.
    """
    magic, version, kind, codec, text_length, length, _ = HEADER.unpack(header)
    if (magic, version) != (MAGIC, VERSION):
        raise FrameError(f"Expected a {MAGIC!r} frame of version {VERSION}. Received: {header!r}")
    cls = kinds.get(kind)
    if cls is None:
        raise FrameError(f"Expected a frame of kind {sorted(kinds)}. Received: kind={kind}")
    if text_length > max_text:
        raise FrameError(f"Expected at most {max_text} bytes of text. Received: {text_length}")
    expected = dict(forms.get(cls) or [(UNCODED, 0 if _SCHEMAS[cls][0] is None else vector_bytes)])
    if codec not in expected:
        known = " or ".join(map(str, expected))
        raise FrameError(f"Expected codec {known} in a {cls.__name__}. Received: {codec}")
    if length != expected[codec]:
        raise FrameError(
            f"Expected {expected[codec]} bytes of vector in a {cls.__name__}. Received: {length}"
        )
    return cls, text_length, (codec, length)


def parse(cls: type, text: bytes, vector: Vector | None) -> Any:
    """Return the message of type `cls`.

    Raises:
        FrameError: the text is not a JSON object of exactly the fields of `cls`, each of its type.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"Expected JSON in a {cls.__name__}: {error}") from error
    vector_field, _ = _SCHEMAS[cls]
    fields = _checked(cls, values)
    if vector_field is not None:
        fields[vector_field] = vector
    return cls(**fields)


def _checked(cls: type, values: Any) -> dict[str, Any]:
    _, hints = _SCHEMAS[cls]
    if not isinstance(values, dict) or values.keys() != hints.keys():
        raise FrameError(f"Expected the fields {list(hints)} in a {cls.__name__}. Received: {values!r:.200}")
    return {name: _typed(hint, values[name], f"{cls.__name__}.{name}") for name, hint in hints.items()}


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Return `value` if it is of type `hint`, one of the few that messages are made of."""
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (str, bool) and type(value) is hint:
        return value
    # Larger ones fit no counter, and would raise in the middle of the arithmetic.
    if hint is int and type(value) is int and -MAX_INTEGER <= value < MAX_INTEGER:
        return value
    # Only now: most fields are plain ones, and to ask takes as long as all the rest.
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict and isinstance(value, dict):
        return {_typed(args[0], key, where): _typed(args[1], item, where) for key, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_typed(args[0], item, where) for item in value]
    if origin is types.UnionType and isinstance(value, list) and len(value) == 2:
        event = _EVENTS.get(value[0]) if isinstance(value[0], str) else None
        if event is not None:
            return event(**_checked(event, value[1]))
    raise FrameError(f"Expected {hint} in {where}. Received: {value!r:.200}")


def _plain(value: Any) -> Any:
    """`value` as JSON has it; an event as its name and its fields."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    name = type(value).__name__
    return [name, dataclasses.asdict(value)] if name in _EVENTS else value
