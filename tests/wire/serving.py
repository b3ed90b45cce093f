"""A server in a thread, and what is sent to it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig, make_center
from distkeras.center.bad_updates import RAISE
from distkeras.center.follower import Follower
from distkeras.center.request_log import RequestLog
from distkeras.center.requests import Exchange
from distkeras.wire import shared_memory
from distkeras.wire.client import ServerAddress
from distkeras.wire.fragment_compression import packing_for
from distkeras.wire.server import Server
from distkeras.wire.tls import fingerprint_of

TOKEN = b"t" * 32
TRANSPORT = "tcp"


@contextmanager
def serving(
    algorithm=None,
    num_workers=2,
    size=4,
    *,
    tls=None,
    num_trainable=None,
    bad_updates=RAISE,
    without_lost=False,
    leads=False,
    quorum=None,
    grace=0.0,
    fragments=None,
    codec=None,
    epoch_rows=None,
    until=None,
    elastic=None,
    **options,
):
    """Yield a server, its center, and its address."""
    algorithm = DOWNPOUR() if algorithm is None else algorithm
    config = CenterConfig(
        algorithm,
        num_workers,
        num_trainable=num_trainable,
        bad_updates=bad_updates,
        without_lost=without_lost,
        quorum=quorum,
        grace=grace,
        fragments=fragments,
        epoch_rows=epoch_rows,
        until=until,
        elastic=elastic,
    )
    if fragments is not None:
        options["packing"] = packing_for(config, codec, size)
    log = RequestLog() if leads else None
    center = make_center(config, np.zeros(size, np.float32), clock=time.time, request_log=log)
    served = center if options.get("leader") is None else Follower(center)
    context = None if tls is None else tls.server()
    local_name = shared_memory.new_name() if TRANSPORT == "shared memory" else None
    server = Server(served, TOKEN, "127.0.0.1", tls=context, local_name=local_name, **options)
    address = ServerAddress(
        "127.0.0.1",
        server.port,
        TOKEN,
        size,
        local_name,
        checksum=options.get("checksum", False),
        tls=None if tls is None else tls.client,
        packing=options.get("packing"),
        pin=b"" if tls is None else fingerprint_of(context),
    )
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server, center, address
    finally:
        server.close()
        thread.join(5)
        assert not thread.is_alive()


def commit(worker, sequence, value=1.0, size=4):
    return Exchange(worker, sequence, 1, 32, 0, sequence, np.full(size, value, np.float32), {"loss": 0.5})


class Relay:
    """Forwards connections to `port`; what passes may be noted or changed on its way.

    Args:
        port: where the server listens.
        to_server: gets each piece of data, and returns what to send instead of it; `None` for the same.
        to_client: the same in the other direction.
    """

    def __init__(self, port, to_server=None, to_client=None):
        self._target = port
        self._changes = to_server or _unchanged, to_client or _unchanged
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            for ends, change in zip(((near, far), (far, near)), self._changes, strict=True):
                thread = threading.Thread(target=_pump, args=(*ends, change))
                self._threads.append(thread)
                thread.start()


def _unchanged(data):
    return data


def _pump(source, target, change):
    try:
        while data := source.recv(1 << 20):
            changed = change(data)
            target.sendall(data if changed is None else changed)
    except OSError:
        pass
    finally:
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
