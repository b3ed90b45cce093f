"""Signs of life over real sockets: they outlive cuts, and come whatever the worker's own thread is doing."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from serving import commit, serving

from distkeras.algorithms import LocalSGD, Ringmaster
from distkeras.center.answers import Done
from distkeras.center.requests import Beat, Join
from distkeras.events import WorkerLost
from distkeras.wire import frames
from distkeras.wire.client import Client, Replaced
from distkeras.wire.group import Group
from distkeras.wire.handshake import AuthenticationError
from distkeras.worker.heartbeat import Heartbeat

LIMIT = 0.6
"""Seconds of silence that the servers of this file allow."""


def wait_until(done):
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def beating(monkeypatch, **options):
    """Yield a server, its center, its address, and how many beats of worker 0 it took, in a list of one."""
    with serving(heartbeat=LIMIT, **options) as (server, center, address):
        count, handle = [0], center.handle

        def counted(request):
            count[0] += isinstance(request, Beat)
            return handle(request)

        monkeypatch.setattr(center, "handle", counted)
        yield server, center, address, count


def lost(center):
    return [event.worker for event in center.event_log.read(0).events if isinstance(event, WorkerLost)]


def test_beats_go_on_after_a_cut_in_the_middle_of_a_window(monkeypatch):
    with (
        beating(monkeypatch) as (server, center, address, count),
        Client(address) as client,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        for _ in range(3):
            wait_until(lambda before=count[0]: count[0] > before + 2)
            for handshake in list(server._open):
                handshake.hang_up()
        before = count[0]
        wait_until(lambda: count[0] > before + 20)  # Longer than a worker may be silent.
        assert lost(center) == []


def test_a_message_that_crawls_is_a_sign_of_life(monkeypatch):
    """It takes longer than a worker may be silent, and no heartbeat can be sent meanwhile."""
    with (
        beating(monkeypatch, size=1000) as (server, center, address, count),
        Client(address) as client,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        head, vector = frames.encode(commit(0, 1, size=1000))
        frame = head + vector.tobytes()
        with client._in_use:
            before = count[0]
            for low in range(0, len(frame), 100):
                client._connection.stream.sock.sendall(frame[low : low + 100])
                time.sleep(LIMIT / 20)
            assert client._connection.receive(np.empty(1000, np.float32)).sequence == 1
            assert count[0] <= before + 1
        assert lost(center) == []
        assert server._failures._last.keys() == {0}


def test_a_worker_that_waits_for_its_round_is_not_missed_and_is_answered(monkeypatch):
    with (
        beating(monkeypatch, algorithm=LocalSGD()) as (_, center, address, _),
        Client(address) as client,
        Client(address) as other,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        other.call(Join(1))
        replies = []
        thread = threading.Thread(target=lambda: replies.append(client.call(commit(0, 1))))
        thread.start()
        wait_until(lambda: lost(center))  # The other, which sends no heartbeats.
        time.sleep(LIMIT)
        assert lost(center) == [1]
        assert replies == []
        other.call(commit(1, 1))
        thread.join(20)
        assert replies[0].reply.tolist() == [1.0] * 4


def test_a_heartbeat_brings_the_word_that_the_window_is_too_stale(monkeypatch):
    with (
        beating(monkeypatch, algorithm=Ringmaster(delay_threshold=2, stop=True)) as (_, _, address, count),
        Client(address) as client,
        Client(address) as other,
        Heartbeat(client, 0, LIMIT / 10) as heartbeat,
    ):
        client.call(Join(0))
        other.call(Join(1))
        other.call(commit(1, 1))
        before = count[0]
        wait_until(lambda: count[0] > before + 2)
        assert heartbeat.drop == -1
        other.call(commit(1, 2))
        wait_until(lambda: heartbeat.drop == 0)
        client.call(commit(0, 1))  # Its window was dropped, or ended: the next one is not stale.
        wait_until(lambda: heartbeat.drop == -1)


def test_a_process_that_has_not_joined_yet_lives_already(monkeypatch):
    with (
        beating(monkeypatch) as (server, _, address, count),
        Client(address) as client,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        wait_until(lambda: count[0] > 1)
        assert 0 in server._failures._last


def test_beats_of_a_process_that_was_replaced_do_not_count(monkeypatch):
    with (
        beating(monkeypatch) as (_, _, address, count),
        Client(address) as old,
        Client(address) as new,
        Client(address) as beats,
        Heartbeat(old, 0, LIMIT / 10, ticket=1) as heartbeat,
    ):
        old.call(Join(0, 0, 1))
        wait_until(lambda: count[0] > 1)
        new.call(Join(0, 0, 2))
        wait_until(lambda: not any(thread.is_alive() for thread in heartbeat._threads))
        with pytest.raises(Replaced):
            beats.call(Beat(0, 1))
        assert beats.call(Beat(0, 2)) == Done()


def test_every_server_hears_the_beats(monkeypatch):
    with (
        beating(monkeypatch) as (*_, first, count),
        beating(monkeypatch) as (*_, second, other),
        Group([first, second]) as group,
        Heartbeat(group, 0, LIMIT / 10),
    ):
        wait_until(lambda: count[0] > 1 and other[0] > 1)


def test_a_beat_that_fails_is_told_and_the_next_is_tried(monkeypatch, caplog):
    attempts = []

    def no_authority():
        attempts.append(1)
        raise AuthenticationError("another certificate")

    with (
        beating(monkeypatch) as (*_, address, _),
        Client(address) as client,
        caplog.at_level(logging.WARNING),
    ):
        monkeypatch.setattr(client, "_connect", no_authority)
        with Heartbeat(client, 0, 0.01):
            wait_until(lambda: len(attempts) > 1)
    assert "A heartbeat of worker 0 failed" in caplog.text


def test_a_worker_has_one_connection(monkeypatch):
    with (
        beating(monkeypatch) as (server, _, address, count),
        Client(address) as client,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        wait_until(lambda: count[0] > 3)
        client.call(commit(0, 1))
        assert len(server._open) == 1
