"""Fragments over real sockets: exact sizes, compression of each, and refusals."""

from __future__ import annotations

import time

import numpy as np
import pytest
from serving import serving

from distkeras.algorithms import AEASGD, DOWNPOUR, Algorithm
from distkeras.center import BadUpdates, CenterConfig, Fragments
from distkeras.center.answers import Skipped
from distkeras.center.requests import Exchange, Join, Pull
from distkeras.wire import codecs, shared_memory
from distkeras.wire.client import Client
from distkeras.wire.connection import Connection
from distkeras.wire.fragment_compression import packing_for

PARTS = Fragments((((0, 1000), (2500, 3000), (4500, 5000)), ((1000, 2500), (3000, 4500))))
SIZE, NUM_TRAINABLE = 5000, 4400


def exchange(sequence, vector, worker=0):
    """Return commit `sequence` of the fragment's elements of `vector`."""
    fragment = (sequence - 1) % 2
    message = PARTS.gather(vector, fragment).copy()
    return Exchange(worker, sequence, 1, 8, 0, sequence, message, fragment=fragment)


@pytest.fixture(params=["tcp", "shared memory"] if shared_memory.AVAILABLE else ["tcp"])
def transport(request, monkeypatch):
    monkeypatch.setattr("serving.TRANSPORT", request.param)


def in_fragments(rule=None, num_workers=1, codec=None, **options):
    return serving(
        rule or DOWNPOUR(2),
        num_workers,
        SIZE,
        num_trainable=NUM_TRAINABLE,
        fragments=PARTS,
        codec=codec,
        **options,
    )


def test_only_the_elements_of_a_fragment_travel(transport, monkeypatch):
    sizes = []
    posted = Connection.posted

    def noting(self, message):
        sizes.append(getattr(message, "message", getattr(message, "reply", np.empty(0))).size)
        return posted(self, message)

    monkeypatch.setattr(Connection, "posted", noting)
    vector = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    with in_fragments(checksum=True) as (_, center, address), Client(address) as client:
        joined = client.call(Join(0))
        np.testing.assert_array_equal(joined.center, np.zeros(SIZE))
        for sequence in (1, 2, 3):
            reply = client.call(exchange(sequence, vector))
            fragment = (sequence - 1) % 2
            np.testing.assert_array_equal(reply.reply, PARTS.gather(center.snapshot(), fragment))
        np.testing.assert_array_equal(client.call(Pull()).center, center.snapshot())
        expected = vector.copy()
        for low, high in PARTS.parts[0]:
            expected[low : min(high, NUM_TRAINABLE)] *= 2
        np.testing.assert_allclose(center.snapshot(), expected, rtol=1e-6)
    first, second = PARTS.sizes
    assert [size for size in sizes if size] == [first] * 2 + [second] * 2 + [first] * 2


def test_a_commit_in_fragments_whose_reply_was_lost_counts_once(transport):
    with in_fragments() as (_, center, address), Client(address) as client:
        client.call(Join(0))
        for sequence in (1, 2):
            client._connection.send(exchange(sequence, np.ones(SIZE, np.float32)))
            while center.num_commits < sequence:
                time.sleep(0.01)
            client.close()
            reply = client.call(exchange(sequence, np.ones(SIZE, np.float32)))
            assert reply.restart
            np.testing.assert_array_equal(reply.reply, np.ones(PARTS.sizes[sequence - 1]))
        assert center.num_commits == 2


def test_a_message_of_another_size_than_its_fragment_is_not_read():
    with in_fragments() as (_, center, address), Client(address) as client:
        client.call(Join(0))
        for fragment, size in ((0, 3000), (1, 2000), (2, 2000), (-1, 2000), (0, SIZE), (0, 0)):
            bad = Exchange(0, 1, 1, 8, 0, 1, np.zeros(size, np.float32), fragment=fragment)
            client._connection.send(bad)
            with pytest.raises(ConnectionError):
                client._connection.receive(np.empty(SIZE, np.float32))
            client.close()
            client.call(Pull())  # Connects again.
        assert center.num_commits == 0
        client.call(Join(0))
        assert client.call(exchange(1, np.ones(SIZE, np.float32))).sequence == 1


@pytest.mark.parametrize("codec", ["int8", "fp4", "topk", "chunktopk", "sign", "bf16"])
def test_each_fragment_feeds_back_what_its_messages_dropped(codec):
    random = np.random.default_rng(1)
    sent, decoded = np.zeros(SIZE), np.zeros(SIZE)
    with in_fragments(codec=codecs.get(codec)) as (_, center, address), Client(address) as client:
        client.call(Join(0))
        for sequence in range(1, 9):
            vector = random.normal(size=SIZE).astype(np.float32)
            request = exchange(sequence, vector)
            part = np.zeros(SIZE, np.float32)
            PARTS.scatter(request.message, request.fragment, part)
            sent += part
            if sequence == 5:  # A lost connection needs no repair: the next vectors travel whole.
                client.close()
            reply = client.call(request)
            PARTS.scatter(request.message, request.fragment, part)
            decoded += part
            known = PARTS.gather(center.snapshot(), request.fragment)
            split = center.members[request.fragment].config.trainable_of(known.size)
            tolerance = 0.05 if codec in ("int8", "bf16") else 1e-6
            np.testing.assert_allclose(reply.reply[:split], known[:split], atol=tolerance)
            np.testing.assert_array_equal(reply.reply[split:], known[split:])
        residuals = [part.residual for part in client._compression._parts]
        lacking = PARTS.whole(residuals)[:NUM_TRAINABLE]
        np.testing.assert_allclose(sent[:NUM_TRAINABLE], (decoded[:NUM_TRAINABLE] + lacking), atol=1e-4)
        np.testing.assert_allclose(center.snapshot()[:NUM_TRAINABLE], decoded[:NUM_TRAINABLE], atol=1e-4)
        client.call(Join(0, 1))
        assert all(part.residual is None for part in client._compression._parts)


def test_compressed_elastic_fragments_conserve_the_sum():
    rule = AEASGD(2, rho=5.0, learning_rate=0.1)
    local = np.random.default_rng(2).normal(size=SIZE).astype(np.float32)
    local[NUM_TRAINABLE:] = 0
    total = local[:NUM_TRAINABLE].astype(float).sum()
    with in_fragments(rule, codec=codecs.get("int8")) as (_, center, address), Client(address) as client:
        client.call(Join(0))
        for sequence in range(1, 7):
            request = exchange(sequence, local)
            reply = client.call(request)
            part = PARTS.gather(local, request.fragment).copy()
            split = center.members[request.fragment].config.trainable_of(part.size)
            part[:split] -= reply.reply[:split]
            PARTS.scatter(part, request.fragment, local)
            both = local[:NUM_TRAINABLE].astype(float) + center.snapshot()[:NUM_TRAINABLE]
            assert both.sum() == pytest.approx(total, abs=1e-2)


@pytest.mark.parametrize("codec", [None, codecs.get("int8")], ids=["plain", "int8"])
def test_a_skipped_window_brings_the_whole_center_and_training_goes_on(codec):
    with (
        in_fragments(codec=codec, bad_updates=BadUpdates("skip")) as (_, center, address),
        Client(address) as client,
    ):
        client.call(Join(0))
        client.call(exchange(1, np.ones(SIZE, np.float32)))
        skipped = client.call(exchange(2, np.full(SIZE, np.nan, np.float32)))
        assert isinstance(skipped, Skipped)
        np.testing.assert_array_equal(skipped.center, center.snapshot())
        for sequence in (3, 4):
            reply = client.call(exchange(sequence, np.ones(SIZE, np.float32)))
            known = PARTS.gather(center.snapshot(), (sequence - 1) % 2)
            np.testing.assert_allclose(reply.reply, known, atol=0.05)


def test_the_sizes_of_all_fragments_are_known_with_and_without_a_codec():
    class Rule(Algorithm):
        def apply(self, center, message, commit, state):
            return center

    config = CenterConfig(Rule(2), num_trainable=NUM_TRAINABLE, fragments=PARTS)
    assert packing_for(config, None, SIZE).sizes == (2000, 3000)
    packed = packing_for(config, codecs.get("int8"), SIZE)
    assert [(each.size, each.num_trainable) for each in packed.packings] == [(2000, 1500), (3000, 2900)]
    assert packing_for(CenterConfig(Rule(2)), None, SIZE) is None
