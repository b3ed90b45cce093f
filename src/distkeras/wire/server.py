"""The center behind a TCP port: one thread a connection, all arithmetic in `Center`."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import traceback
from dataclasses import dataclass, field

import numpy as np

from distkeras.center import Center, Independent, ProtocolError
from distkeras.center.messages import DRIVER, Fail, Refused, Reply, Request
from distkeras.wire import frames
from distkeras.wire.codecs import Packing
from distkeras.wire.connection import AuthenticationError, Connection

HANDSHAKE_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Caller:
    """One connection, and the replies that are for it."""

    connection: Connection
    replies: queue.SimpleQueue[Reply | frames.Stopped] = field(default_factory=queue.SimpleQueue)


class Server:
    """Serves a center on one TCP port until it is closed.

    A connection must prove the job's token before its first frame is read; whatever is not exactly a frame of
    the protocol ends the connection and leaves the center untouched. A message is applied after its last byte
    has arrived.

    Args:
        center: what it serves.
        token: the job's secret.
        host: address to bind, and no other.
        ports: candidates, tried in order; 0 lets the system choose.
        packing: how workers compress their messages; `None`: not at all.

    Raises:
        OSError: none of the ports is free.
    """

    def __init__(
        self,
        center: Center | Independent,
        token: bytes,
        host: str,
        ports: tuple[int, ...] = (0,),
        packing: Packing | None = None,
    ) -> None:
        self._center = center
        self._token = token
        self._packing = packing
        self._listener = _listen(host, ports)
        self.port: int = self._listener.getsockname()[1]
        self._callers: set[_Caller] = set()
        self._waiting: dict[int, _Caller] = {}
        self._lock = threading.Lock()
        self._stopped: frames.Stopped | None = None

    def serve(self) -> None:
        """Accept connections until `close`."""
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                if self._stopped is not None:
                    return
                raise
            threading.Thread(target=self._serve_connection, args=(sock, peer), daemon=True).start()

    def stop(self, reason: str) -> None:
        """Answer every request from now on, and every one that waits, with `Stopped`."""
        with self._lock:
            self._stopped = frames.Stopped(reason)
            waiting, self._waiting = list(self._waiting.values()), {}
        for caller in waiting:
            caller.replies.put(self._stopped)

    def close(self) -> None:
        """Stop, and close the port and all connections."""
        self.stop("The parameter server was closed.")
        # A plain close leaves a thread in accept() asleep.
        with contextlib.suppress(OSError):  # macOS refuses it on a listener; there close alone is enough.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            callers = list(self._callers)
        for caller in callers:
            caller.connection.close()

    def _serve_connection(self, sock: socket.socket, peer: object) -> None:
        connection = Connection(sock, frames.REQUESTS, frames.MAX_REQUEST_TEXT, self._packing)
        caller = _Caller(connection)
        with self._lock:
            self._callers.add(caller)
        try:
            sock.settimeout(HANDSHAKE_SECONDS)
            connection.prove_to_client(self._token)
            sock.settimeout(None)
            buffer = np.empty(self._center.size, np.float32)
            while True:
                connection.send(self._answer(caller, connection.receive(buffer)))
        except (frames.FrameError, ProtocolError, AuthenticationError) as error:
            logger.warning("Closed the connection from %s: %s", peer, error)
        except OSError as error:
            logger.debug("The connection from %s is gone: %s", peer, error)
        finally:
            with self._lock:
                self._callers.discard(caller)
            connection.close()

    def _answer(self, caller: _Caller, request: Request) -> Reply | frames.Stopped:
        worker = getattr(request, "worker", DRIVER)
        if worker != DRIVER:
            with self._lock:
                if self._stopped is not None:
                    return self._stopped
                # Only the newest connection of a worker is answered: an older one was cut, and its thread,
                # if it still waits for a round, may end.
                cut = self._waiting.get(worker)
                self._waiting[worker] = caller
                if cut is not None and cut is not caller:
                    cut.replies.put(frames.Stopped("A newer connection of this worker has taken over."))
        try:
            answers = self._center.handle(request)
        except ProtocolError:
            raise
        except Exception as error:
            # The rule is the user's own code: its traceback must reach the driver, and nobody may wait on.
            text = f"The parameter server failed on {type(request).__name__}:\n{traceback.format_exc()}"
            self._center.handle(Fail(max(worker, 0), text))
            return Refused(f"the parameter server failed: {error!r}")
        own: Reply | None = None
        for receiver, reply in answers:
            if receiver == worker:
                own = reply
                continue
            with self._lock:
                waiting = self._waiting.get(receiver)
            if waiting is not None:
                waiting.replies.put(reply)
        return caller.replies.get() if own is None else own


def _listen(host: str, ports: tuple[int, ...]) -> socket.socket:
    family, _, _, _, _ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    for port in ports[:-1]:
        try:
            return socket.create_server((host, port), family=family, backlog=512)
        except OSError:
            continue
    return socket.create_server((host, ports[-1]), family=family, backlog=512)
