"""The connections of simulated workers: what messages become on the wire, their bytes, and their seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from distkeras.center import CenterConfig
from distkeras.center.answers import Exchanged, Joined
from distkeras.center.requests import Exchange, Join
from distkeras.simulation.conditions import Network
from distkeras.wire import frames
from distkeras.wire.codecs import Codec
from distkeras.wire.compression import check_compressible
from distkeras.wire.fragment_compression import AnyCompression, compression_of, packing_for

Carried = TypeVar("Carried", Exchange, Exchanged, Joined)

TYPICAL = 2**20
"""A number of a commit, of steps or of rows, for the length of a typical frame."""


class Links:
    """The connections of all workers: both ends of the real compression, and the lengths of real frames.

    Args:
        network: how long messages take.
        config: settings of the center.
        size: number of elements of the center.
        codec: compresses messages; `None` for none.

    Raises:
        ValueError: compression would lose parts of the algorithm's messages.
    """

    def __init__(self, network: Network, config: CenterConfig, size: int, codec: Codec | None) -> None:
        if codec is not None:
            check_compressible(config.algorithm)
        self._latency, self._bandwidth = network.latency, network.bandwidth
        sizes = (size,) if config.fragments is None else config.fragments.sizes
        self._plain = tuple(4 * each for each in sizes)
        self._whole = 4 * size
        self._packing = None if codec is None else packing_for(config, codec, size)
        self._ends: dict[int, tuple[AnyCompression, AnyCompression]] = {}
        self._text = _text_bytes(network, config.num_workers)
        self._uncoded = [self._text[Exchange] + each for each in self._plain]

    @property
    def join_bytes(self) -> int:
        """Bytes of the request of a worker that joins."""
        return self._text[Join]

    @property
    def joined_bytes(self) -> int:
        """Bytes of the answer to a worker that joins: the whole center."""
        return self._text[Joined] + self._whole

    def connect(self, worker: int, again: bool = False) -> None:
        """Open a worker's connection: of a new process, or the next one of the same process (`again`)."""
        if self._packing is None:
            return
        ends = self._ends.get(worker) if again else None
        if ends is None:
            mine = compression_of(self._packing, at_server=False)
        else:
            mine = ends[0]
            mine.connected()
        theirs = compression_of(self._packing, at_server=True)
        if mine is None or theirs is None:
            raise RuntimeError("Expected a packing to give two ends.")
        self._ends[worker] = (mine, theirs)

    def join(self, worker: int, joined: Joined) -> None:
        """Carry the center to a worker that has joined."""
        if self._packing is not None:
            mine, theirs = self._ends[worker]
            _carry(joined, theirs, mine)

    def send(self, request: Exchange) -> tuple[Exchange, int]:
        """Carry a commit to the server; return it as it arrives, and its bytes.

        With compression, the vector of `request` becomes what the center decodes.
        """
        if self._packing is None:
            return request, self._uncoded[request.fragment]
        mine, theirs = self._ends[request.worker]
        arrived, num_bytes = _carry(request, mine, theirs)
        return arrived, self._text[Exchange] + num_bytes

    def receive(self, worker: int, answer: Exchanged) -> tuple[Exchanged, int]:
        """Carry the answer to a commit to its worker; return it as it arrives, and its bytes."""
        if self._packing is None:
            return answer, self._text[Exchanged] + 4 * answer.reply.size
        mine, theirs = self._ends[worker]
        arrived, num_bytes = _carry(answer, theirs, mine)
        return arrived, self._text[Exchanged] + num_bytes

    def commit_bytes(self, worker: int, sequence: int) -> int:
        """Return the bytes of a worker's commit of that number, if it is sent now."""
        fragment = (sequence - 1) % len(self._plain)
        if self._packing is not None:
            _, theirs = self._ends[worker]
            forms = theirs.forms((frames.UNCODED, self._plain[fragment])).get(Exchange, ())
            if forms:
                return self._text[Exchange] + forms[fragment][1]
        return self._uncoded[fragment]

    def seconds(self, num_bytes: int) -> float:
        """Return how long so many bytes are on their way."""
        return self._latency + num_bytes / self._bandwidth


def _carry(message: Carried, sender: AnyCompression, receiver: AnyCompression) -> tuple[Carried, int]:
    """Return `message` as it arrives, and the bytes of its vector on the wire."""
    vector = frames.vector_of(message)
    if vector is None:
        raise TypeError(f"Expected a message with a vector. Received: {message!r}")
    encoded = sender.pack(message)
    if encoded is None:
        receiver.take_note(message, whole=True)
        return message, vector.nbytes
    # Other workers may share the vector of a reply.
    buffer = np.empty_like(vector)
    arrived: Any = receiver.fitted(message, (encoded.codec, encoded.data.nbytes), buffer)
    if frames.vector_of(arrived) is vector:
        name = "message" if isinstance(message, Exchange) else "reply"
        arrived = replace(arrived, **{name: buffer})
    receiver.unpack(encoded.data, buffer)
    receiver.take_note(arrived, whole=False)
    found: Carried = arrived
    return found, encoded.data.nbytes


def _text_bytes(network: Network, num_workers: int) -> dict[type, int]:
    """Return the bytes of typical frames without their vectors, to and from all servers; 0 if not counted."""
    last, none = num_workers - 1, np.empty(0, np.float32)
    typical = (
        Exchange(last, TYPICAL, TYPICAL, TYPICAL, 0, TYPICAL, none, seconds=1.5),
        Exchanged(none, num_workers, sequence=TYPICAL),
        Join(last),
        Joined(none, TYPICAL, 0, TYPICAL),
    )
    counted = network.servers if network.frames else 0
    return {type(message): counted * len(frames.encode(message)[0]) for message in typical}
