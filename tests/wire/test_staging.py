"""Memory for vectors in transit: bounded, lent in turn, and taken back from who stands still."""

from __future__ import annotations

import socket
import threading
import time
import weakref

import numpy as np
import pytest
from serving import commit, serving

from distkeras.center.requests import Join
from distkeras.wire import frames
from distkeras.wire.client import Client
from distkeras.wire.connection import Connection
from distkeras.wire.conversation import LARGE_BYTES
from distkeras.wire.staging import MOST_LEASES, Staging


def connection():
    return Connection(socket.socket(), frames.REQUESTS, 100)


def test_room_is_lent_in_the_order_of_asking():
    staging = Staging(4, np.float32, 2 * 16)
    first, second, third, fourth = (connection() for _ in range(4))
    woken = []
    leases = [staging.take(one, lambda: None, memory=True) for one in (first, second)]
    assert staging.take(third, lambda: woken.append(3), memory=True) is None
    assert staging.take(fourth, lambda: woken.append(4), memory=True) is None
    staging.give_back(leases[0])
    assert woken == [3]
    assert staging.take(fourth, lambda: woken.append(4), memory=True) is None  # It is not its turn.
    lease = staging.take(third, lambda: None, memory=True)
    assert lease.vector is leases[0].vector  # No more memory than there is room for.
    staging.forget(fourth)
    staging.give_back(lease)
    assert woken == [3]


def test_there_is_room_for_one_vector_of_any_size_and_for_no_endless_number_of_small_ones():
    large, small = Staging(1000, np.float32, 16), Staging(1, np.float32)
    assert large.take(connection(), lambda: None, memory=True).vector.size == 1000
    assert large.take(connection(), lambda: None, memory=True) is None
    assert len(small._leases) == MOST_LEASES


def test_what_the_center_brings_takes_the_place_of_memory_that_is_free():
    staging = Staging(4, np.float32, 16)
    staging.give_back(staging.take(connection(), lambda: None, memory=True))
    assert staging.take(connection(), lambda: None, memory=False).vector is None
    assert [lease.vector for lease in staging._leases] == [None]


def test_a_transfer_that_stands_still_is_cut_only_while_others_wait():
    staging = Staging(4, np.float32, 16, lapse=10)
    slow = connection()
    lease = staging.take(slow, lambda: None, memory=True)
    assert [staging.cut_lapsed(now) for now in (1, 20, 40)] == [0, 0, 0]
    staging.take(connection(), lambda: None, memory=True)
    assert [staging.cut_lapsed(now) for now in (50, 55)] == [0, 0]
    slow.stream.moved += 2**20
    assert staging.cut_lapsed(61) == 0
    lease.moving = False  # The center applies it.
    assert staging.cut_lapsed(80) == 0
    lease.moving = True
    assert [staging.cut_lapsed(now) for now in (90, 101)] == [0, 1]


@pytest.mark.parametrize("size", [4, LARGE_BYTES // 4], ids=["in the loop", "in a thread"])
def test_a_connection_that_is_idle_holds_no_vector(size):
    with serving(num_workers=1, size=size) as (_, center, address), Client(address) as client:
        handle, vectors = center.handle, []

        def watching(request):
            answers = handle(request)
            vectors.append(weakref.ref(answers[0][1].center))
            return answers

        center.handle = watching
        client.call(Join(0))
        deadline = time.monotonic() + 20
        while vectors[0]() is not None:  # The server's thread may still be about to free it.
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_sender_that_stands_still_loses_its_place_and_its_commit_counts_when_it_comes_whole():
    with serving(num_workers=2, size=1000, staging=1) as (server, center, address):
        server._staging._lapse = 0.05
        with Client(address) as slow, Client(address) as other:
            slow.call(Join(0))
            other.call(Join(1))
            head, vector = frames.encode(commit(0, 1, size=1000))
            slow._connection.stream.sock.sendall(head + vector.tobytes()[:100])
            deadline = time.monotonic() + 20
            (lease,) = server._staging._leases
            while lease.connection is None or lease.vector is None:  # As `Join` has it for a moment.
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert other.call(commit(1, 1, size=1000)).reply.tolist() == [1.0] * 1000
            assert slow.call(commit(0, 1, size=1000)).reply.tolist() == [2.0] * 1000
        assert center.num_updates == 2


def test_more_workers_than_threads_share_room_for_one_vector():
    count = 3
    with serving(num_workers=count, size=1000, staging=1) as (server, center, address):

        def work(worker):
            with Client(address) as client:
                client.call(Join(worker))
                for sequence in range(1, 6):
                    client.call(commit(worker, sequence, size=1000))

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert center.num_updates == 5 * count
        assert center.snapshot().tolist() == [5.0 * count] * 1000
        assert sum(lease.vector is not None for lease in server._staging._leases) <= 1
