"""What a server and the connections of a worker measure, over real sockets."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from serving import Relay, serving

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.center import Layout
from distkeras.center.requests import Beat, Exchange, Join, Poll
from distkeras.events import ServerStatus, Window, WorkerPhase
from distkeras.wire import status as statuses
from distkeras.wire.client import Client
from distkeras.worker.heartbeat import Heartbeat
from distkeras.worker.loop import Loop
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.stopwatch import Stopwatch


class Replica:
    """Adds one to every weight a step."""

    def __init__(self, size):
        self.layout, self.weights = Layout((("w", (size,)),)), np.zeros(size, np.float32)

    def train(self, x, y=None, sample_weight=None):
        self.weights += 1

    def read(self):
        return self.weights.copy()

    def write(self, vector):
        self.weights = vector.copy()

    adopt = write

    def metrics(self):
        return {"loss": 0.5}

    def collect_metrics(self, before=()):
        pass


class Feed:
    """Minibatches of eight rows; the first one comes when `begun` is set."""

    def __init__(self, steps, begun=None):
        self._steps, self._begun = steps, begun

    def epoch(self, epoch, start=0):
        if self._begun is not None:
            self._begun.wait()
        for _ in range(start, self._steps):
            yield Minibatch(None, None, None, 8)


def events_of(center, kind):
    return [event for event in center.event_log.read(0).events if isinstance(event, kind)]


def loop_of(client, feed, size, watch=None, worker=0, algorithm=DOWNPOUR(communication_window=2)):  # noqa: B008
    watch = watch or Stopwatch(lambda: client.traffic)
    return Loop(Replica(size), feed, algorithm, client.call, worker=worker, num_epoch=1, watch=watch)


def test_bytes_are_those_that_the_sockets_have_carried():
    counted = {"out": 0, "in": 0}

    def count(way):
        def add(data):
            counted[way] += len(data)

        return add

    size = 30_000
    with ExitStack() as stack:
        server, center, address = stack.enter_context(serving(num_workers=1, size=size))
        relay = stack.enter_context(Relay(server.port, count("out"), count("in")))
        client = stack.enter_context(Client(replace(address, port=relay.port)))
        client.reach()
        time.sleep(0.05)  # The last bytes of the handshake have passed the relay.
        handshake = dict(counted)
        watch = Stopwatch(lambda: client.traffic)
        loop_of(client, Feed(6), size, watch).run()
        rest = watch.take()
        windows = events_of(center, Window)
        seen = server._status.status()
    timings = [window.timing for window in windows]
    carried = [sum(timing.bytes_out for timing in timings), sum(timing.bytes_in for timing in timings)]
    assert carried[0] + rest.bytes_out == counted["out"] - handshake["out"] == seen.bytes_in
    assert carried[1] + rest.bytes_in == counted["in"] - handshake["in"] == seen.bytes_out
    assert all(timing.bytes_out > 4 * size for timing in timings[1:])
    assert (seen.exchanges, seen.connections) == (3, 1)


def test_a_request_that_is_sent_again_is_counted():
    broken = []

    def cut_once(data):
        if len(data) > 4 * 20_000 and not broken:
            broken.append(True)
            raise OSError("cut")

    with (
        serving(num_workers=1, size=20_000) as (server, center, address),
        Relay(server.port, to_server=cut_once) as relay,
        Client(replace(address, port=relay.port)) as client,
    ):
        watch = Stopwatch(lambda: client.traffic)
        loop_of(client, Feed(4), 20_000, watch).run()
        windows = events_of(center, Window)
    assert sum(window.timing.resends for window in windows) + watch.take().resends == len(broken) == 1


def test_in_a_round_the_worker_that_waits_for_another_is_blocked():
    late, found = threading.Event(), {}

    def work(address, worker):
        feed = Feed(2, late if worker else None)
        with Client(address) as client:
            loop_of(client, feed, 4, worker=worker, algorithm=LocalSGD(communication_window=1)).run()

    with serving(LocalSGD(communication_window=1), num_workers=2) as (_, center, address):
        threads = [threading.Thread(target=work, args=(address, worker)) for worker in range(2)]
        for thread in threads:
            thread.start()
        while 0 not in center._rounds.messages:  # Worker 0 has not sent its first one.
            time.sleep(0.001)
        time.sleep(0.25)
        late.set()
        for thread in threads:
            thread.join()
        for window in events_of(center, Window):
            found.setdefault(window.worker, []).append(window.timing)
    first, second = found[0]
    assert first.blocked == 0
    assert 0.25 <= second.blocked <= second.exchanging


def test_the_phases_of_a_process_are_told_once_each_and_never_wait_for_an_exchange():
    with serving(num_workers=2) as (_, center, address), Client(address) as client:
        with Heartbeat(client, 1, 30.0, 7) as heartbeat:
            for phase in ("starting", "importing", "importing", "loading"):
                heartbeat.tell(phase)
            assert client.beat(Beat(1, 7, "loading"), 5.0)
            with client._in_use:  # An exchange is under way: the training does not wait for it.
                heartbeat.tell("training")
            deadline = time.monotonic() + 10
            while len(events_of(center, WorkerPhase)) < 4 and time.monotonic() < deadline:
                time.sleep(0.01)
        told = events_of(center, WorkerPhase)
    assert [(event.worker, event.phase) for event in told] == [
        (1, phase) for phase in ("starting", "importing", "loading", "training")
    ]


def test_a_server_says_how_it_does(monkeypatch):
    monkeypatch.setattr(statuses, "SECONDS", 0.02)
    with serving(num_workers=1, size=3) as (_, center, address), Client(address) as client:
        client.call(Join(0))
        center_before = center.event_log.changes
        time.sleep(0.1)
        assert center.event_log.changes == center_before  # Else there would be a snapshot of nothing.
        found = []
        deadline = time.monotonic() + 10
        sequence = 0
        while time.monotonic() < deadline:
            sequence += 1
            client.call(commit_of(sequence))
            page = client.call(Poll(0))
            found = [event for event in page.events if isinstance(event, ServerStatus)]
            if found and not math.isnan(found[-1].message_norm) and found[-1].exchanges:
                break
            time.sleep(0.01)
        last = found[-1]
    assert (last.server, last.connections) == (0, 1)
    assert last.message_norm == pytest.approx(3.0)
    assert 0 < last.center_norm <= 3.0 * sequence
    assert last.memory > 2**20
    assert min(last.cpu, last.bytes_in, last.bytes_out) > 0


def commit_of(sequence):
    return Exchange(0, sequence, 1, 8, 0, sequence, np.array([2, 2, 1], np.float32))
