"""A worker's state that the center does not hold, as bytes: names, types, shapes and numbers, and no code."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes  # It registers bfloat16 with NumPy.
import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAGIC = b"distkeras state 1\n"
MAX_HEADER = 64 * 2**20
"""Most bytes of the names, types and shapes."""

_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in (
        *(bool, np.float16, np.float32, np.float64, ml_dtypes.bfloat16),
        *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
        *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4, ml_dtypes.uint4),
    )
}


class _Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    group: str
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LocalState:
    """The state after a window that a process needs, besides the center, to go on as this worker.

    Attributes:
        variables: variables of the model that training changed and that are not in the center, by path.
        optimizer: values of the optimizer's variables, in their order.
        metrics: values of the variables of the metrics over the last epoch so far, in their order; empty
            before the last epoch.
        further: state that only a worker has, such as the velocities of an algorithm's momentum, by name.
        start: "place", the number of the last window, and epoch and step of the next minibatch; and
            "weights", shape (size,), if windows after this state may have to be repeated.
    """

    variables: dict[str, Array] = field(default_factory=dict)
    optimizer: list[Array] = field(default_factory=list)
    metrics: list[Array] = field(default_factory=list)
    further: dict[str, Array] = field(default_factory=dict)
    start: dict[str, Array] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int, int]:
        """Number of the last window, and epoch and step of the next minibatch; zeros if not known."""
        sequence, epoch, step = (int(each) for each in self.start.get("place", (0, 0, 0)))
        return sequence, epoch, step

    def packed(self) -> bytes:
        """Return the state as bytes.

        Raises:
            TypeError: an array holds no numbers.
        """
        entries = [_Entry(group, name, array.dtype.name, array.shape) for group, name, array in self._named()]
        for entry in entries:
            if entry.dtype not in _DTYPES:
                raise TypeError(f"Expected an array of numbers. Received: {entry.name!r} of {entry.dtype}")
        header = msgspec.msgpack.encode(entries)
        arrays = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for _, _, array in self._named())
        return b"".join([MAGIC, len(header).to_bytes(4, "little"), header, *(array.data for array in arrays)])

    @classmethod
    def of(cls, data: bytes) -> LocalState:
        """Return the state from its bytes; its arrays may not be changed.

        Raises:
            ValueError: the bytes are no such state.
        """
        entries, first = _header_of(data)
        state = cls()
        for entry in entries:
            dtype = _DTYPES.get(entry.dtype)
            if dtype is None or any(length < 0 for length in entry.shape):
                raise _not_a_state(f"an array of type {entry.dtype!r} and shape {entry.shape}")
            end = first + math.prod(entry.shape) * dtype.itemsize
            if end > len(data):
                raise _not_a_state(f"{len(data)} bytes, where an array ends at {end}")
            try:
                array = np.frombuffer(data, dtype, math.prod(entry.shape), first).reshape(entry.shape)
            except ValueError as error:  # Such as more axes than NumPy has.
                raise _not_a_state(str(error)) from error
            state._put(entry, array)
            first = end
        if first != len(data):
            raise _not_a_state(f"{len(data) - first} bytes after the last array")
        return state

    def _put(self, entry: _Entry, array: Array) -> None:
        match entry.group:
            case "variables":
                self.variables[entry.name] = array
            case "further":
                self.further[entry.name] = array
            case "start":
                self.start[entry.name] = array
            case "optimizer":
                self.optimizer.append(array)
            case "metrics":
                self.metrics.append(array)
            case _:
                raise _not_a_state(f"an array of the group {entry.group!r}")

    def _named(self) -> Iterator[tuple[str, str, Array]]:
        yield from (("variables", path, array) for path, array in self.variables.items())
        yield from (("optimizer", "", array) for array in self.optimizer)
        yield from (("metrics", "", array) for array in self.metrics)
        yield from (("further", name, array) for name, array in self.further.items())
        yield from (("start", name, array) for name, array in self.start.items())


def _header_of(data: bytes) -> tuple[list[_Entry], int]:
    """Return the entries, and where the first array begins."""
    start = len(MAGIC) + 4
    if not data.startswith(MAGIC) or len(data) < start:
        raise _not_a_state(f"{len(data)} bytes that begin with {data[: len(MAGIC)]!r}")
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    if size > min(MAX_HEADER, len(data) - start):
        raise _not_a_state(f"a header of {size} bytes in {len(data)}")
    try:
        return msgspec.msgpack.decode(data[start : start + size], type=list[_Entry]), start + size
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_a_state(str(error)) from error


def _not_a_state(received: str) -> ValueError:
    return ValueError(
        "Expected the local state of a worker, as this version of Distributed Keras writes it. "
        f"Received: {received}"
    )
