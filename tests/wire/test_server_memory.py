"""What a server may need is known, and refused if it does not fit, before anything starts."""

from __future__ import annotations

import numpy as np
import pytest

from distkeras.algorithms import (
    DCASGD,
    DOWNPOUR,
    EASGD,
    DelayedNesterov,
    LocalSGD,
    RingleaderASGD,
    StreamingDiLoCo,
)
from distkeras.center import CenterConfig, Fragments
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.server_memory import PROCESS_BYTES, memory_needed
from distkeras.cluster.servers import Servers
from distkeras.wire.codecs import FP4, Int8
from distkeras.wire.codecs.compiled import MEMORY_BYTES, SMALLEST
from distkeras.wire.staging import STAGING_BYTES

SIZE = 2**20
VECTOR = 4 * SIZE
WRITING = 1  # A vector is less than the piece that is copied for writing.


def vectors(algorithm, workers, **options):
    """How many vectors a server needs besides what it always needs."""
    config = CenterConfig(algorithm, workers)
    need = sum(memory_needed(config, SIZE, **options).values()) - PROCESS_BYTES - STAGING_BYTES
    return round(need / VECTOR, 2)


@pytest.mark.parametrize("workers", [1, 16, 256])
def test_an_asynchronous_rule_needs_as_much_for_any_number_of_workers(workers):
    assert vectors(DOWNPOUR(), workers) == 2
    assert vectors(DOWNPOUR(), workers, snapshots=True) == 3 + WRITING
    state = vectors(DelayedNesterov(), workers) - 2
    assert state >= 1
    assert vectors(DelayedNesterov(), workers, snapshots=True) == 3 + 2 * state + WRITING


def test_what_needs_a_vector_for_each_worker_is_counted():
    assert vectors(LocalSGD(), 16) == 2 + 16 + 1
    assert vectors(EASGD(), 16) == 2 + 16 + 1
    assert vectors(DOWNPOUR(), 16, shared_memory=True) == 2 + 16
    assert vectors(LocalSGD(), 16, shared_memory=True) == 2 + 16 + 1  # The messages lie in shared memory.
    assert vectors(DOWNPOUR(), 16, follows=True) == 2 + 16 + 16
    assert vectors(DCASGD(), 16) >= 2 + 16
    assert vectors(RingleaderASGD(), 16) == pytest.approx(2 + 16 + 1, abs=0.1)  # its table and its mean
    assert vectors(DOWNPOUR(), 16, compression=Int8()) > 2 + 16


def test_messages_of_fragments_have_their_size_and_the_rest_that_of_the_center():
    parts = Fragments((((0, SIZE // 4),), ((SIZE // 4, SIZE),)))
    rule = StreamingDiLoCo(4, fragments=2)
    whole, fragmented = (
        memory_needed(CenterConfig(rule, 16, fragments=each), SIZE) for each in (None, parts)
    )
    messages = "messages of a round, or waiting for their turn"
    assert (whole[messages], fragmented[messages]) == (16 * VECTOR, 12 * VECTOR)
    assert fragmented["the center"] == VECTOR


def test_numba_is_counted_where_it_compiles_the_codec(monkeypatch):
    for installed, size, codec, expected in (
        (True, SIZE, Int8(), MEMORY_BYTES),
        (True, SMALLEST - 1, Int8(), 0),
        (True, SIZE, FP4(), 0),
        (False, SIZE, Int8(), 0),
    ):
        found = object() if installed else None
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        need = memory_needed(CenterConfig(DOWNPOUR(), 2), size, compression=codec)
        assert need.get("Numba", 0) == expected


def test_what_goes_around_a_training_is_counted():
    held = CenterConfig(DOWNPOUR(), 4, epoch_rows=100, until=100)
    need = memory_needed(held, SIZE, report_bytes=3 * VECTOR, snapshots=True)
    assert need["copies at the ends of epochs"] == 2 * VECTOR
    assert need["answers that wait for the driver"] == 4 * VECTOR
    assert need["the center that the driver writes"] == VECTOR
    assert need["the local states of workers"] == 9 * VECTOR
    setup = ServerSetup(held, options=ServerOptions(memory=2**28), report_bytes=2**28)
    with pytest.raises(ValueError, match=r"the local states of workers 768 MiB"):
        Servers(1, setup, np.zeros(SIZE, np.float32))


def test_a_training_that_cannot_fit_is_refused_with_the_figures():
    options = ServerOptions(memory=2**29, shared_memory=False)
    setup = ServerSetup(CenterConfig(LocalSGD(), 100), options=options)
    with pytest.raises(ValueError, match=r"messages of a round.* 400 MiB.*memory=536870912"):
        Servers(1, setup, np.zeros(SIZE, np.float32))


@pytest.mark.parametrize("memory", [0, -1, 1.5, True, "8g"])
def test_memory_is_a_number_of_bytes(memory):
    with pytest.raises(ValueError, match=r"`memory` must be a positive number of bytes.*Received: memory="):
        ServerOptions(memory=memory)
