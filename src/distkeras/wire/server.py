"""Serves a center on a port: one thread for all connections, others for long transfers. `Center` computes."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
import traceback

from distkeras.center import AnyCenter, ProtocolError
from distkeras.center.answers import Answer, Done, Refused, Rejoin, Reply
from distkeras.center.bad_updates import note_errors_in_this_thread
from distkeras.center.follower import Follower
from distkeras.center.request_log import entry_of
from distkeras.center.requests import (
    DRIVER,
    Beat,
    Dismiss,
    Exchange,
    Fail,
    Follow,
    Leave,
    MayJoin,
    Order,
    Request,
    Write,
    sender_of,
)
from distkeras.record import Recorded
from distkeras.wire import frames, shared_memory
from distkeras.wire.admission import Admission, Caller
from distkeras.wire.client import ServerAddress
from distkeras.wire.connection import Connection
from distkeras.wire.conversation import Conversation, Surroundings
from distkeras.wire.entrance import Entrance
from distkeras.wire.event_loop import EventLoop, thread
from distkeras.wire.failure_detector import FailureDetector
from distkeras.wire.following import LONGEST_WAIT, Following
from distkeras.wire.fragment_compression import AnyPacking, compression_of
from distkeras.wire.grace import GraceWatch
from distkeras.wire.handshake import TIMEOUT, Handshake
from distkeras.wire.reception import Reception
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.staging import LEAST_RATE, Staging
from distkeras.wire.status import StatusWatch
from distkeras.wire.traffic import Traffic

MAX_CONNECTIONS = 1024
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
        max_connections: most authenticated connections at one time.
        heartbeat: seconds of silence after which a worker counts as lost.
        timeout: seconds after which a machine that acknowledges nothing counts as gone.
        leader: the first server of the job, whose order a `Follower` follows; `None` for that server.
        staging: bytes for vectors in transit; by default 48 MiB and room for one vector.
        index: index of the server in the job.

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
        staging: int | None = None,
        index: int = 0,
    ) -> None:
        self._center = center
        self._snapshots = snapshots
        self._packing = packing
        self._checksum = checksum
        self._timeout = timeout
        self._max_connections = max_connections
        self._reception = Reception(host, ports, local_name, token, tls, self._welcome)
        self.port = self._reception.port
        self._admission = Admission(max_connections)
        self._open: set[Handshake | Conversation] = set()
        self._ended = Traffic()  # Of the connections that are closed.
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._status = StatusWatch(center, index, self._traffic)
        self._following: Following | None = None
        if isinstance(center, Follower) and leader is not None:
            self._following = Following(center, leader, self._deliver_to_others)
        self._has_grace = any(member.config.grace for member in center.members)
        self._grace = GraceWatch(
            center,
            self._deliver_to_others,
            lambda error: self._fail(error, "the end of a round's grace", DRIVER),
        )
        self._staging = Staging(center.size, center.dtype, staging)
        self._loop = EventLoop(note_errors_in_this_thread, self._cut_slow)
        self._surroundings = Surroundings(
            self._loop,
            self._staging,
            lambda caller, request: self._answer(caller, request),
            self._let_go,
            center.size,
            center.dtype,
            keeps_messages=any(member.algorithm.synchronous for member in center.members),
            follows=isinstance(center, Follower),
        )
        self._failures = FailureDetector(heartbeat, time.monotonic)
        self._workers = {worker for member in center.members for worker in member.workers}
        expected = {worker for member in center.members for worker in member.expected()}
        for worker in expected:
            self._failures.heard(worker)
        elastic = center.members[0].config.elastic
        self._entrance = Entrance(center, self._admission, self._failures, expected, elastic)

    def serve(self) -> None:
        """Accept connections until `close`."""
        thread("loop", self._loop.run).start()
        thread("silence", self._watch_silence).start()
        thread("status", self._status.run).start()
        if self._following is not None:
            thread("following", self._follow, self._following).start()
            self._following.begun.wait(LONGEST_WAIT)  # So that the first requests are in order as well.
        if self._has_grace:
            thread("grace", self._grace.run).start()
        self._reception.run()

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
        self._status.close()
        self._reception.close()
        with self._lock:
            still_open = list(self._open)
        for each in still_open:
            each.hang_up()
        self._loop.close()

    def _welcome(self, sock: socket.socket, peer: object) -> None:
        """Make the handshake with a new connection, and start its conversation."""
        try:
            handshake = Handshake(sock, self._timeout)
        except OSError as error:  # The peer has gone already.
            logger.debug("The connection from %s is gone: %s", peer, error)
            sock.close()
            return
        self._add(handshake)
        try:
            session = self._reception.prove(handshake, peer)
            if session is not None and self._converse(handshake, session, peer):
                return
        except Exception as error:
            self._log_end(peer, error)
        self._remove(handshake)
        handshake.hang_up()
        handshake.sock.close()

    def _add(self, connection: Handshake | Conversation) -> None:
        with self._lock:
            self._open.add(connection)

    def _remove(self, connection: Handshake | Conversation) -> None:
        with self._lock:
            self._open.discard(connection)

    def _log_end(self, peer: object, error: Exception) -> None:
        if isinstance(error, frames.FrameError | ProtocolError):
            logger.warning("Closed the connection from %s: %s", peer, error)
        elif isinstance(error, OSError):
            logger.debug("The connection from %s is gone: %s", peer, error)
        else:  # No memory, or a bug: log it; the peer may try again.
            logger.error("Closed the connection from %s:", peer, exc_info=error)

    def _converse(self, handshake: Handshake, session: bytes, peer: object) -> bool:
        """Start to answer the requests of a connection; return whether there was room for it."""
        sock, center = handshake.sock, self._center
        connection = Connection(
            sock,
            frames.REQUESTS,
            frames.MAX_REQUEST_TEXT,
            compression_of(self._packing, at_server=True),
            self._checksum,
            center.dtype.name,
        )
        conversation = Conversation(connection, session, peer, self._surroundings)
        if not self._admission.enter(conversation.caller):
            logger.warning("Closed the connection from %s: %d are open", peer, self._max_connections)
            return False

        def done(error: Exception | None) -> None:
            if isinstance(error, OSError):
                conversation.log.end(error)
            elif error is not None:
                self._log_end(peer, error)
            self._admission.leave(conversation.caller)
            with self._lock:
                self._open.discard(conversation)
                self._ended = Traffic.sum_of((self._ended, connection.traffic))
            conversation.close()
            if isinstance(center, Follower):
                for worker in conversation.workers - {DRIVER}:
                    self._deliver_to_others(center.cut(worker))

        try:
            if sock.family == socket.AF_UNIX:
                connection.shared = shared_memory.share(sock, center.size, center.dtype)
        except BaseException:
            self._admission.leave(conversation.caller)
            raise
        self._add(conversation)
        self._remove(handshake)
        conversation.start(done)
        return True

    def _traffic(self) -> tuple[Traffic, int]:
        """Return what all connections have carried so far, and the number of those that are open."""
        with self._lock:
            conversations = [each for each in self._open if isinstance(each, Conversation)]
            counts = [self._ended, *(each.traffic for each in conversations)]
            return Traffic.sum_of(counts), len(conversations)

    def _follow(self, following: Following) -> None:
        """Handle requests in the order of the first server."""
        note_errors_in_this_thread()
        try:
            following.run()
        except Exception as error:  # The algorithm's, from a request whose turn had come.
            self._fail(error, "the order of the first server", DRIVER)

    def _answer(self, caller: Caller, request: Request) -> Reply | frames.Stopped | None:
        """Return the reply to a request; `None` if `caller` gets it later, as in an open round."""
        worker = sender_of(request)
        if worker != DRIVER and worker not in self._workers:  # Before anything is recorded for it.
            raise ProtocolError(f"Expected one of {len(self._workers)} workers. Received: worker={worker}")
        if isinstance(request, Beat):
            return self._hear(caller, request)
        if isinstance(request, MayJoin):
            return self._entrance.answer(caller, request)
        if worker != DRIVER and (refusal := self._admission.admit(caller, worker, request)) is not None:
            log = self._center.request_log
            if log is not None and isinstance(refusal, Rejoin) and isinstance(request, Exchange | Leave):
                log.add(entry_of(worker, request.call))  # The other servers' parts of it wait for their turn.
            return refusal
        if isinstance(request, Follow) and (log := self._center.request_log) is not None:
            if not request.leader:  # A new process.
                self._deliver_to_others(self._center.handle(Dismiss()))
            log.wait(request.leader, request.since, LONGEST_WAIT)
        if isinstance(request, Order) and any(member.holds for member in self._center.members):
            # A server that restarts later may not forget what the driver has decided about: workers would
            # train those windows again, under orders that followed from them.
            self._save()
        started = time.perf_counter()
        try:
            answers = self._center.handle(request)
        except ProtocolError:
            raise
        except Exception as error:
            return self._fail(error, type(request).__name__, worker, caller)
        if type(request) is Exchange:
            self._status.applied(time.perf_counter() - started)
        reply = self._deliver(answers, caller, worker)
        if reply is None and self._snapshots is not None and any(each.holds for each in self._center.members):
            # The driver's next order waits for it. Until then it validates, and the workers wait.
            self._snapshots.write_soon()
        return reply

    def _let_go(self, request: Request, reply: Reply | frames.Stopped) -> None:
        """Make sure of what nobody can repeat, before the `reply` is sent."""
        if not isinstance(request, Leave | Write) or not isinstance(reply, Done):
            return
        if isinstance(request, Leave):
            self._failures.forget(request.worker)
            if request.rests:  # Another process goes on where the snapshot ends.
                return
        self._save()  # After its process has ended, nothing can repeat a worker's windows.

    def _save(self) -> None:
        """Wait until a snapshot of everything so far is written, if snapshots are on."""
        if self._snapshots is not None:
            self._snapshots.write_now()

    def _fail(self, error: Exception, what: str, worker: int, caller: Caller | None = None) -> Refused:
        """Report an `error` that was just caught to the driver, which ends the job; answer all who wait.

        The algorithm may be the user's own code: its traceback must reach the driver.
        """
        trace = frames.error_text(traceback.format_exc())
        self._center.handle(Fail(max(worker, 0), f"The parameter server failed on {what}:\n{trace}"))
        refused = Refused(f"the parameter server failed: {frames.error_text(repr(error))}")
        self._admission.fail(caller, refused)
        return refused

    def _hear(self, caller: Caller, beat: Beat) -> Reply | frames.Stopped:
        """Handle a heartbeat."""
        if (refusal := self._admission.hear(caller, beat.worker, beat.ticket)) is not None:
            return refusal
        ((_, reply),) = self._center.handle(beat)
        self._failures.heard(beat.worker)
        return reply

    def _hear_transfers(self) -> None:
        """Count bytes that arrive and are taken as signs of life: no heartbeats are sent meanwhile."""
        workers = self._admission.workers()
        with self._lock:
            conversations = [each for each in self._open if isinstance(each, Conversation)]
        for conversation in conversations:
            if conversation.stirs() and conversation.caller.session in workers:
                self._failures.heard(workers[conversation.caller.session])

    def _cut_slow(self) -> None:
        """End the connections of those who keep others from the server's memory."""
        if count := self._staging.cut_lapsed(time.monotonic()):
            logger.warning(
                "Closed %d connections that moved less than %d bytes/s while others waited.",
                *(count, LEAST_RATE),
            )

    def _watch_silence(self) -> None:
        """Report workers that have been silent for too long to the center."""
        note_errors_in_this_thread()
        while not self._closed.wait(self._failures.interval):
            self._hear_transfers()
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
        if self._has_grace:
            self._grace.notice()
        for receiver, _ in answers:
            if receiver != DRIVER:
                self._failures.heard(receiver)
        return self._admission.deliver(answers, caller, worker)
