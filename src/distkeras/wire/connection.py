"""One connection: encrypted where the job asks for it, authenticated, then frames in both directions."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
import time
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.wire import frames
from distkeras.wire.codecs import CodecError
from distkeras.wire.compression import Compression
from distkeras.wire.tls import fingerprint

NONCE_BYTES = 32
SESSION_BYTES = 16
TOKEN_BYTES = 32
GREETING = b"distkeras/3\n"
HANDSHAKE_SECONDS = 10.0
TIMEOUT = 30.0
PROBES = 3
SMALL_BYTES = 16 * 2**10
READ_AHEAD = 256


class AuthenticationError(Exception):
    """The other side does not know the job's token, or is not the server that the job started."""


class Connection:
    """Frames over one socket.

    The handshake has one deadline for all its steps, counted from here: a peer that sends a byte now and then
    gains no time by it.

    Args:
        sock: a connected TCP or Unix socket; closed with the connection.
        kinds: the frames that may arrive: `frames.REQUESTS` at the server, `frames.REPLIES` at a worker.
        max_text: most bytes of text that an arriving frame may have.
        compression: this end's; `None`: nothing is compressed.
        checksum: send checksums, and expect them.
        timeout: seconds for which the other machine may acknowledge nothing, neither data nor, where there is
            none, the question whether it is there. The handshake has no more, and 10 s at most.

    Attributes:
        shared: the vector of every frame, in either direction, where both sides are on one machine; else
            `None`, and vectors follow their frames.
    """

    def __init__(
        self,
        sock: socket.socket,
        kinds: dict[int, type],
        max_text: int,
        compression: Compression | None = None,
        checksum: bool = False,
        timeout: float = TIMEOUT,
        dtype: str = "float32",
    ) -> None:
        self.sock = sock
        self._dtype = dtype
        self._handshake = min(timeout, HANDSHAKE_SECONDS)
        self._deadline = time.monotonic() + self._handshake
        self._kinds = kinds
        self._max_text = max_text
        self._compression = compression
        # What stays on this machine is neither damaged on its way nor heard by others.
        self._local = sock.family == socket.AF_UNIX
        self._checksum = checksum and not self._local
        self._ahead = b""  # What was read, and is not yet taken.
        self.shared: Vector | None = None
        if not self._local:
            _limit_silence(sock, timeout)

    def limit_waits(self, seconds: float) -> None:
        """Let one system call wait for at most `seconds`: then `TimeoutError` or `BlockingIOError`."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(seconds)
            return
        # The kernel's own limit. Python's makes the socket one that never blocks: each part of a large
        # vector then costs two system calls, and a small exchange half as much again.
        self.sock.settimeout(None)
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def send(self, message: frames.Message) -> None:
        """Send one frame, whole. Where the job compresses, its vector may become what the other side decodes.

        Raises:
            TextTooLong: the other side would not take it.
            OSError: the connection is gone.
        """
        encoded = None if self._compression is None else self._compression.pack(message)
        head, vector = frames.encode(message, self._checksum, encoded, self._dtype)
        if vector is not None and self.shared is not None:
            if vector is not self.shared:
                np.copyto(self.shared, vector)
            vector = None
        if vector is None:
            self.sock.sendall(head)
        elif isinstance(self.sock, ssl.SSLSocket):  # It has no sendmsg.
            self._send_encrypted(head, vector.data.cast("B"))
        else:
            self._send_plain(head, vector.data.cast("B"))

    def _send_plain(self, head: bytes, data: memoryview) -> None:
        # One system call for both parts, so that a small vector does not wait for a second packet.
        sent = self.sock.sendmsg([head, data])
        if sent < len(head):
            self.sock.sendall(head[sent:])
            sent = len(head)
        offset = sent - len(head)
        if offset < len(data):
            self.sock.sendall(data[offset:])

    def _send_encrypted(self, head: bytes, data: memoryview) -> None:
        if len(data) <= SMALL_BYTES:
            self.sock.sendall(head + data)
        else:
            self.sock.sendall(head)
            self.sock.sendall(data)

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame; its vector, if it has one, is put into `buffer`, which the message then holds.

        Where a vector is shared it is in its place already: `buffer` must be `shared`.

        Raises:
            FrameError: what arrived is no frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is gone, or silent for longer than its timeout.
        """
        compression = self._compression
        header = self._take(frames.HEADER.size)
        forms = {} if compression is None else compression.forms((frames.UNCODED, buffer.nbytes))
        cls, text_length, (codec, length) = frames.parse_header(
            header, self._kinds, self._max_text, buffer.nbytes, forms
        )
        text = self._take(text_length)
        if any(self._take(frames.padding_of(text_length))):
            raise frames.FrameError("Expected zeros behind the text.")
        message = frames.parse(cls, text, buffer)  # The vector is still on its way.
        packed = codec != frames.UNCODED
        if compression is not None and packed:
            self._receive_packed(compression, buffer, header, text)
        else:
            self._receive_vector(buffer if length else None, header, text)
        if compression is not None:
            compression.take_note(message, whole=not packed)
        return message

    def _receive_vector(self, vector: Vector | None, header: bytes, text: bytes) -> None:
        arrives = vector is not None and vector is not self.shared
        if vector is not None and arrives:
            self._fill(vector.data.cast("B"))
        frames.check(header, text, vector, self._checksum)
        if vector is not None and arrives and not np.little_endian:
            vector.byteswap(inplace=True)

    def _receive_packed(self, compression: Compression, buffer: Vector, header: bytes, text: bytes) -> None:
        packed = compression.room()
        self._fill(packed.data)
        frames.check(header, text, packed, self._checksum)
        try:
            compression.unpack(packed, buffer)
        except CodecError as error:
            raise frames.FrameError(str(error)) from error

    def prove_to_client(self, token: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        """The server's side of the handshake: challenge, check, answer the client's challenge.

        Args:
            token: the job's secret.
            tls: encrypts all that follows; `None`: nothing.

        Returns:
            The client's session.

        Raises:
            AuthenticationError: the client does not know the token.
            OSError: it has gone, does not speak TLS, or was not done in time.
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
        """The client's side of the handshake. The token itself is never sent.

        Args:
            token: the job's secret.
            session: `SESSION_BYTES` that all connections of one client have in common, and no other's.
            tls: encrypts all that follows; `None`: nothing.
            pin: SHA-256 fingerprint of the one certificate that is believed.
            host: the server's name, for contexts that verify it.

        Raises:
            AuthenticationError: the server does not know the token, shows another certificate, or is no
                server of this protocol.
            OSError: it has gone, or was not done in time.
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
        """End the connection, from any thread: the one that waits on it wakes up with an error."""
        with contextlib.suppress(OSError):  # The other side may have been faster.
            # Not SSLSocket's own, which takes the encryption from under the thread that reads.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. For the thread that uses it."""
        self.hang_up()
        self.sock.close()

    def _encrypt(self, context: ssl.SSLContext, host: str | None) -> None:
        self._wait_for_the_rest()
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

    def _wait_for_the_rest(self) -> None:
        """Let the next step of the handshake take no longer than is left of its time."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"The handshake took longer than {self._handshake:.0f} s.")
        self.sock.settimeout(left)

    def _write(self, data: bytes) -> None:
        self._wait_for_the_rest()
        self.sock.sendall(data)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._wait_for_the_rest()
            view = self._receive_some(view)
        return bytes(data)

    def _take(self, size: int) -> bytes:
        """Return the next `size` bytes: header and text of a small frame come by one system call."""
        if size and not self._ahead:
            self._ahead = self.sock.recv(READ_AHEAD)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        if len(taken) < size:
            rest = bytearray(size - len(taken))
            self._fill(memoryview(rest))
            taken += rest
        return taken

    def _fill(self, view: memoryview) -> None:
        if self._ahead:
            count = min(len(self._ahead), len(view))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            view = view[count:]
        while view:
            view = self._receive_some(view)

    def _receive_some(self, view: memoryview) -> memoryview:
        count = self.sock.recv_into(view)
        if count == 0:
            raise ConnectionError("The other side closed the connection.")
        return view[count:]


def _limit_silence(sock: socket.socket, timeout: float) -> None:
    """Have the system end a connection whose other machine is gone, however long a reply may take."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe = max(1, round(timeout / (1 + PROBES)))
    for option, value in (
        ("TCP_KEEPIDLE", probe),
        ("TCP_KEEPINTVL", probe),
        ("TCP_KEEPCNT", PROBES),
        ("TCP_USER_TIMEOUT", round(1000 * timeout)),  # Probes alone say nothing of data that is on its way.
    ):
        if hasattr(socket, option):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _proof(token: bytes, side: bytes, challenge: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, side + challenge + nonce, "sha256")
