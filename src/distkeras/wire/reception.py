"""The door of a server: accepts connections, and lets in those that prove the job's token."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

from distkeras.wire import shared_memory
from distkeras.wire.event_loop import thread
from distkeras.wire.handshake import AuthenticationError, Handshake
from distkeras.wire.handshake_limiter import HandshakeLimiter, PendingHandshake
from distkeras.wire.listening import listen

logger = logging.getLogger(__name__)


class Reception:
    """Accepts connections on one TCP port, and under a Unix name, until it is closed.

    Each new connection has a thread until its handshake ends. `HandshakeLimiter` limits what it costs.

    Args:
        host: address to bind.
        ports: candidates, tried in order; 0 lets the system choose.
        local_name: name of the Unix socket; `None` for none.
        token: the job's secret.
        tls: encrypts the connections; `None` for no encryption.
        welcome: called in the thread of each new connection, with its socket and the address of its peer.

    Attributes:
        listeners: the listening sockets, the TCP port first.
        handshakes: limits them.

    Raises:
        OSError: no port is free, or the local name is taken.
    """

    def __init__(
        self,
        host: str,
        ports: tuple[int, ...],
        local_name: str | None,
        token: bytes,
        tls: ssl.SSLContext | None,
        welcome: Callable[[socket.socket, object], None],
    ) -> None:
        self.listeners = [listen(host, ports)]
        if local_name is not None:
            self.listeners.append(shared_memory.listen(local_name))
        self.handshakes = HandshakeLimiter(time.monotonic)
        self._token, self._tls, self._welcome = token, tls, welcome
        self._closed = threading.Event()

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.listeners[0].getsockname()[1])

    def run(self) -> None:
        """Accept connections until `close`."""
        for listener in self.listeners[1:]:
            thread("accept", self._accept, listener).start()
        self._accept(self.listeners[0])

    def close(self) -> None:
        """Accept no more connections. From any thread."""
        self._closed.set()
        for listener in self.listeners:
            # Closing alone does not wake a thread in accept().
            with contextlib.suppress(OSError):  # macOS refuses it on a listener; there close alone is enough.
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def prove(self, handshake: Handshake, peer: object) -> bytes | None:
        """Make the handshake; return the client's session, or `None` if it failed."""
        address = str(peer[0]) if isinstance(peer, tuple) else "this machine"
        pending = PendingHandshake(address, handshake.hang_up)
        self.handshakes.begin(pending)
        try:
            return handshake.prove_to_client(self._token, self._tls)
        except (AuthenticationError, ssl.SSLError, TimeoutError) as error:
            pause, unlogged = self.handshakes.fail(address)
            if unlogged:
                logger.warning("%d handshakes from %s failed, the last one: %s", unlogged, address, error)
            pending.evicted.wait(pause)  # The peer waits for its answer, unless its place is needed.
            return None
        finally:
            self.handshakes.end(pending)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, peer = listener.accept()
                try:
                    thread("connection", self._welcome, sock, peer).start()
                except BaseException:
                    sock.close()
                    raise
            except (OSError, RuntimeError, MemoryError):
                if self._closed.is_set():
                    return
                # The peer hung up, or no file descriptor or thread is free now: keep serving the others.
                logger.warning("Could not accept a connection:", exc_info=True)
                time.sleep(0.1)
