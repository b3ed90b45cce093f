"""Vectors that worker and server both map: who gets one, and what happens where there is none."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest

from distkeras.algorithms import AEASGD, DOWNPOUR
from distkeras.center import Center, CenterConfig
from distkeras.center.requests import Exchange, Join
from distkeras.wire import shared_memory
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.server import Server

TOKEN = b"t" * 32


@contextmanager
def serving(algorithm, size):
    center = Center(CenterConfig(algorithm, 2), np.zeros(size, np.float32), clock=time.time)
    name = shared_memory.new_name()
    server = Server(center, TOKEN, "127.0.0.1", local_name=name)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield center, ServerAddress("127.0.0.1", server.port, TOKEN, size, name)
    finally:
        server.close()
        thread.join(5)


def commit(sequence, message):
    return Exchange(0, sequence, 1, 32, 0, sequence, message, {"loss": 0.5})


def test_both_sides_see_one_memory():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        written = shared_memory.share(ours, 5)
        read = shared_memory.accept(theirs, 5)
        written[:] = [1, 2, 3, 4, 5]
        assert read.tolist() == [1, 2, 3, 4, 5]
        read[2] = 9
        assert written[2] == 9


def test_memory_of_another_size_than_the_model_is_refused():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        shared_memory.share(ours, 5)
        with pytest.raises(ConnectionError, match="Expected 24 bytes"):
            shared_memory.accept(theirs, 6)


def test_a_worker_cannot_shorten_the_memory_that_the_server_reads():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        shared_memory.share(ours, 1000)
        _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
        try:
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


def test_a_message_leaves_its_array_as_it_was_and_the_reply_comes_without_a_copy():
    with serving(AEASGD(learning_rate=0.1, rho=5.0), 8) as (center, address), Client(address) as client:
        client.call(Join(0))
        message = np.full(8, 2.0, np.float32)
        reply = client.call(commit(1, message)).reply
        assert message.tolist() == [2.0] * 8
        assert reply.tolist() == [1.0] * 8  # the elastic force
        assert center.snapshot().tolist() == [1.0] * 8
        assert reply is client._connection.shared


def test_a_server_on_another_machine_is_reached_by_tcp():
    with serving(DOWNPOUR(), 8) as (_, address):
        elsewhere = ServerAddress(address.host, address.port, TOKEN, 8, shared_memory.new_name())
        with Client(elsewhere) as client:
            client.call(Join(0))
            assert client.call(commit(1, np.ones(8, np.float32))).reply.tolist() == [1.0] * 8
            assert client._connection.shared is None


def test_no_descriptor_is_left_when_connections_end():
    with serving(DOWNPOUR(), 1000) as (_, address):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with Client(address) as client:
                client.call(Join(0))
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before
