"""The network between the workers and the servers: hands on what comes, until it is cut or held up."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

CHUNK = 1 << 16
NEAR, FAR = "127.0.0.2", "127.0.0.1"
"""Workers connect to the first address, where the proxy listens; servers bind the second, at one port."""


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports that are free at both addresses now, and that the system gives to nobody who asks for any.

    Two runs on one machine look at different ones.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    found: list[int] = []
    candidates = list(range(10_000, max(first, 10_001)))
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        with contextlib.suppress(OSError), socket.socket() as near, socket.socket() as far:
            near.bind((NEAR, port))
            far.bind((FAR, port))
            found.append(port)
        if len(found) == count:
            return tuple(found)
    raise OSError(f"Expected {count} free ports from 10000 to {first}. Found: {len(found)}")


class Proxy:
    """Listens at `NEAR` and hands on to `FAR`, at one port.

    Args:
        port: of both.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._held_until = 0.0
        self._listener = socket.create_server((NEAR, port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def num_connections(self) -> int:
        """Connections that it hands on now."""
        with self._lock:
            return len(self._pairs)

    def cut(self, chance: random.Random) -> bool:
        """Cut one of the connections; return whether there was one."""
        with self._lock:
            pair = chance.choice(self._pairs) if self._pairs else None
        if pair is None:
            return False
        self._hang_up(pair)
        return True

    def delay(self, seconds: float) -> None:
        """Hand on nothing for so long."""
        self._held_until = time.monotonic() + seconds

    def close(self) -> None:
        """Cut all, and listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._hang_up(pair)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # It was closed.
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection((FAR, self._port), 10.0)
        except OSError:
            near.close()  # The server is down: its clients are to see that.
            return
        pair = (near, far)
        try:
            far.settimeout(None)
            for end in pair:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._hang_up(pair)  # An end was closed meanwhile.
            return
        with self._lock:
            self._pairs.append(pair)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._hand_on, args=(source, sink, pair), daemon=True).start()

    def _hand_on(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                while (rest := self._held_until - time.monotonic()) > 0:
                    time.sleep(rest)
                sink.sendall(chunk)
        self._hang_up(pair)

    def _hang_up(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        for sock in pair:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
