"""What a server may need is known, and refused if it does not fit, before anything starts."""

from __future__ import annotations

import numpy as np
import pytest

from distkeras.algorithms import DCASGD, DOWNPOUR, EASGD, DelayedNesterov, LocalSGD
from distkeras.center import CenterConfig
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.server_memory import PROCESS_BYTES, memory_needed
from distkeras.cluster.servers import Servers
from distkeras.wire.codecs import Int8
from distkeras.wire.staging import STAGING_BYTES

SIZE = 2**20
VECTOR = 4 * SIZE


def vectors(algorithm, workers, **options):
    """How many vectors a server needs besides what it always needs."""
    config = CenterConfig(algorithm, workers)
    need = sum(memory_needed(config, SIZE, **options).values()) - PROCESS_BYTES - STAGING_BYTES
    return round(need / VECTOR, 2)


@pytest.mark.parametrize("workers", [1, 16, 256])
def test_an_asynchronous_rule_needs_as_much_for_any_number_of_workers(workers):
    assert vectors(DOWNPOUR(), workers) == 2
    assert vectors(DOWNPOUR(), workers, snapshots=True) == 3
    state = vectors(DelayedNesterov(), workers) - 2
    assert state >= 1
    assert vectors(DelayedNesterov(), workers, snapshots=True) == 3 + 2 * state


def test_what_needs_a_vector_for_each_worker_is_counted():
    assert vectors(LocalSGD(), 16) == 2 + 16 + 1
    assert vectors(EASGD(), 16) == 2 + 16 + 1
    assert vectors(DOWNPOUR(), 16, shared_memory=True) == 2 + 16
    assert vectors(DOWNPOUR(), 16, follows=True) == 2 + 16
    assert vectors(DCASGD(), 16) >= 2 + 16
    assert vectors(DOWNPOUR(), 16, compression=Int8()) > 2 + 16


def test_what_goes_around_a_training_is_counted():
    held = CenterConfig(DOWNPOUR(), 4, epoch_rows=100, until=100)
    need = memory_needed(held, SIZE, report_bytes=3 * VECTOR, snapshots=True)
    assert need["answers that wait for the driver"] == 4 * VECTOR
    assert need["the center that the driver writes"] == VECTOR
    assert need["the local states of workers"] == 9 * VECTOR
    setup = ServerSetup(held, options=ServerOptions(memory=2**28), report_bytes=2**28)
    with pytest.raises(ValueError, match=r"the local states of workers 768 MiB"):
        Servers(1, setup, np.zeros(SIZE, np.float32))


def test_a_training_that_cannot_fit_is_refused_with_the_figures():
    setup = ServerSetup(CenterConfig(LocalSGD(), 100), options=ServerOptions(memory=2**29))
    with pytest.raises(ValueError, match=r"messages of a round.* 400 MiB.*memory=536870912"):
        Servers(1, setup, np.zeros(SIZE, np.float32))


@pytest.mark.parametrize("memory", [0, -1, 1.5, True, "8g"])
def test_memory_is_a_number_of_bytes(memory):
    with pytest.raises(ValueError, match=r"`memory` must be a positive number of bytes.*Received: memory="):
        ServerOptions(memory=memory)
