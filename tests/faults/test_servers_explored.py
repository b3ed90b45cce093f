"""Two servers, a worker, every fault at every place, alone and in pairs: each window counts once at each.

The real loop, group and centers; in place of sockets and processes a script says what goes wrong, and when.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from bare_worker import SIZE, CountingReplica, NumberedFeed

from distkeras.algorithms import AEASGD, DOWNPOUR, Algorithm, LocalSGD
from distkeras.center import Center, CenterConfig, restore_snapshot, server_bounds, take_snapshot
from distkeras.center.requests import Exchange
from distkeras.wire.client import ServerAddress
from distkeras.wire.group import Group
from distkeras.worker.loop import Loop

BATCHES, WINDOW = 8, 2
KINDS = ("worker dies before", "worker dies after", "reply lost", "server dies before", "server dies after")
SNAPSHOT_EVERY = (2, 3)  # Commits, at each server: their snapshots are of different moments.


class WorkerDied(Exception):
    """The process that trains is gone."""


@dataclass
class Server:
    """A center in place of a server: snapshots, restarts, and a client that reaches it or does not.

    Args:
        algorithm: the rule.
        size: elements of its part.
        every: commits between two snapshots.
        faults: what happens at which of its exchanges, each once.
    """

    algorithm: Algorithm
    size: int
    every: int
    faults: dict[int, str]
    exchanges: int = 0
    center: Center = field(init=False)

    def __post_init__(self):
        self.center = self._new()
        self.snapshot = take_snapshot(self.center, {})

    def _new(self):
        return Center(CenterConfig(self.algorithm), np.zeros(self.size, np.float32), clock=lambda: 0.0)

    def restart(self):
        self.center = self._new()
        restore_snapshot(self.center, self.snapshot)

    def handle(self, request):
        ((_, reply),) = self.center.handle(request)
        if self.center.num_updates % self.every == 0:
            self.snapshot = take_snapshot(self.center, {})
        return reply

    def call(self, request):
        """As `Client.call`: it reconnects and sends again until there is a reply."""
        fault = None
        if isinstance(request, Exchange):
            fault = self.faults.pop(self.exchanges, None)
            self.exchanges += 1
        request = _copied(request)
        match fault:
            case "worker dies before":
                raise WorkerDied
            case "worker dies after":
                self.handle(request)
                raise WorkerDied
            case "reply lost":
                self.handle(_copied(request))
            case "server dies before":
                self.restart()
            case "server dies after":
                self.handle(_copied(request))
                self.restart()
        return self.handle(request)


def _copied(request):
    if not isinstance(request, Exchange):
        return request
    values = {name: getattr(request, name) for name in Exchange.__slots__}
    return Exchange(**values | {"message": request.message.copy()})


def trained(algorithm, faults, overlap=False):
    """Train to the end under `faults`, (server, exchange, kind) each; return the servers."""
    bounds = server_bounds(SIZE, 2)
    servers = [
        Server(algorithm, high - low, every, {at: kind for where, at, kind in faults if where == index})
        for index, ((low, high), every) in enumerate(zip(bounds, SNAPSHOT_EVERY, strict=True))
    ]
    finished, attempt = False, 0
    while not finished:
        with Group([ServerAddress("nowhere", 0, b"", server.size) for server in servers]) as group:
            group._clients = [_Line(server) for server in servers]
            loop = Loop(
                CountingReplica(pause=0),
                NumberedFeed(BATCHES),
                algorithm,
                group.call,
                worker=0,
                num_epoch=1,
                overlap=overlap,
            )
            with suppress(WorkerDied):
                loop.run(attempt)
                finished = True
            attempt += 1
    return servers


class _Line:
    """What a group holds for a client."""

    def __init__(self, server):
        self.call = server.call

    def encode(self, request):
        """Leave the message as it is: nothing is compressed."""

    def successor(self):
        """Return what a group holds after this connection has ended."""
        return self

    def end(self):
        pass


ONE = [(where, at, kind) for where in (0, 1) for at in range(BATCHES // WINDOW) for kind in KINDS]
PAIRS = [pair for pair in itertools.combinations(ONE, 2) if pair[0][:2] != pair[1][:2]]


@pytest.mark.parametrize("algorithm", [DOWNPOUR(WINDOW), LocalSGD(WINDOW)], ids=repr)
def test_every_window_counts_once_at_each_server_under_any_two_faults(algorithm):
    for faults in ([], *([one] for one in ONE), *PAIRS):
        servers = trained(algorithm, faults)
        for server in servers:
            assert server.center.snapshot().tolist() == [float(BATCHES)] * server.size, faults
            assert server.center.num_updates == BATCHES // WINDOW, faults
            assert not server.faults, faults


def test_every_window_counts_once_at_each_server_when_exchanges_overlap():
    for fault in ONE:
        for server in trained(DOWNPOUR(WINDOW), [fault], overlap=True):
            assert server.center.snapshot().tolist() == [float(BATCHES)] * server.size, fault


def test_an_elastic_worker_ends_whatever_fails():
    for fault in ONE:
        servers = trained(AEASGD(communication_window=WINDOW), [fault])
        assert [server.center.num_updates for server in servers] == [BATCHES // WINDOW] * 2, fault
