"""Frames over a socket: in one piece or in many, like the last one or not."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from distkeras.center.requests import Beat, Exchange
from distkeras.wire import frames
from distkeras.wire.connection import Arriving, Connection

SIZE = 6


def exchange(sequence, metrics=("loss",)):
    vector = np.arange(SIZE, dtype=np.float32) + sequence
    return Exchange(1, sequence, 3, 96, 0, 3, vector, dict.fromkeys(metrics, 0.5))


def whole(message, checksum):
    head, vector = frames.encode(message, checksum)
    return head + (b"" if vector is None else vector.tobytes())


def going_on(connection, arrived, buffer):
    """The message of a frame, when all of it is there."""
    for steps in (connection.beginning, connection.finishing):
        if arrived is None or (type(arrived) is Arriving and steps == connection.finishing):
            given = (buffer.nbytes,) if arrived is None else (arrived, buffer)
            with pytest.raises(StopIteration) as end:
                next(steps(*given))
            arrived = end.value.value
    return arrived


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("after", [exchange(2), exchange(2, ["loss", *"abcdefghi"]), Beat(1)], ids=type)
def test_a_frame_in_two_pieces_is_the_message_that_was_sent(after, checksum):
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near, frames.REQUESTS, frames.MAX_REQUEST_TEXT)
        connection._checksum = checksum  # Between sockets of one machine there is none.
        near.setblocking(False)
        frame, buffer = whole(after, checksum), np.empty(SIZE, np.float32)
        for cut in range(1, len(frame) + 1):
            far.sendall(whole(exchange(1), checksum))
            assert going_on(connection, connection.arrived(buffer), buffer).sequence == 1
            far.sendall(frame[:cut])
            arrived = connection.arrived(buffer)
            far.sendall(frame[cut:])
            message = going_on(connection, arrived, buffer)
            assert whole(message, checksum) == frame
            assert not connection.stream.ready()
