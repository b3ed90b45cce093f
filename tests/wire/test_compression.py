"""Compression of weights and of replies: differences to what has arrived, by which nothing is lost."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from serving import serving

from distkeras.algorithms import AEASGD, DOWNPOUR, EAMSGD, EASGD, REGISTRY, LocalSGD
from distkeras.center import BadUpdates
from distkeras.center.answers import Exchanged, Skipped
from distkeras.center.requests import Exchange, Join
from distkeras.wire.client import Client
from distkeras.wire.codecs import BF16, FP16, ChunkTopK, Int8, Packing, Sign, TopK
from distkeras.wire.compression import Compression, check_compressible, is_elastic, packing_of, sends_weights
from distkeras.wire.stream import Stream

sys.path.append(str(Path(__file__).parents[1] / "algorithms"))
from driving import Job, wander

SIZE = 2100
CODECS = [FP16(), BF16(), Int8(), Sign(), TopK(density=0.1), ChunkTopK(density=0.1)]
EVERY_CODEC = pytest.mark.parametrize("codec", CODECS, ids=repr)
START = np.linspace(-3, 3, 23).astype(np.float32)
COMPRESSIBLE = [rule() for name, rule in REGISTRY.items() if name not in ("Averaging", "Sequential")]
ELASTIC = [AEASGD(rho=4.0, learning_rate=0.1), EAMSGD(rho=9.0, learning_rate=0.1), EASGD()]


class CompressedJob(Job):
    """Workers whose messages and replies go through both ends of a connection each."""

    def __init__(self, codec, algorithm, initial, num_workers=1):
        self.packing = packing_of(algorithm, codec, np.size(initial), np.size(initial))
        ends = [{"at_server": False}, {"at_server": True}]
        self.ends = [[Compression(self.packing, **end) for end in ends] for _ in range(num_workers)]
        super().__init__(algorithm, initial, num_workers)

    def request(self, worker, num_steps=1, num_samples=1):
        request = super().request(worker, num_steps, num_samples)
        own, center = self.ends[worker]
        if (encoded := own.pack(request)) is None:
            center.take_note(request, whole=True)
        else:
            arrived = np.empty_like(request.message)
            center.unpack(encoded.data, arrived)
            np.testing.assert_array_equal(request.message, arrived)
        self.sent[worker] = request.message.copy()
        return request

    def hear(self, answers):
        return super().hear([(worker, self.answered(worker, answer)) for worker, answer in answers])

    def answered(self, worker, answer):
        own, center = self.ends[worker]
        encoded = center.pack(answer)
        if encoded is None:
            own.take_note(answer, whole=True)
            return answer
        arrived = np.empty_like(answer.reply)
        own.unpack(encoded.data, arrived)
        return Exchanged(arrived, answer.staleness)


class Conserving(CompressedJob):
    """Checks that no exchange changes the sum of the center and all workers."""

    largest = 0.0

    def total(self):
        return self.weights.astype(float) + sum(local.astype(float) for local in self.local)

    def hear(self, answers):
        heard = super().hear(answers)
        if len(heard) == (len(self.local) if self.algorithm.synchronous else 1):
            error = np.abs(self.total() - self.before).max()
            self.largest = max(self.largest, np.abs(self.local).max())
            assert error <= 2.0**-20 * max(1.0, self.largest)
        return heard

    def request(self, worker, num_steps=1, num_samples=1):
        request = super().request(worker, num_steps, num_samples)
        self.before = self.total()
        return request


@EVERY_CODEC
@pytest.mark.parametrize("rule", ELASTIC, ids=lambda rule: rule.name)
def test_a_compressed_elastic_exchange_conserves_the_sum_of_center_and_workers(rule, codec):
    job = wander(Conserving(codec, rule, START, 3), num_commits=60)
    assert job.largest > 0


@EVERY_CODEC
@pytest.mark.parametrize("rule", COMPRESSIBLE, ids=lambda rule: rule.name)
def test_workers_that_trained_nothing_move_nothing(rule, codec):
    job = CompressedJob(codec, rule, START, 2)
    for _ in range(3):
        job.round()
    np.testing.assert_array_equal(job.weights, START)
    for local in job.local:
        np.testing.assert_array_equal(local, START)


@pytest.mark.parametrize("codec", [BF16(), Int8()], ids=repr)
@pytest.mark.parametrize("rule", COMPRESSIBLE, ids=lambda rule: rule.name)
def test_a_fine_codec_hardly_changes_the_trajectory(rule, codec):
    plain = wander(Job(rule, START, 3), num_commits=30)
    compressed = wander(CompressedJob(codec, rule, START, 3), num_commits=30)
    assert np.abs(plain.weights - START).max() > 0.1
    np.testing.assert_allclose(compressed.weights, plain.weights, atol=0.05)


@EVERY_CODEC
def test_round_robin_of_elastic_workers_is_stable_at_any_number_of_them(codec):
    """Alpha and eta lie under the bound of the theory, (4 - 2 eta) / (4 - eta), that does not know N."""
    job = CompressedJob(codec, AEASGD(rho=8.0, learning_rate=0.1), START, 12)
    for _ in range(400):
        for worker in job.workers:
            job.train(worker, rate=0.5)
            job.exchange(worker)
    np.testing.assert_allclose(job.weights, 0, atol=1e-3)


@EVERY_CODEC
def test_what_one_difference_lacks_comes_with_the_next(codec):
    packing = packing_of(AEASGD(), codec, SIZE, SIZE - 3)
    own, center = Compression(packing, at_server=False), Compression(packing, at_server=True)
    generator = np.random.default_rng(0)
    first = commit(1, generator.standard_normal(SIZE).astype(np.float32))
    assert own.pack(first) is None
    center.take_note(first, whole=True)
    target = generator.standard_normal(SIZE).astype(np.float32)
    arrived, errors = np.empty_like(target), []
    for sequence in range(2, 202):
        center.unpack(own.pack(commit(sequence, target.copy())).data, arrived)
        errors.append(np.linalg.norm(arrived - target))
    np.testing.assert_array_equal(arrived[-3:], target[-3:])  # The statistics.
    assert errors[0] > 0
    assert errors[-1] <= 0.05 * errors[0]


@dataclass(frozen=True)
class Forgetful(DOWNPOUR):
    """DOWNPOUR whose workers forget a part of what compression drops."""

    residual_decay: float = 0.5


def test_the_residual_decays_before_the_next_message_adds_to_it():
    packing = packing_of(Forgetful(), TopK(density=0.25), 4, 4)
    own, sent = Compression(packing, at_server=False), []
    for sequence, delta in enumerate(([4, 2, 1, 0], [1, 1, 1, 0], [1, 1, 1, 3]), start=1):
        message = np.array(delta, np.float32)
        own.pack(commit(sequence, message))
        sent.append(message.tolist())
    assert sent == [[4, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 3]]
    assert own.residual.tolist() == [1.5, 1, 1.75, 0]


@EVERY_CODEC
def test_a_residual_that_does_not_decay_is_the_same_to_the_bit(codec):
    plain, same, forgetful = (
        Compression(packing_of(rule, codec, SIZE, SIZE - 3), at_server=False)
        for rule in (DOWNPOUR(), Forgetful(residual_decay=1), Forgetful(residual_decay=0.9))
    )
    generator = np.random.default_rng(0)
    for sequence in (1, 2, 3):
        delta = generator.standard_normal(SIZE).astype(np.float32)
        bits = [bytes(own.pack(commit(sequence, delta.copy())).data) for own in (plain, same, forgetful)]
        assert bits[0] == bits[1]
        assert (bits[0] == bits[2]) == (sequence == 1)
    np.testing.assert_array_equal(plain.residual, same.residual)


@pytest.mark.parametrize("decay", [-0.1, 1.1, np.nan, True, "1", None])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=rf"a number in \[0, 1\].*Received: residual_decay={decay!r}"):
        check_compressible(Forgetful(residual_decay=decay))
    with pytest.raises(ValueError, match="`residual_decay` of an algorithm"):
        packing_of(Forgetful(residual_decay=decay), Int8(), 8, 8)


def commit(sequence, message, worker=0):
    return Exchange(worker, sequence, 1, 32, 0, sequence, message)


def serving_compressed(rule, codec, num_workers=1, **options):
    packing = packing_of(rule.for_workers(num_workers), codec, SIZE, SIZE)
    return serving(rule, num_workers, SIZE, packing=packing, **options)


@pytest.mark.parametrize("rule", [AEASGD(), DOWNPOUR()], ids=lambda rule: rule.name)
def test_int8_takes_a_quarter_of_the_bytes_in_each_direction_it_goes(rule, monkeypatch):
    received = {"messages": 0, "replies": 0}
    filling, worker = Stream.filling, threading.current_thread()

    def counting(stream, view):
        received["replies" if threading.current_thread() is worker else "messages"] += len(view)
        return filling(stream, view)

    with serving_compressed(rule, Int8()) as (_, _, address), Client(address) as client:
        client.call(Join(0))
        for sequence in range(1, 12):
            if sequence == 2:  # The first vector of a connection travels whole.
                monkeypatch.setattr(Stream, "filling", counting)
            message = np.full(SIZE, 1e-3 * sequence, np.float32)
            client.call(commit(sequence, message))
    whole = 10 * 4 * SIZE
    text = 10 * 200  # Header and fields.
    assert received["messages"] <= 0.26 * whole + text
    assert received["replies"] <= (0.26 if address.packing.replies else 1.0) * whole + text
    assert address.packing.replies == (not sends_weights(rule))


@EVERY_CODEC
def test_elastic_workers_meet_over_a_real_socket(codec):
    rule = AEASGD(rho=5.0, learning_rate=0.1)
    targets = [np.linspace(-1, 1, SIZE, dtype=np.float32), np.linspace(1, -1, SIZE, dtype=np.float32)]
    with (
        serving_compressed(rule, codec, 2) as (_, center, address),
        Client(address) as one,
        Client(address) as other,
    ):
        locals_ = [client.call(Join(worker)).center.copy() for worker, client in enumerate((one, other))]
        for sequence in range(1, 300):
            for worker, client in enumerate((one, other)):
                local = locals_[worker]
                local -= np.float32(0.1) * (local - targets[worker])
                message = rule.commit(local, local, 1)
                reply = client.call(commit(sequence, message, worker)).reply
                locals_[worker] = rule.adopt(local, message, reply)
        np.testing.assert_allclose(center.snapshot(), 0, atol=0.1)


def test_a_compressed_commit_of_weights_whose_reply_was_lost_counts_once():
    rule = AEASGD(rho=5.0, learning_rate=0.1)
    with serving_compressed(rule, Int8()) as (_, center, address), Client(address) as client:
        client.call(Join(0))
        client.call(commit(1, np.ones(SIZE, np.float32)))
        request = commit(2, np.linspace(1, 2, SIZE, dtype=np.float32))
        client._connection.send(request)
        while center.num_updates < 2:
            pass
        client.close()  # The reply is on the wire; the worker never sees it.
        before = center.snapshot()
        reply = client.call(request)
        assert reply.restart
        np.testing.assert_array_equal(reply.reply, before)
        for sequence in (3, 4):  # The connection is a new one: the first travels whole, the next does not.
            weights = np.full(SIZE, 2.0, np.float32)
            before = center.snapshot()
            force = client.call(commit(sequence, weights)).reply
            np.testing.assert_allclose(force, 0.5 * (weights - before), atol=1e-6)
            np.testing.assert_array_equal(center.snapshot(), before + force)


def test_a_difference_that_the_network_brought_twice_is_the_last_until_weights_travel_whole():
    packing = packing_of(AEASGD(), Int8(), SIZE, SIZE)
    own, center = (Compression(packing, at_server=at_server) for at_server in (False, True))
    whole = (0, 4 * SIZE)
    first, second = (commit(sequence, np.full(SIZE, sequence, np.float32)) for sequence in (1, 2))
    assert own.pack(first) is None
    center.take_note(first, whole=True)
    encoded, out = own.pack(second), np.empty(SIZE, np.float32)
    for _ in range(2):
        assert center.forms(whole)[Exchange] == ((Int8.number, packing.num_bytes),)
        center.unpack(encoded.data, out)
    again = Exchanged(out, 0, restart=True, sequence=2)
    center.pack(again)
    assert Exchange not in center.forms(whole)
    own.take_note(again, whole=True)
    assert own.pack(commit(3, np.ones(SIZE, np.float32))) is None


def test_weights_that_are_not_finite_are_passed_over_and_do_not_stay():
    with (
        serving_compressed(AEASGD(), Int8(), bad_updates=BadUpdates("skip")) as (_, center, address),
        Client(address) as client,
    ):
        client.call(Join(0))
        client.call(commit(1, np.ones(SIZE, np.float32)))
        for sequence in (2, 3):
            assert isinstance(client.call(commit(sequence, np.full(SIZE, np.nan, np.float32))), Skipped)
        for sequence in (4, 5):
            assert isinstance(client.call(commit(sequence, np.ones(SIZE, np.float32))), Exchanged)
        assert np.isfinite(center.snapshot()).all()
        assert center.num_updates == 3


def test_the_reply_of_a_round_is_compressed_for_each_worker():
    rule = LocalSGD()
    with serving_compressed(rule, Int8(), 2) as (_, center, address):

        def work(worker, given):
            with Client(address) as client:
                anchor = client.call(Join(worker)).center.copy()
                for sequence in range(1, 30):
                    message = np.float32(0.3) * (np.full(SIZE, worker, np.float32) - anchor)
                    anchor = client.call(commit(sequence, message, worker)).reply.copy()
                given.append(anchor)

        given: list[np.ndarray] = []
        threads = [threading.Thread(target=work, args=(worker, given)) for worker in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert center.num_updates == 29
        for anchor in given:
            np.testing.assert_allclose(anchor, center.snapshot(), atol=1e-4)
        np.testing.assert_allclose(center.snapshot(), 0.5, atol=0.01)


def test_what_is_compressed_follows_from_rule_and_codec():
    def ways(rule, codec):
        packing = packing_of(rule, codec, 8, 8)
        return packing.weights, packing.replies

    assert packing_of(DOWNPOUR(), None, 8, 8) is None
    assert ways(DOWNPOUR(), Int8()) == (False, True)
    assert ways(DOWNPOUR(), TopK()) == (False, False)  # A reply is all that a worker gets.
    assert ways(LocalSGD(), Sign()) == (False, False)
    assert ways(REGISTRY["Averaging"](), Int8()) == (True, False)
    assert ways(REGISTRY["StreamingDiLoCo"](), Int8()) == (False, True)  # It counts its delta from the reply.
    with pytest.raises(ValueError, match=r"not both\. Received: weights=True, replies=True"):
        Packing(Int8(), 8, 8, weights=True, replies=True)
    for rule in (AEASGD(), EAMSGD(), EASGD()):
        assert ways(rule, Int8()) == (True, False)
        assert is_elastic(rule)
    assert not any(
        map(is_elastic, (DOWNPOUR(), LocalSGD(), REGISTRY["Averaging"](), REGISTRY["Sequential"]()))
    )
