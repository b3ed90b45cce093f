"""The vectors of single fragments on a connection: their sizes, and the compression of each.

Each fragment has a residual and differences of its own. A whole center, which a worker receives when it joins
or skips a window, travels uncompressed, and all fragments start anew: the next vector of each travels whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center import CenterConfig
from distkeras.center.answers import Exchanged, Joined, Skipped
from distkeras.center.requests import Exchange
from distkeras.wire import frames
from distkeras.wire.codecs import Bytes, Codec, Packing
from distkeras.wire.compression import Compression, packing_of


@dataclass(frozen=True)
class FragmentPacking:
    """How the vectors of single fragments travel.

    Attributes:
        sizes: number of elements, by fragment.
        item_bytes: bytes of one element.
        packings: compression, by fragment; empty for no compression.
    """

    sizes: tuple[int, ...]
    item_bytes: int
    packings: tuple[Packing, ...] = ()

    def load(self) -> None:
        """As `Packing.load`."""
        for packing in self.packings:
            packing.load()


@final
class FragmentCompression:
    """As `Compression`, for jobs with fragments, with or without a codec.

    Args:
        packing: the sizes and the compression of the fragments.
        at_server: whether this is the server's end of a connection.
    """

    def __init__(self, packing: FragmentPacking, *, at_server: bool) -> None:
        self._packing = packing
        self._parts = [Compression(each, at_server=at_server) for each in packing.packings]
        self._arriving = 0

    def connected(self) -> None:
        """Prepare for a new connection."""
        for part in self._parts:
            part.connected()

    def encode(self, message: Exchange) -> None:
        """As `Compression.encode`."""
        if self._parts:
            self._parts[message.fragment].encode(message)

    def pack(self, message: frames.Message) -> frames.Encoded | None:
        """As `Compression.pack`."""
        if isinstance(message, Joined | Skipped):
            self.connected()
        if not self._parts or not isinstance(message, Exchange | Exchanged):
            return None
        return self._parts[message.fragment].pack(message)

    def forms(self, whole: frames.Form) -> dict[type, tuple[frames.Form, ...]]:
        """Return the forms of the vectors that the next frame may have other than `whole`."""
        kinds: tuple[type, ...] = (Exchange, Exchanged)
        every = range(len(self._packing.sizes))
        return {
            kind: tuple(form for fragment in every for form in self._forms_of(kind, fragment))
            for kind in kinds
        }

    def fitted(self, message: Any, form: frames.Form, buffer: Vector) -> Any:
        """Return `message` with the part of `buffer` for its vector, which is still to arrive.

        Raises:
            FrameError: there is no such fragment, or its vector has another form.
        """
        if not isinstance(message, Exchange | Exchanged):
            return message
        sizes, fragment = self._packing.sizes, message.fragment
        if not 0 <= fragment < len(sizes) or form not in self._forms_of(type(message), fragment):
            raise frames.FrameError(
                f"Expected the vector of one of {len(sizes)} fragments. Received: {form[1]} bytes in codec "
                f"{form[0]} for fragment {fragment}"
            )
        self._arriving = fragment
        vector = buffer[: sizes[fragment]]
        if isinstance(message, Exchange):
            return replace(message, message=vector)
        return replace(message, reply=vector)

    def room(self) -> Bytes:
        """Return the buffer for the bytes of the encoded vector that arrives."""
        return self._parts[self._arriving].room()

    def unpack(self, data: Bytes, out: Vector) -> None:
        """As `Compression.unpack`."""
        self._parts[self._arriving].unpack(data, out)

    def take_note(self, message: frames.Message, *, whole: bool) -> None:
        """As `Compression.take_note`."""
        if isinstance(message, Exchange | Exchanged) and self._parts:
            self._parts[message.fragment].take_note(message, whole=whole)
        if isinstance(message, Joined | Skipped):
            for part in self._parts:
                part.take_note(message, whole=False)
            self.connected()

    def _forms_of(self, kind: type, fragment: int) -> tuple[frames.Form, ...]:
        plain = (frames.UNCODED, self._packing.sizes[fragment] * self._packing.item_bytes)
        coded = self._parts[fragment].forms(plain) if self._parts else {}
        return coded.get(kind, (plain,))


AnyPacking = Packing | FragmentPacking
AnyCompression = Compression | FragmentCompression


def packing_for(config: CenterConfig, codec: Codec | None, size: int) -> AnyPacking | None:
    """Return how the vectors of a job travel; `None` for whole and uncompressed.

    Args:
        config: settings of the center.
        codec: the job's codec; `None` for none.
        size: number of elements of the center at this server.
    """
    if config.fragments is None:
        return packing_of(config.algorithm, codec, size, config.trainable_of(size))
    sizes = config.fragments.sizes
    parts = [
        packing_of(config.algorithm, codec, each, config.fragment(fragment).trainable_of(each))
        for fragment, each in enumerate(sizes)
    ]
    item_bytes = np.dtype(config.dtype).itemsize
    return FragmentPacking(sizes, item_bytes, tuple(part for part in parts if part is not None))


def compression_of(packing: AnyPacking | None, *, at_server: bool) -> AnyCompression | None:
    """Return one end's compression; `None` for none."""
    if packing is None:
        return None
    if isinstance(packing, FragmentPacking):
        return FragmentCompression(packing, at_server=at_server)
    return Compression(packing, at_server=at_server)
