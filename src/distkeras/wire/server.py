"""Serves a center on a port: one thread per connection. `Center` does all arithmetic."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable

import numpy as np

from distkeras.center import AnyCenter, ProtocolError
from distkeras.center.bad_updates import note_errors_in_this_thread
from distkeras.center.follower import Follower
from distkeras.center.messages import (
    DRIVER,
    Answer,
    Beat,
    Dismiss,
    Done,
    Exchange,
    Fail,
    Follow,
    Leave,
    Refused,
    Rejoin,
    Reply,
    Request,
)
from distkeras.center.request_log import entry_of
from distkeras.record import Recorded
from distkeras.wire import frames, shared_memory
from distkeras.wire.admission import Admission, Caller
from distkeras.wire.client import ServerAddress
from distkeras.wire.connection import Connection
from distkeras.wire.connection_log import ConnectionLog
from distkeras.wire.failure_detector import FailureDetector
from distkeras.wire.following import LONGEST_WAIT, Following
from distkeras.wire.fragment_compression import AnyPacking, compression_of
from distkeras.wire.grace import GraceWatch
from distkeras.wire.handshake import TIMEOUT, AuthenticationError, Handshake
from distkeras.wire.handshake_limiter import HandshakeLimiter, PendingHandshake
from distkeras.wire.snapshot_writer import SnapshotWriter

MAX_CONNECTIONS = 1024
THREADS = "distkeras-"
"""Prefix of the names of the server's own threads, which a user's algorithm does not use."""
logger = logging.getLogger(__name__)


class Server:
    """Serves a center on one TCP port, and to this machine under a Unix name, until it is closed.

    A connection must prove the job's token before the server reads its first frame (`HandshakeLimiter` limits
    its cost until then). `Admission` decides which connection acts for which worker. Anything that is not
    exactly a frame of the protocol ends the connection and leaves the center unchanged. A message is applied
    after its last byte has arrived.

    Args:
        center: the center to serve.
        token: the job's secret.
        host: address to bind.
        ports: candidates, tried in order; 0 lets the system choose.
        packing: fragments and compression of the vectors; `None` for neither.
        snapshots: writes a snapshot before a worker may leave; `None` for no snapshots.
        local_name: Unix socket by which workers on this machine share memory; `None`: they use TCP.
        checksum: whether frames carry checksums.
        tls: encrypts the connections; `None` for no encryption.
        max_connections: most authenticated connections at one time; each has a buffer as large as the center.
        heartbeat: seconds of silence after which a worker counts as lost.
        timeout: seconds after which a machine that acknowledges nothing counts as gone.
        leader: the first server of the job, whose order a `Follower` follows; `None` for that server.

    Raises:
        OSError: no port is free, or the local name is taken.
    """

    def __init__(
        self,
        center: AnyCenter | Recorded | Follower,
        token: bytes,
        host: str,
        ports: tuple[int, ...] = (0,),
        packing: AnyPacking | None = None,
        *,
        snapshots: SnapshotWriter | None = None,
        local_name: str | None = None,
        checksum: bool = False,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
        heartbeat: float = 30.0,
        timeout: float = TIMEOUT,
        leader: ServerAddress | None = None,
    ) -> None:
        self._center = center
        self._snapshots = snapshots
        self._token = token
        self._packing = packing
        self._checksum = checksum
        self._tls = tls
        self._timeout = timeout
        self._max_connections = max_connections
        self._handshakes = HandshakeLimiter(time.monotonic)
        self._listeners = [_listen(host, ports)]
        self.port: int = self._listeners[0].getsockname()[1]
        if local_name is not None:
            self._listeners.append(shared_memory.listen(local_name))
        self._admission = Admission(max_connections)
        self._open: set[Handshake] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._following: Following | None = None
        if isinstance(center, Follower) and leader is not None:
            self._following = Following(center, leader, self._deliver_to_others)
        self._grace = GraceWatch(
            center,
            self._deliver_to_others,
            lambda error: self._fail(error, "the end of a round's grace", DRIVER),
        )
        self._failures = FailureDetector(heartbeat, time.monotonic)
        self._workers = {worker for member in center.members for worker in member.workers}
        for member in center.members:
            for worker in member.expected():
                self._failures.heard(worker)

    def serve(self) -> None:
        """Accept connections until `close`."""
        _thread("silence", self._watch_silence).start()
        if self._following is not None:
            _thread("following", self._follow, self._following).start()
            self._following.begun.wait(LONGEST_WAIT)  # So that the first requests are in order as well.
        if any(member.config.grace for member in self._center.members):
            _thread("grace", self._grace.run).start()
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
                # The peer hung up, or no file descriptor or thread is free now: keep serving the others.
                logger.warning("Could not accept a connection:", exc_info=True)
                time.sleep(0.1)

    def stop(self, reason: str) -> None:
        """Answer every waiting request and all later ones with `Stopped`."""
        self._admission.stop(reason)

    def close(self) -> None:
        """Stop the job, and close the port and all connections."""
        self.stop("The parameter server was closed.")
        self._closed.set()
        if self._following is not None:
            self._following.end()
        self._grace.close()
        for listener in self._listeners:
            # Closing alone does not wake a thread in accept().
            with contextlib.suppress(OSError):  # macOS refuses it on a listener; there close alone is enough.
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            still_open = list(self._open)
        for handshake in still_open:
            handshake.hang_up()

    def _serve_connection(self, sock: socket.socket, peer: object) -> None:
        note_errors_in_this_thread()
        try:
            handshake = Handshake(sock, self._timeout)
        except OSError as error:  # The peer has gone already.
            logger.debug("The connection from %s is gone: %s", peer, error)
            sock.close()
            return
        with self._lock:
            self._open.add(handshake)
        try:
            session = self._prove(handshake, peer)
            if session is not None:
                self._answer_requests(handshake, session, peer)
        except (frames.FrameError, ProtocolError) as error:
            logger.warning("Closed the connection from %s: %s", peer, error)
        except OSError as error:
            logger.debug("The connection from %s is gone: %s", peer, error)
        except Exception:  # No memory, or a bug: log it; the peer may try again.
            logger.exception("Closed the connection from %s:", peer)
        finally:
            with self._lock:
                self._open.discard(handshake)
            handshake.hang_up()
            handshake.sock.close()

    def _prove(self, handshake: Handshake, peer: object) -> bytes | None:
        """Make the handshake; return the client's session, or `None` if it failed."""
        address = str(peer[0]) if isinstance(peer, tuple) else "this machine"
        pending = PendingHandshake(address, handshake.hang_up)
        self._handshakes.begin(pending)
        try:
            return handshake.prove_to_client(self._token, self._tls)
        except (AuthenticationError, ssl.SSLError, TimeoutError) as error:
            pause, unlogged = self._handshakes.fail(address)
            if unlogged:
                logger.warning("%d handshakes from %s failed, the last one: %s", unlogged, address, error)
            pending.evicted.wait(pause)  # The peer waits for its answer, unless its place is needed.
            return None
        finally:
            self._handshakes.end(pending)

    def _answer_requests(self, handshake: Handshake, session: bytes, peer: object) -> None:
        """Answer the requests of one connection until it ends."""
        caller, log = Caller(handshake.hang_up, session), ConnectionLog(peer)
        served: set[int] = set()
        if not self._admission.enter(caller):
            logger.warning("Closed the connection from %s: %d are open", peer, self._max_connections)
            return
        try:
            sock, center = handshake.sock, self._center
            connection = Connection(
                sock,
                frames.REQUESTS,
                frames.MAX_REQUEST_TEXT,
                compression_of(self._packing, at_server=True),
                self._checksum,
                center.dtype.name,
            )
            if sock.family == socket.AF_UNIX:
                connection.shared = shared_memory.share(sock, center.size, center.dtype)
                buffer = connection.shared
            else:
                buffer = np.empty(center.size, center.dtype)
            sock.settimeout(None)
            while True:
                request = connection.receive(buffer)
                served.add(getattr(request, "worker", DRIVER))
                started = time.monotonic() if log.tells_exchanges else 0.0
                log.take(request)
                reply = self._answer(caller, request)
                connection.send(reply)
                if log.tells_exchanges:
                    log.exchanged(request, reply, time.monotonic() - started)
        except OSError as error:
            log.end(error)
        finally:
            self._admission.leave(caller)
            if isinstance(self._center, Follower):
                for worker in served - {DRIVER}:
                    self._deliver_to_others(self._center.cut(worker))

    def _follow(self, following: Following) -> None:
        """Handle requests in the order of the first server."""
        note_errors_in_this_thread()
        try:
            following.run()
        except Exception as error:  # The algorithm's, from a request whose turn had come.
            self._fail(error, "the order of the first server", DRIVER)

    def _answer(self, caller: Caller, request: Request) -> Reply | frames.Stopped:
        worker = getattr(request, "worker", DRIVER)
        if worker != DRIVER and worker not in self._workers:  # Before anything is recorded for it.
            raise ProtocolError(f"Expected one of {len(self._workers)} workers. Received: worker={worker}")
        if isinstance(request, Beat):
            return self._hear(request)
        log = self._center.request_log
        if worker != DRIVER and (refusal := self._admission.admit(caller, worker, request)) is not None:
            if log is not None and isinstance(refusal, Rejoin) and isinstance(request, Exchange | Leave):
                log.add(entry_of(worker, request.call))  # The other servers' parts of it wait for their turn.
            return refusal
        if isinstance(request, Follow) and log is not None:
            if not request.leader:  # A new process.
                self._deliver_to_others(self._center.handle(Dismiss()))
            log.wait(request.leader, request.since, LONGEST_WAIT)
        try:
            answers = self._center.handle(request)
        except ProtocolError:
            raise
        except Exception as error:
            return self._fail(error, type(request).__name__, worker, caller)
        own: Reply | frames.Stopped | None = self._deliver(answers, caller, worker)
        if own is None:
            own = caller.replies.get()
        if isinstance(request, Leave) and isinstance(own, Done):
            if self._snapshots is not None:  # After its process has ended, nothing can repeat its windows.
                self._snapshots.write_now()
            self._failures.forget(worker)
        return own

    def _fail(self, error: Exception, what: str, worker: int, caller: Caller | None = None) -> Refused:
        """Report an `error` that was just caught to the driver, which ends the job; answer all who wait.

        The algorithm may be the user's own code: its traceback must reach the driver.
        """
        trace = frames.error_text(traceback.format_exc())
        self._center.handle(Fail(max(worker, 0), f"The parameter server failed on {what}:\n{trace}"))
        refused = Refused(f"the parameter server failed: {frames.error_text(repr(error))}")
        self._admission.fail(caller, refused)
        return refused

    def _hear(self, beat: Beat) -> Reply | frames.Stopped:
        """Handle a heartbeat, which arrives on another connection than the worker's exchanges."""
        if (refusal := self._admission.hear(beat.worker, beat.ticket)) is not None:
            return refusal
        ((_, reply),) = self._center.handle(beat)
        self._failures.heard(beat.worker)
        return reply

    def _watch_silence(self) -> None:
        """Report workers that have been silent for too long to the center."""
        note_errors_in_this_thread()
        while not self._closed.wait(self._failures.interval):
            waiting = self._admission.waiting()  # They wait for the server: their silence is expected.
            for worker, silence in self._failures.silent().items():
                if worker in waiting:
                    self._failures.heard(worker)
                    continue
                try:  # The loss may complete a round, which is applied here.
                    answers = self._center.mark_lost(worker, silence)
                except Exception as error:
                    self._fail(error, f"the silence of worker {worker}", worker)
                else:
                    self._deliver_to_others(answers)

    def _deliver_to_others(self, answers: list[Answer]) -> None:
        """Pass the `answers` to connections of other threads."""
        self._deliver(answers, None, DRIVER)

    def _deliver(self, answers: list[Answer], caller: Caller | None, worker: int) -> Reply | None:
        """Pass the `answers` to the waiting connections; return the answer to `caller`, if there is one."""
        self._grace.notice()
        for receiver, _ in answers:
            if receiver != DRIVER:
                self._failures.heard(receiver)
        return self._admission.deliver(answers, caller, worker)


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
