"""What strangers can cost: little time, little memory, and no worker its place."""

from __future__ import annotations

import logging
import resource
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from serving import Relay, commit, serving

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.requests import Join, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.wire import serve
from distkeras.wire.client import Client, ServerLost
from distkeras.wire.tls import make_tls


def test_a_stranger_that_sends_a_byte_now_and_then_gains_no_time(monkeypatch):
    monkeypatch.setattr("distkeras.wire.handshake.HANDSHAKE_SECONDS", 0.3)
    with serving() as (_, _, address), socket.create_connection((address.host, address.port)) as sock:

        def drip():
            for _ in range(79):  # One byte less than a whole answer: the server would wait on.
                sock.sendall(b"x")
                time.sleep(0.05)

        with pytest.raises(ConnectionError):
            drip()


def test_failures_of_others_at_its_address_do_not_delay_a_worker(caplog):
    with serving() as (server, _, address), caplog.at_level(logging.WARNING):
        for _ in range(12):
            with socket.create_connection((address.host, address.port)) as sock:
                sock.sendall(bytes(80))
        while (
            server._reception.handshakes._records.get("127.0.0.1") is None
            or len(server._reception.handshakes) < 1
        ):
            time.sleep(0.01)
        with Client(address, patience=0.0) as client:
            assert client.call(Join(0)).sequence == 0
    assert sum("handshakes from 127.0.0.1 failed" in record.message for record in caplog.records) == 1


def test_no_more_connections_than_the_job_can_have():
    with serving(max_connections=2) as (_, _, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        second.call(Join(1))
        with pytest.raises(ServerLost), Client(address, patience=0.0) as third:
            third.call(Pull())
        first.close()
        first.call(Pull())  # A client that connects anew takes no second place.
        assert second.call(Pull()).num_updates == 0


def test_a_flood_of_silent_strangers_locks_no_worker_out():
    with serving() as (server, _, address):
        flood = [socket.create_connection((address.host, address.port)) for _ in range(300)]
        try:
            with Client(address, patience=10.0) as client:
                assert client.call(Join(0)).sequence == 0
            assert len(server._reception.handshakes) <= 256
        finally:
            for sock in flood:
                sock.close()


def damage(number):
    """Return a change that flips a bit of the given piece of data among those that hold a vector."""
    seen = []

    def change(data):
        if len(data) > 2000:
            seen.append(data)
            if len(seen) == number:
                return data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]
        return data

    return change, seen


def test_a_commit_that_was_damaged_on_its_way_is_sent_again_and_counts_once():
    change, seen = damage(1)
    with serving(size=1000, checksum=True) as (_, center, address):
        with (
            Relay(address.port, to_server=change) as relay,
            Client(replace(address, port=relay.port)) as client,
        ):
            client.call(Join(0))
            assert client.call(commit(0, 1, size=1000)).reply.tolist() == [1.0] * 1000
        assert len(seen) == 2
        assert center.num_updates == 1


def test_a_damaged_reply_is_asked_for_again():
    change, seen = damage(2)
    with serving(size=1000, checksum=True) as (_, center, address):
        with Relay(address.port, None, change) as relay, Client(replace(address, port=relay.port)) as client:
            client.call(Join(0))
            reply = client.call(commit(0, 1, size=1000))
            assert (reply.restart, reply.reply.tolist()) == (True, [1.0] * 1000)
        assert len(seen) == 3
        assert center.num_updates == 1


def test_a_server_that_expects_no_checksums_refuses_them():
    with serving() as (_, center, address):
        with pytest.raises(ServerLost), Client(replace(address, checksum=True), patience=0.0) as client:
            client.call(Join(0))
        assert center.event_log.read(0).events == []


def test_the_first_free_port_of_the_range_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = (taken.getsockname()[1], free.getsockname()[1])
        free.close()
        with serving(ports=ports) as (server, _, address), Client(address) as client:
            assert server.port == ports[1]
            assert client.call(Join(0)).sequence == 0


def test_only_the_address_that_it_announces_is_bound():
    with serving() as (server, _, _), pytest.raises(OSError, match=r"refused|timed out|assign"):
        socket.create_connection(("127.0.0.2", server.port), 1)


def test_as_many_ports_as_servers_are_asked_for():
    setup = ServerSetup(CenterConfig(DOWNPOUR()), options=ServerOptions(ports=(7000,)))
    with pytest.raises(ValueError, match=r"a port for each of 2.*Received: ports=\(7000,\)"):
        Servers(2, setup, np.zeros(8, np.float32))


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "then"),
    [(256, 4096, 1000, 1000), (256, 512, 1000, 512), (2048, 4096, 1000, 2048), (256, -1, 1000, 1000)],
)
def test_a_server_may_open_as_many_files_as_the_job_needs(monkeypatch, soft, hard, wanted, then):
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: limits.append(limit))
    serve._allow_open_files(wanted)
    assert limits[-1] == (then, hard)


def test_the_secrets_of_a_job_are_in_no_log():
    job = serve.ServerJob(CenterConfig(DOWNPOUR()), np.zeros(1, np.float32), b"secret", "h", tls=make_tls())
    assert "secret" not in repr(job)
    assert "PRIVATE" not in repr(job)
