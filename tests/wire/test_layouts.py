"""Vectors of double precision, and workers whose weights lie otherwise than the server's."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, FedAdam, LocalSGD
from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Joined, Refused
from distkeras.center.requests import Exchange, Join
from distkeras.wire import shared_memory
from distkeras.wire.client import ServerAddress
from distkeras.wire.group import connect
from distkeras.wire.server import Server

TOKEN = b"t" * 32
THIRD = np.full(5, 1 / 3)  # No float32 holds it.


@contextmanager
def serving(algorithm, layout="", shared=False):
    center = Center(CenterConfig(algorithm, dtype="float64", layout=layout), THIRD, clock=time.time)
    name = shared_memory.new_name() if shared else None
    server = Server(center, TOKEN, "127.0.0.1", local_name=name, checksum=not shared)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    address = ServerAddress(
        "127.0.0.1", server.port, TOKEN, 5, name, checksum=not shared, dtype="float64", layout=layout
    )
    try:
        with connect((address,)) as client:
            yield center, client
    finally:
        server.close()
        thread.join(5)


@pytest.mark.parametrize("shared", [False, True], ids=["tcp", "shared memory"])
@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD(), FedAdam()], ids=lambda rule: rule.name)
def test_double_precision_is_kept_in_both_directions(algorithm, shared):
    with serving(algorithm, shared=shared) as (_, client):
        joined = client.call(Join(0))
        assert joined.center.dtype == np.float64
        np.testing.assert_array_equal(joined.center, THIRD)
        reply = client.call(Exchange(0, 1, 1, 32, 0, 1, THIRD / 7, {})).reply
        assert reply.dtype == np.float64
        expected = Center(CenterConfig(algorithm, dtype="float64"), THIRD, clock=time.time)
        expected.handle(Join(0))
        ((_, answer),) = expected.handle(Exchange(0, 1, 1, 32, 0, 1, THIRD / 7, {}))
        np.testing.assert_array_equal(reply, answer.reply)
        assert not np.array_equal(reply, reply.astype(np.float32))


def test_a_worker_with_another_layout_is_refused_and_others_are_not():
    with serving(DOWNPOUR(), layout="ours") as (_, client):
        refused = client.call(Join(0, layout="theirs"))
        assert isinstance(refused, Refused)
        assert refused.reason == "expected the layout ours of the weights. Received: theirs"
        assert isinstance(client.call(Join(0, layout="ours")), Joined)
        assert isinstance(client.call(Join(0)), Joined)  # One that does not say.
