"""One setting limits how long a connection may hang: connecting, greeting, silence, data on its way."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import replace

import pytest
from serving import TOKEN, commit, serving

from distkeras.center.requests import Join
from distkeras.cluster.options import ServerOptions
from distkeras.wire import frames
from distkeras.wire.client import Client, ServerAddress, ServerLost
from distkeras.wire.connection import Connection
from distkeras.wire.handshake import Handshake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these limits")


def limits(sock):
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    return [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]


@pytest.mark.parametrize(("timeout", "probes"), [(30.0, [8, 8, 3]), (4.0, [1, 1, 3]), (0.5, [1, 1, 3])])
def test_both_ends_notice_a_machine_that_is_gone(timeout, probes):
    with (
        serving(timeout=timeout) as (server, _, address),
        Client(replace(address, timeout=timeout)) as client,
    ):
        client.call(Join(0))
        (conversation,) = server._open
        for sock in (client._connection.stream.sock, conversation._connection.stream.sock):
            assert limits(sock) == [*probes, 1000 * timeout]


def test_data_that_nobody_takes_ends_the_connection():
    """The message is larger than all buffers on its way to a machine that takes no more."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        sock = socket.create_connection(deaf.getsockname())
        Handshake(sock, timeout=1.0)
        connection = Connection(sock, frames.REPLIES, 1)
        peer, _ = deaf.accept()
        connection.stream.limit_waits(600.0)
        with peer, pytest.raises(OSError, match="timed out"):
            connection.send(commit(0, 1, size=20_000_000))
        connection.close()


def test_a_reply_may_take_longer_than_the_timeout(monkeypatch):
    with serving(timeout=0.2) as (server, center, address):
        answer = server._answer

        def slowly(*args):
            time.sleep(0.5)
            return answer(*args)

        with Client(replace(address, timeout=0.2)) as client:
            client.call(Join(0))
            connection = client._connection
            monkeypatch.setattr(server, "_answer", slowly)
            client.call(commit(0, 1))
            assert client._connection is connection
        assert center.num_updates == 1


def test_a_server_that_never_greets_is_left_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = ServerAddress("127.0.0.1", silent.getsockname()[1], TOKEN, 4, timeout=0.2)
        with pytest.raises(ServerLost, match="0 s"), Client(address, patience=0.0) as client:
            client.call(Join(0))


@pytest.mark.parametrize(
    "option",
    [
        {"heartbeat": 0},
        {"heartbeat": float("inf")},
        {"heartbeat": "30"},
        {"heartbeat": float("nan")},
        {"timeout": -1.0},
        {"timeout": float("inf")},
        {"patience": -1},
        {"patience": True},
        {"give_up": -5},
        {"give_up": None},
        {"restarts": -1},
        {"restarts": 1.5},
        {"restarts": True},
        {"ports": ()},
        {"ports": 7000},
        {"ports": (70_000,)},
        {"ports": ("7000",)},
    ],
    ids=str,
)
def test_senseless_options_of_the_server_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"(?s)`{name}` must .*Received: {name}=") as refused:
        ServerOptions(**option)
    assert f"{name}={value!r}" in str(refused.value)


def test_snapshots_must_be_options():
    with pytest.raises(TypeError, match="Received: snapshots='/a/folder'"):
        ServerOptions(snapshots="/a/folder")


def test_one_may_wait_for_ever():
    options = ServerOptions(give_up=float("inf"), patience=float("inf"), ports=[7000, 0], restarts=0)
    assert options.restarts == 0


def test_a_worker_looks_for_its_server_at_once_and_then_every_second():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 20:
            raise InterruptedError("enough")

    with (
        Client(ServerAddress("127.0.0.1", port, TOKEN, 4), sleep=sleep) as client,
        pytest.raises(InterruptedError, match="enough"),
    ):
        client.call(Join(0))
    assert pauses[0] <= 0.05
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
