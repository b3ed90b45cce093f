"""Codecs that encode a vector in chunks, each in a core's cache, so that memory is read and written once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import BLOCK, CHUNK, Bytes, Codec
from distkeras.wire.codecs.compiled import choose


@dataclass(frozen=True)
class Field:
    """One array in an encoded vector.

    Attributes:
        dtype: little-endian data type of its entries.
        width: elements of the vector per entry.
    """

    dtype: np.dtype[Any]
    width: int

    def num_entries(self, size: int) -> int:
        """Return the number of entries for a vector of `size` elements."""
        return -(-size // self.width)


@dataclass(frozen=True)
class ChunkedCodec(Codec):
    """A codec whose encoded vector is a sequence of arrays, with entries for every so many elements.

    A chunk has at most `CHUNK` elements, and is whole blocks of `BLOCK` elements or a part of one. Both
    methods get the chunk's entries of each field. Compiled kernels of the same arguments take their place
    where there are any (see `distkeras.wire.codecs.compiled`), and must give the same bits.
    """

    fields: ClassVar[tuple[Field, ...]]
    """The arrays of an encoded vector, in their order."""

    @abstractmethod
    def encode_chunk(self, chunk: Vector, *entries_and_decoded: Any) -> None:
        """Write `chunk` to its entries, and what `decode_chunk` makes of them to the last argument.

        The last argument is another array than `chunk`. NumPy's floating-point warnings are off.
        """

    @abstractmethod
    def decode_chunk(self, *entries_and_decoded: Any) -> None:
        """Write the chunk encoded in the entries to the last argument. NumPy's warnings are off."""

    @final
    def encoded_bytes(self, size: int) -> int:
        """Return the number of bytes of an encoded vector of `size` elements."""
        return sum(field.dtype.itemsize * field.num_entries(size) for field in self.fields)

    @final
    def encode(self, vector: Vector, out: Bytes) -> None:
        """Write `vector` to `out`, shape (encoded_bytes(vector.size),); little-endian on every machine."""
        spare = np.empty((2, min(CHUNK, vector.size)), np.float32)
        with np.errstate(all="ignore"):
            for place, encode in encoders(self, out, vector.size):
                chunk, decoded = spare[:, : place.stop - place.start]
                np.copyto(chunk, vector[place])  # A kernel takes no read-only array.
                encode(chunk, decoded)

    @final
    def decode(self, data: Bytes, out: Vector) -> None:
        """Write the vector encoded in `data` to `out`, which has the size of the encoded vector."""
        with np.errstate(all="ignore"):
            for place, decode in decoders(self, data, out.size):
                decode(out[place])


def encoders(
    codec: Codec, data: Bytes, size: int
) -> Iterator[tuple[slice, Callable[[Vector, Vector], object]]]:
    """Yield the pieces of a vector, in order, and the function that encodes each to `data`.

    Args:
        codec: a codec; one that is not a `ChunkedCodec` gets the whole vector as one piece.
        data: bytes of the whole encoded vector, shape (codec.encoded_bytes(size),).
        size: number of elements of the vector.

    Yields:
        The elements of the piece, and a function that encodes a piece and writes what decoding gives to its
        second argument, which is another array.
    """
    if not isinstance(codec, ChunkedCodec):

        def encode_all(vector: Vector, decoded: Vector) -> None:
            codec.encode(vector, data)
            codec.decode(data, decoded)

        yield slice(0, size), encode_all
        return
    arrays = _arrays(codec, data, size)
    encode_chunk = choose(f"{codec.name}_encode", codec.encode_chunk, arrays)
    for place in _places(size):
        entries = _entries(codec, arrays, place)
        yield place, partial(_encode_chunk, encode_chunk, entries)


def decoders(codec: Codec, data: Bytes, size: int) -> Iterator[tuple[slice, Callable[[Vector], object]]]:
    """Yield the pieces of a vector, in order, and the function that writes each, as decoded from `data`.

    Args:
        codec: a codec; one that is not a `ChunkedCodec` decodes the whole vector as one piece.
        data: bytes of the whole encoded vector, shape (codec.encoded_bytes(size),).
        size: number of elements of the vector.

    Raises:
        CodecError: the function refuses `data`.
    """
    if not isinstance(codec, ChunkedCodec):
        yield slice(0, size), lambda out: codec.decode(data, out)
        return
    arrays = _arrays(codec, data, size)
    decode_chunk = choose(f"{codec.name}_decode", codec.decode_chunk, arrays)
    for place in _places(size):
        entries = _entries(codec, arrays, place)
        yield place, partial(decode_chunk, *entries)


def _encode_chunk(
    encode_chunk: Callable[..., object], entries: list[Any], chunk: Vector, decoded: Vector
) -> None:
    encode_chunk(chunk, *entries, decoded)


def rows(vector: Any) -> Any:
    """Return a chunk as one row a block: its blocks, or the one partial block."""
    return vector.reshape(-1, BLOCK if vector.size % BLOCK == 0 else vector.size)


def _places(size: int) -> Iterator[slice]:
    whole = size - size % BLOCK
    for low in range(0, whole, CHUNK):
        yield slice(low, min(low + CHUNK, whole))
    if whole < size:
        yield slice(whole, size)


def _arrays(codec: ChunkedCodec, data: Bytes, size: int) -> list[Any]:
    """Return views of the fields of an encoded vector."""
    arrays, low = [], 0
    for field in codec.fields:
        high = low + field.dtype.itemsize * field.num_entries(size)
        arrays.append(data[low:high].view(field.dtype))
        low = high
    return arrays


def _entries(codec: ChunkedCodec, arrays: list[Any], place: slice) -> list[Any]:
    """Return the entries of one chunk in each field. A chunk begins at a multiple of every width."""
    return [
        array[place.start // field.width : field.num_entries(place.stop)]
        for field, array in zip(codec.fields, arrays, strict=True)
    ]
