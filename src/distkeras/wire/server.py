"""The center behind a port: one thread a connection, all arithmetic in `Center`."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from distkeras.center import Center, Independent, ProtocolError
from distkeras.center.bad_updates import note_errors_in_this_thread
from distkeras.center.messages import (
    DRIVER,
    Answer,
    Beat,
    Done,
    Exchange,
    Fail,
    Join,
    Leave,
    Refused,
    Rejoin,
    Reply,
    Request,
)
from distkeras.wire import frames, shared_memory
from distkeras.wire.codecs import Packing
from distkeras.wire.compression import Compression
from distkeras.wire.connection import TIMEOUT, AuthenticationError, Connection
from distkeras.wire.keeper import Keeper
from distkeras.wire.pulse import Pulse
from distkeras.wire.strangers import Stranger, Strangers

MAX_CONNECTIONS = 1024
THREADS = "distkeras-"
"""How the names of the server's own threads begin; those of a user's rule are others."""
REPLACED = frames.Stopped(
    "Another process, or a newer connection, speaks for this worker now.", replaced=True
)

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Caller:
    """One connection, and the replies that are for it."""

    connection: Connection
    session: bytes = b""
    replies: queue.SimpleQueue[Reply | frames.Stopped] = field(default_factory=queue.SimpleQueue)


class Server:
    """Serves a center on one TCP port, and to this machine under a Unix name, until it is closed.

    A connection must prove the job's token before its first frame is read (`Strangers` says what it may cost
    before); whatever is not exactly a frame of the protocol ends the connection and leaves the center
    untouched. A message is applied after its last byte has arrived. A client that connects anew ends its
    connection before.

    Of the processes that train as one worker the last started is heard, and its newest connection: Spark does
    not always end a task's process before it starts the next. The others are told to stop.

    Args:
        center: what it serves.
        token: the job's secret.
        host: address to bind, and no other.
        ports: candidates, tried in order; 0 lets the system choose.
        packing: how workers compress their messages; `None`: not at all.
        keeper: writes a snapshot before a worker may leave; `None`: nobody does.
        local_name: Unix socket by which workers on this machine share memory; `None`: they use TCP.
        checksum: frames carry checksums.
        tls: encrypts the connections; `None`: nothing does.
        max_connections: with the token, at one time: each has a buffer as large as the center.
        heartbeat: seconds of silence from which a worker counts as lost.
        timeout: seconds for which a worker's machine may acknowledge nothing.

    Raises:
        OSError: none of the ports is free, or the local name is taken.
    """

    def __init__(
        self,
        center: Center | Independent,
        token: bytes,
        host: str,
        ports: tuple[int, ...] = (0,),
        packing: Packing | None = None,
        *,
        keeper: Keeper | None = None,
        local_name: str | None = None,
        checksum: bool = False,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        heartbeat: float = 30.0,
        timeout: float = TIMEOUT,
    ) -> None:
        self._center = center
        self._keeper = keeper
        self._token = token
        self._packing = packing
        self._checksum = checksum
        self._tls = tls
        self._timeout = timeout
        self._max_connections = max_connections
        self._strangers = Strangers(time.monotonic)
        self._listeners = [_listen(host, ports)]
        self.port: int = self._listeners[0].getsockname()[1]
        if local_name is not None:
            self._listeners.append(shared_memory.listen(local_name))
        self._callers: set[_Caller] = set()
        self._waiting: dict[int, _Caller] = {}
        self._newest: dict[bytes, _Caller] = {}  # by session
        self._owners: dict[int, bytes] = {}  # of each worker, the session
        self._replaced: set[bytes] = set()
        self._tickets: defaultdict[int, int] = defaultdict(int)  # of each worker, the last process
        self._lock = threading.Lock()
        self._stopped: frames.Stopped | None = None
        self._closed = threading.Event()
        self._pulse = Pulse(heartbeat, time.monotonic)
        self._workers = {worker for member in center.members for worker in member.workers}
        for member in center.members:
            for worker in member.expected():
                self._pulse.heard(worker)

    def serve(self) -> None:
        """Accept connections until `close`."""
        _thread("silence", self._watch_silence).start()
        for listener in self._listeners[1:]:
            _thread("accept", self._accept, listener).start()
        self._accept(self._listeners[0])

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, peer = listener.accept()
                try:
                    _thread("connection", self._serve_connection, sock, peer).start()
                except BaseException:
                    sock.close()
                    raise
            except (OSError, RuntimeError, MemoryError):
                if self._closed.is_set():
                    return
                # It broke off, or there is no file descriptor or no thread for now: others must not suffer.
                logger.warning("Could not accept a connection:", exc_info=True)
                time.sleep(0.1)

    def stop(self, reason: str) -> None:
        """Answer every request from now on, and every one that waits, with `Stopped`."""
        with self._lock:
            self._stopped = frames.Stopped(reason)
            for caller in self._waiting.values():
                caller.replies.put(self._stopped)
            self._waiting.clear()

    def close(self) -> None:
        """Stop, and close the port and all connections."""
        self.stop("The parameter server was closed.")
        self._closed.set()
        for listener in self._listeners:
            # A plain close leaves a thread in accept() asleep.
            with contextlib.suppress(OSError):  # macOS refuses it on a listener; there close alone is enough.
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            callers = list(self._callers)
        for caller in callers:
            caller.connection.hang_up()

    def _serve_connection(self, sock: socket.socket, peer: object) -> None:
        note_errors_in_this_thread()
        try:
            connection = Connection(
                sock,
                frames.REQUESTS,
                frames.MAX_REQUEST_TEXT,
                None if self._packing is None else Compression(self._packing, at_server=True),
                self._checksum,
                self._timeout,
                self._center.dtype.name,
            )
        except OSError as error:  # It has gone already.
            logger.debug("The connection from %s is gone: %s", peer, error)
            sock.close()
            return
        caller = _Caller(connection)
        with self._lock:
            self._callers.add(caller)
        try:
            if not self._let_in(caller, peer):
                return
            if sock.family == socket.AF_UNIX:
                connection.shared = shared_memory.share(sock, self._center.size, self._center.dtype)
                buffer = connection.shared
            else:
                buffer = np.empty(self._center.size, self._center.dtype)
            connection.sock.settimeout(None)
            while True:
                connection.send(self._answer(caller, connection.receive(buffer)))
        except (frames.FrameError, ProtocolError) as error:
            logger.warning("Closed the connection from %s: %s", peer, error)
        except OSError as error:
            logger.debug("The connection from %s is gone: %s", peer, error)
        except Exception:  # No memory, or a bug: it is seen, and the peer may try again.
            logger.exception("Closed the connection from %s:", peer)
        finally:
            with self._lock:
                self._callers.discard(caller)
                if self._newest.get(caller.session) is caller:
                    del self._newest[caller.session]
            connection.close()

    def _let_in(self, caller: _Caller, peer: object) -> bool:
        """Make the handshake, and count `caller` among those who may speak; return whether it is one."""
        connection = caller.connection
        address = str(peer[0]) if isinstance(peer, tuple) else "this machine"
        stranger = Stranger(address, connection.hang_up)
        self._strangers.arrive(stranger)
        try:
            caller.session = connection.prove_to_client(self._token, self._tls)
        except (AuthenticationError, ssl.SSLError, TimeoutError) as error:
            self._turn_away(stranger, error)
            return False
        finally:
            self._strangers.leave(stranger)
        with self._lock:
            before = self._newest.get(caller.session)
            full = before is None and len(self._newest) >= self._max_connections
            if not full:
                self._newest[caller.session] = caller
        if full:
            logger.warning("Closed the connection from %s: there are %d", peer, self._max_connections)
            return False
        if before is not None:
            before.connection.hang_up()
        return True

    def _turn_away(self, stranger: Stranger, error: Exception) -> None:
        """Leave a stranger that failed without an answer for a while, unless its place is needed."""
        pause, unlogged = self._strangers.fail(stranger.address)
        if unlogged:
            logger.warning(
                "%d handshakes from %s failed, the last one so: %s", unlogged, stranger.address, error
            )
        stranger.gone.wait(pause)

    def _answer(self, caller: _Caller, request: Request) -> Reply | frames.Stopped:
        worker = getattr(request, "worker", DRIVER)
        if worker != DRIVER and worker not in self._workers:  # Before anything is noted of it.
            raise ProtocolError(f"Expected one of {len(self._workers)} workers. Received: worker={worker}")
        if isinstance(request, Beat):
            return self._hear(request)
        if worker != DRIVER and (refusal := self._admit(caller, worker, request)) is not None:
            return refusal
        try:
            answers = self._center.handle(request)
        except ProtocolError:
            raise
        except Exception as error:
            with self._lock:
                if self._waiting.get(worker) is caller:
                    del self._waiting[worker]
            return self._fail(error, type(request).__name__, worker)
        own = self._distribute(answers, caller, worker)
        if self._keeper is not None and isinstance(request, Leave) and isinstance(own, Done):
            # When its process has ended nobody can train its windows again.
            self._keeper.keep()
        if isinstance(request, Leave) and isinstance(own, Done):
            self._pulse.forget(worker)
        return caller.replies.get() if own is None else own

    def _fail(self, error: Exception, what: str, worker: int) -> Refused:
        """Tell the driver of an `error` that was just caught, which ends the job; let nobody wait on.

        The rule is the user's own code: its traceback must reach the driver.
        """
        trace = frames.error_text(traceback.format_exc())
        self._center.handle(Fail(max(worker, 0), f"The parameter server failed on {what}:\n{trace}"))
        refused = Refused(f"the parameter server failed: {frames.error_text(repr(error))}")
        with self._lock:
            for caller in self._waiting.values():
                caller.replies.put(refused)
            self._waiting.clear()
        return refused

    def _hear(self, beat: Beat) -> Reply | frames.Stopped:
        """Take a sign of life, which comes by another connection than its worker's exchanges."""
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            if beat.ticket < self._tickets[beat.worker]:
                return REPLACED
        ((_, reply),) = self._center.handle(beat)
        self._pulse.heard(beat.worker)
        return reply

    def _admit(self, caller: _Caller, worker: int, request: Request) -> Rejoin | frames.Stopped | None:
        """Let `caller` speak for `worker` and wait for an answer, or say why not."""
        with self._lock:
            if self._stopped is not None:
                return self._stopped
            owner = self._owners.setdefault(worker, caller.session)
            if owner != caller.session and caller.session not in self._replaced:
                if isinstance(request, Exchange | Leave):
                    return Rejoin()  # Another process, perhaps an older one, spoke first at this server.
                if isinstance(request, Join):
                    late = request.ticket < self._tickets[worker]
                    self._replaced.add(caller.session if late else owner)
                    self._owners[worker] = owner if late else caller.session
            if isinstance(request, Join):
                self._tickets[worker] = max(request.ticket, self._tickets[worker])
            if caller.session in self._replaced or self._newest.get(caller.session) is not caller:
                return REPLACED
            cut = self._waiting.get(worker)
            self._waiting[worker] = caller
            if cut is not None and cut is not caller:
                cut.replies.put(REPLACED)  # Its thread, if it still waits for a round, may end.
            return None

    def _watch_silence(self) -> None:
        """Tell the center which workers have not been heard of for too long."""
        note_errors_in_this_thread()
        while not self._closed.wait(self._pulse.interval):
            with self._lock:
                waiting = set(self._waiting)  # They have said what they had to, and it is not their turn.
            for worker, silence in self._pulse.silent().items():
                if worker in waiting:
                    self._pulse.heard(worker)
                    continue
                try:  # A round that is complete without the worker is applied here.
                    answers = self._center.lose(worker, silence)
                except Exception as error:
                    self._fail(error, f"the silence of worker {worker}", worker)
                else:
                    self._distribute(answers, None, DRIVER)

    def _distribute(self, answers: list[Answer], caller: _Caller | None, worker: int) -> Reply | None:
        """Hand the `answers` to those who wait for them; return that of `caller`, if it is among them."""
        own: Reply | None = None
        with self._lock:
            for receiver, reply in answers:
                if receiver != DRIVER:
                    self._pulse.heard(receiver)
                if receiver == worker:
                    own = reply
                elif (waiting := self._waiting.pop(receiver, None)) is not None:
                    waiting.replies.put(reply)
            if own is not None and caller is not None:
                if self._waiting.get(worker) is caller:
                    del self._waiting[worker]
                # A round's answer may have come too, meant for the connection before: not for the next round.
                while not caller.replies.empty():
                    caller.replies.get()
        return own


def _thread(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    return threading.Thread(target=target, args=args, name=f"{THREADS}{name}", daemon=True)


def _listen(host: str, ports: tuple[int, ...]) -> socket.socket:
    family, _, _, _, _ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    for port in ports[:-1]:
        try:
            return socket.create_server((host, port), family=family, backlog=512)
        except OSError:
            continue
    return socket.create_server((host, ports[-1]), family=family, backlog=512)
