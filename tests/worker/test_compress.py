"""Compressed training: error feedback loses nothing, over a real socket too."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras import algorithms
from distkeras.algorithms import AEASGD, DOWNPOUR, EAMSGD, EASGD, LocalSGD
from distkeras.center import BadUpdates, Center, CenterConfig, Layout
from distkeras.center.bad_updates import RAISE
from distkeras.center.requests import Exchange, Join, Pull
from distkeras.wire import codecs, frames
from distkeras.wire.client import Client, ServerAddress, ServerLost
from distkeras.wire.codecs import BF16, FP16, Int8, Packing, Sign, TopK
from distkeras.wire.compression import Compression, check_compressible, packing_of
from distkeras.wire.server import Server
from distkeras.worker.loop import Loop, TrainingDiverged
from distkeras.worker.minibatch import Minibatch

TOKEN = b"t" * 32
CODECS = [*(codec() for codec in codecs.REGISTRY.values()), TopK(density=0.3)]
EVERY_CODEC = pytest.mark.parametrize("codec", CODECS, ids=repr)


@contextmanager
def serving(codec, size, num_trainable=None, algorithm=None, num_workers=1, bad_updates=RAISE, overlap=False):
    num_trainable = size if num_trainable is None else num_trainable
    initial = np.zeros(size, np.float32)
    config = CenterConfig(
        algorithm or DOWNPOUR(),
        num_workers,
        num_trainable=num_trainable,
        bad_updates=bad_updates,
        overlap=overlap,
    )
    center = Center(config, initial, clock=time.time)
    packing = packing_of(center.algorithm, codec, size, num_trainable)
    server = Server(center, TOKEN, "127.0.0.1", packing=packing)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield center, ServerAddress("127.0.0.1", server.port, TOKEN, size, packing=packing)
    finally:
        server.close()
        thread.join(5)


class Quadratic:
    """Gradient descent on `|w - target|^2 / 2`; its one statistic counts the steps."""

    def __init__(self, target, rate=0.1):
        self.layout = Layout((("w", target.shape),), (("count", (1,)),))
        self.target = target
        self.rate = rate
        self.weights = np.zeros(target.size + 1, np.float32)

    def train(self, x, y=None, sample_weight=None):
        self.weights[:-1] -= self.rate * (self.weights[:-1] - self.target)
        self.weights[-1] += 1

    def read(self):
        return self.weights.copy()

    def write(self, vector):
        self.weights = vector.copy()

    adopt = write

    def collect_metrics(self, before=()):
        pass

    def metrics(self):
        return {"loss": 0.0}


@dataclass
class Steps:
    number: int

    def epoch(self, epoch, start=0):
        for _ in range(start, self.number):
            yield Minibatch(None, None, None, 32)


def commit(sequence, message):
    return Exchange(0, sequence, 1, 32, 0, sequence, message)


@EVERY_CODEC
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2500), st.integers(1, 12), st.integers(-6, 2), st.integers(0, 2**32))
def test_what_was_fed_is_what_was_decoded_plus_the_residual(codec, size, windows, exponent, seed):
    own = Compression(Packing(codec, size, size), at_server=False)
    fed, decoded = np.zeros(size), np.zeros(size)
    generator = np.random.default_rng(seed)
    largest = 0.0
    for sequence in range(windows):
        message = (generator.standard_normal(size) * 10.0**exponent).astype(np.float32)
        fed += message
        own.pack(commit(sequence, message))
        decoded += message
        largest = max(largest, np.abs(message).max(initial=0), np.abs(own.residual).max(initial=0))
    np.testing.assert_allclose(fed, decoded + own.residual, rtol=0, atol=windows * largest * 2.0**-23)


@EVERY_CODEC
def test_the_message_becomes_what_the_bytes_decode_to(codec):
    packing = Packing(codec, 2000, 1990)
    own = Compression(packing, at_server=False)
    generator = np.random.default_rng(1)
    for sequence in range(3):
        message = generator.standard_normal(2000).astype(np.float32)
        encoded = own.pack(commit(sequence, message))
        decoded = np.empty_like(message)
        packing.decode(encoded.data, decoded)
        np.testing.assert_array_equal(message, decoded)
        assert encoded.codec == codec.number
        assert not own.residual[1990:].any()  # The statistics.


@pytest.mark.parametrize("codec", [FP16(), BF16(), Int8(), Sign(), TopK(density=0.3)], ids=repr)
def test_downpour_converges_over_a_real_socket(codec):
    target = np.linspace(-1, 1, 300, dtype=np.float32)
    replica = Quadratic(target)
    with serving(codec, 301, 300) as (center, address), Client(address) as client:
        feed = Steps(1600)
        Loop(replica, feed, DOWNPOUR(4), client.call, worker=0, num_epoch=1).run()
        assert center.num_updates == 400
        np.testing.assert_allclose(center.snapshot()[:300], target, atol=0.02)
        assert center.snapshot()[300] == 1600.0


def test_error_feedback_sends_at_last_what_the_codec_alone_would_drop_for_ever():
    target = np.full(300, 1.0, np.float32)
    target[:150] = 100.0
    packing = Packing(TopK(density=0.5), 300, 300)
    own = Compression(packing, at_server=False)
    lossy, whole = np.zeros(300, np.float32), np.zeros(300, np.float32)
    data = np.empty(packing.num_bytes, np.uint8)
    for sequence in range(4):
        message = target.copy()
        own.pack(commit(sequence, message))
        whole += message
        packing.encode(target, data)
        packing.decode(data, message)
        lossy += message
    assert not lossy[150:].any()
    np.testing.assert_allclose(whole + own.residual, 4 * target)


def test_both_sides_hold_the_decoded_message():
    seen = []

    @dataclass(frozen=True)
    class Adopting(DOWNPOUR):
        def adopt(self, local, message, reply):
            seen.append(message.copy())
            return reply

    replica = Quadratic(np.linspace(-1, 1, 300, dtype=np.float32))
    with serving(Int8(), 301, 300) as (center, address), Client(address) as client:
        Loop(replica, Steps(8), Adopting(4), client.call, worker=0, num_epoch=1).run()
        np.testing.assert_allclose(center.snapshot()[:300], sum(seen), rtol=1e-6)


def test_workers_of_a_synchronous_round_compress_too():
    targets = [np.full(20, 1.0, np.float32), np.full(20, 3.0, np.float32)]
    with serving(Int8(), 21, 20, LocalSGD(5), num_workers=2) as (center, address):

        def work(worker):
            with Client(address) as client:
                replica = Quadratic(targets[worker])
                options = {"worker": worker, "num_epoch": 1}
                Loop(replica, Steps(200), LocalSGD(5), client.call, **options).run()

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert center.num_updates == 40
        np.testing.assert_allclose(center.snapshot()[:20], 2.0, atol=0.01)


def test_a_compressed_commit_whose_reply_was_lost_counts_once():
    with serving(Int8(), 100) as (center, address), Client(address) as client:
        client.call(Join(0))
        message = np.linspace(0, 1, 100, dtype=np.float32)
        request = commit(1, message)
        client._connection.send(request)
        while center.num_updates == 0:
            time.sleep(0.01)
        client.close()  # The reply is on the wire; the worker never sees it.
        decoded, residual = message.copy(), client._compression.residual.copy()
        assert client.call(request).restart
        np.testing.assert_array_equal(center.snapshot(), decoded)
        np.testing.assert_array_equal(message, decoded)  # What is sent again is not compressed again.
        np.testing.assert_array_equal(client._compression.residual, residual)


@pytest.mark.parametrize(
    ("job", "sent"),
    [(Int8(), None), (Int8(), FP16()), (FP16(), BF16()), (None, Int8()), (TopK(), TopK(density=0.5))],
    ids=repr,
)
def test_a_message_in_another_codec_than_the_jobs_is_refused(job, sent):
    packing = None if sent is None else Packing(sent, 100, 100)
    with serving(job, 100) as (center, address):
        with Client(replace(address, packing=packing), patience=0.0) as client:
            client.call(Join(0))
            with pytest.raises(ServerLost):
                client.call(commit(1, np.ones(100, np.float32)))
        assert center.num_updates == 0


def test_bytes_that_no_encoder_wrote_end_the_connection():
    class Rubbish(TopK):
        def encode(self, vector, out):
            out.fill(255)

        def decode(self, data, out):
            out.fill(0)

    with serving(TopK(), 100) as (center, address):
        with Client(replace(address, packing=Packing(Rubbish(), 100, 100)), patience=0.0) as client:
            client.call(Join(0))
            with pytest.raises(ServerLost):
                client.call(commit(1, np.ones(100, np.float32)))
        assert not center.snapshot().any()


def test_only_exchanges_travel_compressed():
    with serving(Int8(), 100) as (_, address), Client(address) as client:
        assert client.call(Join(0)).center.tolist() == [0.0] * 100
        assert client.call(Pull()).center.tolist() == [0.0] * 100
    header = frames.HEADER.pack(frames.MAGIC, frames.VERSION, 1, Int8.number, 2, 0, 0)
    with pytest.raises(
        frames.FrameError,
        match=r"Expected 0 bytes of vector in codec 0 in a Join. Received: 0 bytes in codec 3",
    ):
        frames.parse_header(header, frames.REQUESTS, 10, 400, {Exchange: [(Int8.number, 104)]})


@EVERY_CODEC
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_the_center(codec, value):
    replica = Quadratic(np.ones(300, np.float32))
    replica.train = lambda *_: replica.weights.__setitem__(7, value)
    with serving(codec, 301, 300) as (center, address), Client(address) as client:
        with pytest.raises(TrainingDiverged, match="refused the update"):
            Loop(replica, Steps(4), DOWNPOUR(4), client.call, worker=0, num_epoch=1).run()
        assert not center.snapshot().any()


@EVERY_CODEC
def test_a_window_that_was_passed_over_leaves_nothing_in_the_residual(codec):
    replica = Quadratic(np.ones(300, np.float32))
    train, steps = replica.train, []

    def train_badly_once(*batch):
        train(*batch)
        steps.append(1)
        if len(steps) == 6:
            replica.weights[7] = np.nan

    replica.train = train_badly_once
    with serving(codec, 301, 300, bad_updates=BadUpdates("skip")) as (center, address):
        with Client(address) as client:
            Loop(replica, Steps(40), DOWNPOUR(4), client.call, worker=0, num_epoch=1).run()
            assert np.isfinite(client._compression.residual).all()
        assert center.num_updates == 9
        assert np.isfinite(center.snapshot()).all()


@pytest.mark.parametrize("codec", [FP16(), BF16(), Int8(), Sign(), TopK(density=0.3)], ids=repr)
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("rule", [AEASGD(4, 2.0), EAMSGD(4, 2.0), EASGD(4, 0.2)], ids=lambda rule: rule.name)
def test_elastic_rules_converge_over_a_real_socket(rule, overlap, codec):
    target = np.linspace(-1, 1, 300, dtype=np.float32)
    replica = Quadratic(target)
    options = {"worker": 0, "num_epoch": 1, "overlap": overlap}
    with serving(codec, 301, 300, rule, overlap=overlap) as (center, address), Client(address) as client:
        Loop(replica, Steps(400), center.algorithm, client.call, **options).run()
        assert center.num_updates == 100
        np.testing.assert_allclose(center.snapshot()[:300], target, atol=0.02)
        assert center.snapshot()[300] == 400.0


def test_rules_by_which_something_would_be_lost_are_refused():
    weights = {"Averaging", "Sequential"}
    for name in weights:
        with pytest.raises(ValueError, match=rf"{name} sends weights.*Received: algorithm={name}\("):
            check_compressible(algorithms.REGISTRY[name]())
    for name in set(algorithms.REGISTRY) - weights:
        check_compressible(algorithms.REGISTRY[name]())
