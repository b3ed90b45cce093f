"""The start of a connection: encryption if the job asks for it, then both sides prove the job's token.

The token itself is never sent: each side sends a random challenge and answers the other's with a keyed hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import ssl
import time

from distkeras.wire.tls import fingerprint

NONCE_BYTES = 32
SESSION_BYTES = 16
TOKEN_BYTES = 32
GREETING = b"distkeras/3\n"
HANDSHAKE_SECONDS = 10.0
TIMEOUT = 30.0
PROBES = 3


class AuthenticationError(Exception):
    """The peer does not know the job's token, or is not the server that the job started."""


class Handshake:
    """The handshake of one connection.

    All steps share one deadline, which starts here: a peer that sends a byte now and then gains no time.

    Args:
        sock: a connected TCP or Unix socket; the caller closes it.
        timeout: seconds after which a machine that acknowledges nothing, neither data nor keepalive probes,
            counts as gone. The handshake must end within this time, and within 10 s.

    Attributes:
        sock: the socket; encryption replaces it.
    """

    def __init__(self, sock: socket.socket, timeout: float = TIMEOUT) -> None:
        self.sock = sock
        self._seconds = min(timeout, HANDSHAKE_SECONDS)
        self._deadline = time.monotonic() + self._seconds
        # Others cannot read data that stays on this machine.
        self._local = sock.family == socket.AF_UNIX
        if not self._local:
            _limit_silence(sock, timeout)

    def prove_to_client(self, token: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        """The server's side: send a challenge, check the proof, answer the client's challenge.

        Args:
            token: the job's secret.
            tls: encrypts all that follows; `None` for no encryption.

        Returns:
            The client's session.

        Raises:
            AuthenticationError: the client does not know the token.
            OSError: the connection is lost, the client does not speak TLS, or the time is over.
        """
        if tls is not None and not self._local:
            self._encrypt(tls, None)
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._write(GREETING + nonce)
        theirs = self._read(NONCE_BYTES + SESSION_BYTES)
        proof = self._read(hashlib.sha256().digest_size)
        if not hmac.compare_digest(proof, _proof(token, b"client", nonce, theirs)):
            raise AuthenticationError("Expected a proof of the job's token. Received: a wrong one")
        self._write(_proof(token, b"server", theirs, nonce))
        return theirs[NONCE_BYTES:]

    def prove_to_server(
        self,
        token: bytes,
        session: bytes,
        tls: ssl.SSLContext | None = None,
        pin: bytes = b"",
        host: str = "",
    ) -> None:
        """The client's side.

        Args:
            token: the job's secret.
            session: `SESSION_BYTES` shared by all connections of this client, and by no other's.
            tls: encrypts all that follows; `None` for no encryption.
            pin: SHA-256 fingerprint of the only accepted certificate.
            host: the server's name, for contexts that verify it.

        Raises:
            AuthenticationError: the server does not know the token, shows another certificate, or does not
                speak this protocol.
            OSError: the connection is lost, or the time is over.
        """
        if tls is not None and not self._local:
            self._encrypt(tls, host)
            self._check_certificate(pin)
        greeting = self._read(len(GREETING))
        if greeting != GREETING:
            raise AuthenticationError(
                f"Expected a server that says {GREETING!r}: driver and executors need the same version of "
                f"distkeras, and the same `tls`. Received: {greeting!r}"
            )
        theirs = self._read(NONCE_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES) + session
        self._write(nonce + _proof(token, b"client", theirs, nonce))
        proof = self._read(hashlib.sha256().digest_size)
        if not hmac.compare_digest(proof, _proof(token, b"server", nonce, theirs)):
            raise AuthenticationError("Expected the server to prove the job's token. Received: a wrong proof")

    def hang_up(self) -> None:
        """End the connection, from any thread: a thread that waits on it gets an error."""
        hang_up(self.sock)

    def _encrypt(self, context: ssl.SSLContext, host: str | None) -> None:
        self._limit_next_step()
        plain = self.sock
        self.sock = context.wrap_socket(
            plain, server_side=host is None, do_handshake_on_connect=False, server_hostname=host
        )
        try:
            self.sock.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise AuthenticationError(f"Expected a certificate that the context verifies: {error}") from error

    def _check_certificate(self, pin: bytes) -> None:
        certificate = (
            self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None
        )
        received = fingerprint(certificate or b"")
        if not hmac.compare_digest(received, pin):
            raise AuthenticationError(
                f"Expected a server with the certificate {pin.hex()}. Received: {received.hex()}"
            )

    def _limit_next_step(self) -> None:
        """Limit the next step to the time that is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"The handshake took longer than {self._seconds:.0f} s.")
        self.sock.settimeout(left)

    def _write(self, data: bytes) -> None:
        self._limit_next_step()
        self.sock.sendall(data)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._limit_next_step()
            view = receive_some(self.sock, view)
        return bytes(data)


def hang_up(sock: socket.socket) -> None:
    """End a connection, from any thread: a thread that waits on it gets an error."""
    with contextlib.suppress(OSError):  # The other side may have closed it already.
        # Not SSLSocket's own method, which removes the encryption under the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def receive_some(sock: socket.socket, view: memoryview) -> memoryview:
    """Receive at least one byte into `view`; return the part that is still empty.

    Raises:
        ConnectionError: the other side has closed the connection.
    """
    count = sock.recv_into(view)
    if count == 0:
        raise ConnectionError("The other side closed the connection.")
    return view[count:]


def _limit_silence(sock: socket.socket, timeout: float) -> None:
    """Let the system end a connection whose peer's machine is gone, however long a reply may take."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe = max(1, round(timeout / (1 + PROBES)))
    for option, value in (
        ("TCP_KEEPIDLE", probe),
        ("TCP_KEEPINTVL", probe),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", round(1000 * timeout)),  # Probes alone do not detect unacknowledged data.
    ):
        if hasattr(socket, option):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _proof(token: bytes, side: bytes, challenge: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, side + challenge + nonce, "sha256")
