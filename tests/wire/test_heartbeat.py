"""Signs of life over real sockets: they outlive cuts, and come whatever the worker's own thread is doing."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from serving import Relay, commit, serving

from distkeras.algorithms import LocalSGD
from distkeras.center.messages import Beat, Done, Join
from distkeras.events import WorkerLost
from distkeras.wire.client import Client, Replaced
from distkeras.wire.group import Group
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


def test_beats_go_on_while_an_exchange_takes_long(monkeypatch):
    """The message crawls, for longer than a worker may be silent."""
    begun, over = threading.Event(), threading.Event()

    def crawl(data):
        if len(data) > 1000:
            begun.set()
            over.wait(20)
        return data

    with (
        beating(monkeypatch, size=1000) as (_, center, address, count),
        Relay(address.port, crawl) as relay,
        Client(replace(address, port=relay.port)) as client,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        thread = threading.Thread(target=client.call, args=(commit(0, 1, size=1000),))
        thread.start()
        assert begun.wait(20)
        before = count[0]
        wait_until(lambda: count[0] > before + 20)
        over.set()
        thread.join(20)
        assert lost(center) == []
        assert center.num_updates == 1


def test_a_worker_that_waits_for_its_round_beats_and_is_answered(monkeypatch):
    with (
        beating(monkeypatch, algorithm=LocalSGD()) as (_, _, address, count),
        Client(address) as client,
        Client(address) as other,
        Heartbeat(client, 0, LIMIT / 10),
    ):
        client.call(Join(0))
        other.call(Join(1))
        replies = []
        thread = threading.Thread(target=lambda: replies.append(client.call(commit(0, 1))))
        thread.start()
        before = count[0]
        wait_until(lambda: count[0] > before + 3)
        assert replies == []
        other.call(commit(1, 1))
        thread.join(20)
        assert replies[0].reply.tolist() == [1.0] * 4


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
        raise FileNotFoundError("/etc/ssl/authority.pem")

    with (
        beating(monkeypatch) as (*_, address, _),
        Client(address) as client,
        caplog.at_level(logging.WARNING),
    ):
        client._address = replace(address, tls=no_authority)
        with Heartbeat(client, 0, 0.01):
            wait_until(lambda: len(attempts) > 1)
    assert "A heartbeat of worker 0 failed" in caplog.text
