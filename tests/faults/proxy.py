"""A bad network between workers and server: it cuts, delays, truncates and duplicates what passes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

CHUNK = 1 << 16
HANDSHAKE_BYTES = 76
"""Nothing is sent twice before: who answers a challenge with other bytes is refused for good."""


class Proxy:
    """Listens on a port of its own and hands on to `target`, each chunk with some probability not as it was.

    Args:
        target: host and port.
        seed: of the faults.
        **rates: probability of each fault for each chunk: `cut`, `truncate`, `duplicate`, `delay`.

    Attributes:
        port: where it listens.
        faults: how often each has happened.
    """

    def __init__(self, target: tuple[str, int], seed: int, **rates: float) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._rates = rates
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = self._listener.getsockname()[1]
        self.faults = dict.fromkeys(rates, 0)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            _hang_up(sock)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    def _draw(self) -> str | None:
        with self._lock:
            for fault, rate in self._rates.items():
                if self._random.random() < rate:
                    self.faults[fault] += 1
                    return fault
        return None

    def _hand_on(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                passed += len(chunk)
                match self._draw():
                    case "cut":
                        break
                    case "truncate":
                        sink.sendall(chunk[: len(chunk) // 2])
                        break
                    case "duplicate" if passed - len(chunk) >= HANDSHAKE_BYTES:
                        chunk = chunk * 2
                    case "delay":
                        time.sleep(0.05)
                sink.sendall(chunk)
        _hang_up(source)
        _hang_up(sink)


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
