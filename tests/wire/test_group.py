"""A center on several servers is one center: the same numbers, every commit once, every event once."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
from serving import serving

from distkeras.algorithms import (
    AEASGD,
    DOWNPOUR,
    EASGD,
    REGISTRY,
    Algorithm,
    DynSGD,
    FedBuff,
    LocalSGD,
    Ringmaster,
)
from distkeras.center import BadUpdates, Center, CenterConfig, server_bounds, trainable_in
from distkeras.center.answers import Refused, Rejoin, Skipped
from distkeras.center.requests import Exchange, Fail, Join, Keep, Leave, Poll, Pull
from distkeras.events import UpdateRefused, Window, WorkerFailed, WorkerJoined, WorkerLeft
from distkeras.wire.client import JobStopped
from distkeras.wire.codecs import FP16, Int8
from distkeras.wire.compression import packing_of
from distkeras.wire.group import Group, connect

SIZE, TRAINABLE, WORKERS = 4000, 3900, 2


@contextmanager
def group_of(num_servers, algorithm=None, size=SIZE, trainable=None, codec=None, **options):
    """Yield the servers, their centers, and their addresses."""
    bounds = server_bounds(size, num_servers)
    packings = [None] * len(bounds)
    if codec is not None:
        governed = size if trainable is None else trainable
        packings = [
            packing_of((algorithm or DOWNPOUR()), codec, high - low, trainable_in(low, high, governed))
            for low, high in bounds
        ]
    with ExitStack() as stack:
        running = []
        for (low, high), packing in zip(bounds, packings, strict=True):
            server = serving(
                algorithm,
                WORKERS,
                high - low,
                num_trainable=None if trainable is None else trainable_in(low, high, trainable),
                packing=packing,
                leads=not running,
                leader=running[0][2] if running else None,
                **(options if not running else _without_epochs(options)),
            )
            running.append(stack.enter_context(server))
        servers, centers, addresses = zip(*running, strict=True)
        yield servers, centers, addresses


def _without_epochs(options):
    """The first server alone counts epochs and holds answers back."""
    return {name: value for name, value in options.items() if name not in ("epoch_rows", "until")}


def commit(worker, sequence, value=1.0, size=SIZE, **fields):
    message = np.full(size, value, np.float32)
    return Exchange(worker, sequence, 1, 32, 0, sequence, message, {"loss": 0.5}, 0, **fields)


def trained(algorithm, num_servers, codec=None, windows=4):
    """The center after two workers have committed in turn, or in rounds, over so many servers."""
    rule = algorithm.for_workers(WORKERS)
    generator = np.random.default_rng(0)
    with (
        group_of(num_servers, algorithm, trainable=TRAINABLE, codec=codec) as (_, _, addresses),
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(addresses)) for _ in range(WORKERS)]
        anchors = [client.call(Join(worker)).center.copy() for worker, client in enumerate(clients)]
        locals_ = [anchor.copy() for anchor in anchors]

        def exchange(worker, sequence, local):
            message = local.copy()
            message[:TRAINABLE] = rule.commit(local[:TRAINABLE], anchors[worker][:TRAINABLE], 3)
            reply = clients[worker].call(Exchange(worker, sequence, 3, 96, 0, sequence, message))
            new = reply.reply.copy()
            new[:TRAINABLE] = rule.adopt(local[:TRAINABLE], message[:TRAINABLE], reply.reply[:TRAINABLE])
            anchors[worker] = locals_[worker] = new

        for sequence in range(1, windows + 1):
            steps = [generator.standard_normal(SIZE).astype(np.float32) for _ in clients]
            threads = [
                threading.Thread(target=exchange, args=(worker, sequence, locals_[worker] + step))
                for worker, step in enumerate(steps)
            ]
            for thread in threads:
                thread.start()
                if not algorithm.synchronous:  # In turn; of a round the order of arrival does not matter.
                    thread.join()
            for thread in threads:
                thread.join()
        return clients[0].call(Pull()).center.copy()


@pytest.mark.parametrize("name", sorted(name for name, rule in REGISTRY.items() if not rule.needs_tensors))
def test_one_two_and_three_servers_have_the_same_center_bit_for_bit(name):
    algorithm = REGISTRY[name]()
    centers = [trained(algorithm, count) for count in (1, 2, 3)]
    assert np.abs(centers[0]).max() > 0
    for center in centers[1:]:
        np.testing.assert_array_equal(center.view(np.uint32), centers[0].view(np.uint32))


@pytest.mark.parametrize("algorithm", [DynSGD(), Ringmaster(delay_threshold=2), FedBuff(buffer_size=3)])
@pytest.mark.parametrize("num_servers", [2, 3])
def test_workers_that_commit_at_once_leave_the_center_of_one_server(algorithm, num_servers):
    """Several servers hold what one center holds after the same messages, in the order of their numbers."""
    commits = 15
    with group_of(num_servers, algorithm) as (_, _, addresses), ExitStack() as stack:
        clients = [stack.enter_context(Group(addresses)) for _ in range(WORKERS)]
        for worker, client in enumerate(clients):
            client.call(Join(worker))

        def train(worker):
            for sequence in range(1, commits + 1):
                clients[worker].call(commit(worker, sequence, value_of(worker, sequence)))

        half = WORKERS * commits * 32 // 2
        clients[0].call(Keep(half))
        threads = [threading.Thread(target=train, args=(worker,)) for worker in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        center = clients[0].call(Pull()).center.copy()
        kept = clients[0].call(Pull(kept=half)).center.copy()
        windows = [event for event in clients[0].call(Poll()).events if isinstance(event, Window)]
    one = Center(CenterConfig(algorithm, WORKERS), np.zeros(SIZE, np.float32), clock=lambda: 7.0)
    for worker in range(WORKERS):
        one.handle(Join(worker))
    for window in sorted(windows, key=lambda window: window.number):
        sequence = window.iteration + 1
        ((_, reply),) = one.handle(commit(window.worker, sequence, value_of(window.worker, sequence)))
        assert reply.staleness == window.staleness
        if one.num_commits == WORKERS * commits // 2:
            assert one.snapshot().tobytes() == kept.tobytes()
    assert one.num_commits == WORKERS * commits
    assert one.snapshot().tobytes() == center.tobytes()


def value_of(worker, sequence):
    return float(np.random.default_rng((worker, sequence)).standard_normal())


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), AEASGD(), EASGD(), LocalSGD()], ids=lambda rule: rule.name)
def test_compressed_messages_and_replies_are_those_of_one_server_bit_for_bit(algorithm):
    centers = [trained(algorithm, count, Int8()) for count in (1, 2, 3)]
    assert np.abs(centers[0]).max() > 0
    for center in centers[1:]:
        np.testing.assert_array_equal(center.view(np.uint32), centers[0].view(np.uint32))


@pytest.mark.parametrize("num_servers", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 5, 1023, 7168, 10_000, 1_000_003])
def test_parts_are_equal_in_bytes_to_within_a_grain(size, num_servers):
    bounds = server_bounds(size, num_servers)
    sizes = [high - low for low, high in bounds]
    assert len(sizes) == min(num_servers, size)
    assert [low for low, _ in bounds] == [0, *(high for _, high in bounds[:-1])]
    assert bounds[-1][1] == size
    assert max(sizes) - min(sizes) <= 2 * 1024
    assert min(sizes) > 0


def test_a_commit_that_one_server_has_already_counts_once_at_each():
    with group_of(2) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        assert worker.call(commit(0, 1)).reply.tolist() == [1.0] * SIZE
        # The connection to the second server was cut before the commit, that to the first after it.
        centers[0].handle(commit(0, 2, 2.0, addresses[0].size))
        reply = worker.call(commit(0, 2, 2.0))
        assert (reply.restart, reply.reply.tolist()) == (True, [3.0] * SIZE)
        assert worker.call(commit(0, 3)).reply.tolist() == [4.0] * SIZE
        assert [center.num_updates for center in centers] == [3, 3]


@pytest.mark.parametrize("num_servers", [1, 2])
def test_replies_arrive_in_memory_that_the_worker_gives(num_servers):
    with group_of(num_servers) as (_, _, addresses), connect(addresses) as worker:
        worker.call(Join(0))
        memory = np.zeros(SIZE, np.float32)
        worker.receive_into(memory)
        assert np.may_share_memory(worker.call(commit(0, 1)).reply, memory)
        assert memory.tolist() == [1.0] * SIZE


def test_a_worker_goes_on_from_the_earliest_place_and_those_that_are_further_repeat():
    with group_of(2) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        for sequence in (1, 2, 3):
            centers[0].handle(commit(0, sequence, size=addresses[0].size))
        centers[1].handle(commit(0, 1, size=addresses[1].size))
        joined = worker.call(Join(0, 1))
        assert (joined.sequence, joined.step) == (1, 1)
        assert joined.center[0] == 3.0
        assert joined.center[-1] == 1.0
        for sequence in (2, 3):
            assert worker.call(commit(0, sequence)).restart
        reply = worker.call(commit(0, 4))
        assert (reply.restart, reply.reply.tolist()) == (False, [4.0] * SIZE)
        assert [center.num_updates for center in centers] == [4, 4]


def test_a_server_that_does_not_know_a_worker_has_it_join_all():
    with group_of(2) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        centers[1]._records.of(0).joined = False  # As after its restart.
        assert worker.call(commit(0, 1)) == Rejoin()
        assert worker.call(Join(0)).sequence == 0
        assert worker.call(commit(0, 1)).reply.tolist() == [1.0] * SIZE
        centers[1]._records.of(0).joined = False
        assert worker.call(Leave(0)) == Rejoin()


@pytest.mark.parametrize("place", [0, SIZE - 1])
@pytest.mark.parametrize(
    ("codec", "value"),
    [(codec, value) for codec in (None, Int8()) for value in (np.nan, 2e19)] + [(FP16(), 7e4)],
    ids=repr,
)
def test_what_no_center_takes_in_one_part_is_refused_by_all(place, codec, value):
    with group_of(2, codec=codec) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        bad = commit(0, 1)
        bad.message[place] = value
        assert isinstance(worker.call(bad), Refused)
        assert [center.snapshot().any() for center in centers] == [False, False]
        assert [center.num_updates for center in centers] == [0, 0]


def test_a_bad_update_is_passed_over_by_all_where_that_is_chosen():
    with group_of(2, bad_updates=BadUpdates("skip")) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        worker.call(commit(0, 1, 2.0))
        bad = commit(0, 2)
        bad.message[-1] = np.inf
        reply = worker.call(bad)
        assert isinstance(reply, Skipped)
        assert reply.center.tolist() == [2.0] * SIZE
        assert worker.call(commit(0, 3)).reply.tolist() == [3.0] * SIZE
        assert [center.num_updates for center in centers] == [2, 2]
        refused = [e for e in worker.call(Poll()).events if isinstance(e, UpdateRefused)]
        assert len(refused) == 1


def test_every_event_and_every_update_counts_once():
    with group_of(3) as (_, _, addresses), Group(addresses) as worker, Group(addresses) as driver:
        worker.call(Join(0))
        worker.call(commit(0, 1))
        worker.call(commit(0, 2))
        worker.call(Fail(0, "it broke"))
        worker.call(Leave(0))
        polled = driver.call(Poll())
        kinds = [type(event) for event in polled.events]
        assert kinds == [WorkerJoined, Window, Window, WorkerFailed, WorkerLeft]
        assert (polled.num_updates, driver.call(Pull()).num_updates) == (2, 2)
        assert driver.call(Poll(polled.next)).events == []


def test_staleness_is_that_of_the_first_server():
    with group_of(2) as (_, centers, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        for index in (0, 1, 1):
            centers[index].handle(Join(1))
        centers[0].handle(commit(1, 1, size=addresses[0].size))
        centers[1].handle(commit(1, 1, size=addresses[1].size))
        centers[1].handle(commit(1, 2, size=addresses[1].size))
        assert worker.call(commit(0, 1)).staleness == 1


@dataclass(frozen=True)
class BreaksOnTwos(Algorithm):
    def apply(self, center, message, commit, state):
        if (message == 2).all():
            raise KeyError("no twos")
        center += message
        return center


def test_an_exception_of_the_rule_on_any_server_reaches_the_driver():
    with (
        group_of(2, BreaksOnTwos()) as (_, _, addresses),
        Group(addresses) as worker,
        Group(addresses) as driver,
    ):
        worker.call(Join(0))
        only_there = commit(0, 1)
        only_there.message[addresses[0].size :] = 2
        assert isinstance(worker.call(only_there), Refused)
        failures = [event for event in driver.call(Poll()).events if isinstance(event, WorkerFailed)]
        assert len(failures) == 1
        assert "no twos" in failures[0].error


def test_a_job_that_is_stopped_at_one_server_is_stopped():
    with group_of(2) as (servers, _, addresses), Group(addresses) as worker:
        worker.call(Join(0))
        servers[1].stop("enough")
        with pytest.raises(JobStopped, match="enough"):
            worker.call(commit(0, 1))
