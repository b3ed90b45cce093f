"""Several server processes of a rule that takes norms of tensors: no tensor is cut between two of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Join, Leave, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.record import replay
from distkeras.wire.group import connect

TENSORS = (700, 900, 2000)
SIZE = sum(TENSORS) + 5


@dataclass(frozen=True)
class OfOneLength(Algorithm):
    """c <- c + d / norm(d), per tensor of the mean delta."""

    synchronous: ClassVar[bool] = True
    needs_tensors: ClassVar[bool] = True

    def combine(self, messages, weights):
        mean = super().combine(messages, weights)
        return mean / np.linalg.norm(mean)

    def apply(self, center, message, commit, state):
        center += message
        return center


def work(servers, worker):
    random = np.random.default_rng(worker)
    with connect(servers.addresses) as client:
        client.call(Join(worker))
        for sequence in (1, 2, 3):
            message = random.normal(size=SIZE).astype(np.float32)
            client.call(Exchange(worker, sequence, 2, 8, 0, sequence, message, {"loss": 1.0}))
        client.call(Leave(worker))


def test_no_server_cuts_a_tensor_that_the_rule_needs_whole(tmp_path):
    config = CenterConfig(OfOneLength(), 2, num_trainable=sum(TENSORS), tensors=TENSORS)
    centers = []
    for num_servers, sizes in ((1, [SIZE]), (2, [1600, 2005])):
        record = str(tmp_path / str(num_servers))
        setup = ServerSetup(config, options=ServerOptions(record=record, snapshots=None))
        with Servers(num_servers, setup, np.zeros(SIZE, np.float32)) as servers:
            assert [address.size for address in servers.addresses] == sizes
            threads = [threading.Thread(target=work, args=(servers, worker)) for worker in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            with connect(servers.addresses) as client:
                centers.append(client.call(Pull()).center.copy())
        assert replay(record, OfOneLength()).center.tobytes() == centers[-1].tobytes()
    np.testing.assert_allclose(centers[0], centers[1], rtol=1e-6)
    assert np.abs(centers[0][:700]).max() > 0
