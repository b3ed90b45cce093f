"""Records of real servers, written while several workers exchange at once, lead to the same bits."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from distkeras.algorithms import EASGD, DynSGD
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Join, Leave, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.record import read_record, replay
from distkeras.record.entries import records_in
from distkeras.wire.codecs import Int8
from distkeras.wire.group import connect

SIZE, WORKERS, COMMITS = 300_000, 4, 10


def work(servers, worker):
    """Commit random windows."""
    random = np.random.default_rng(worker)
    with connect(servers.addresses) as client:
        client.call(Join(worker))
        for sequence in range(1, COMMITS + 1):
            message = random.normal(size=SIZE).astype(np.float32)
            client.call(Exchange(worker, sequence, 2, 8, 0, sequence, message, {"loss": 1.0}))
        client.call(Leave(worker))


@pytest.mark.parametrize(
    ("rule", "num_servers", "codec"), [(DynSGD(), 2, Int8()), (EASGD(), 1, None)], ids=["int8", "elastic"]
)
def test_several_workers_at_once_are_replayed_bit_for_bit(rule, num_servers, codec, tmp_path):
    options = ServerOptions(record=str(tmp_path), snapshots=None)
    setup = ServerSetup(CenterConfig(rule, WORKERS), options=options, compression=codec)
    with Servers(num_servers, setup, np.zeros(SIZE, np.float32)) as servers:
        threads = [threading.Thread(target=work, args=(servers, worker)) for worker in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with connect(servers.addresses) as client:
            pulled = client.call(Pull())
            center, num_updates = pulled.center.copy(), pulled.num_updates
    replayed = replay(str(tmp_path))
    assert np.isfinite(center).all()
    assert center.std() > 0
    assert replayed.center.tobytes() == center.tobytes()
    assert replayed.num_updates == num_updates
    assert len(records_in(str(tmp_path))) == num_servers
    for path in records_in(str(tmp_path)):
        order = [
            (step.request.worker, step.request.sequence)
            for step in list(read_record(path))[1:]
            if isinstance(step.request, Exchange)
        ]
        assert sorted(order) == [(worker, n) for worker in range(WORKERS) for n in range(1, COMMITS + 1)]
