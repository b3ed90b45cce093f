"""One connection: authenticated, then frames in both directions."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.messages import Exchange
from distkeras.wire import frames
from distkeras.wire.codecs import CodecError, Packing

NONCE_BYTES = 32
SESSION_BYTES = 16
TOKEN_BYTES = 32
GREETING = b"distkeras/1\n"
KEEPALIVE_SECONDS = 10


class AuthenticationError(Exception):
    """The other side does not know the job's token."""


class Connection:
    """Frames over one socket.

    Args:
        sock: a connected TCP or Unix socket; closed with the connection.
        kinds: the frames that may arrive: `frames.REQUESTS` at the server, `frames.REPLIES` at a worker.
        max_text: most bytes of text that an arriving frame may have.
        packing: how the messages of arriving `Exchange`s are compressed; `None`: not at all.

    Attributes:
        shared: the vector of every frame, in either direction, where both sides are on one machine; else
            `None`, and vectors follow their frames.
    """

    def __init__(
        self, sock: socket.socket, kinds: dict[int, type], max_text: int, packing: Packing | None = None
    ) -> None:
        self.sock = sock
        self._kinds = kinds
        self._max_text = max_text
        self._packing = packing
        self._packed = np.empty(0, np.uint8)
        self._header = bytearray(frames.HEADER.size)
        self.shared: Vector | None = None
        if sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A host that vanished without a word is noticed within about a minute, however long a reply may take.
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, option):  # Linux
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE_SECONDS)

    def send(self, message: frames.Message) -> None:
        """Send one frame, whole.

        Raises:
            OSError: the connection is gone.
        """
        head, vector = frames.encode(message)
        if vector is not None and self.shared is not None:
            if vector is not self.shared:
                np.copyto(self.shared, vector)
            vector = None
        if vector is None:
            self.sock.sendall(head)
            return
        # One system call for both parts, so that a small vector does not wait for a second packet.
        sent = self.sock.sendmsg([head, vector.data])
        if sent < len(head):
            self.sock.sendall(head[sent:])
            sent = len(head)
        offset = sent - len(head)
        if offset < vector.nbytes:
            self.sock.sendall(vector.data.cast("B")[offset:])

    def receive(self, buffer: Vector) -> Any:
        """Receive one frame; its vector, if it has one, is put into `buffer`, which the message then holds.

        Where a vector is shared it is in its place already: `buffer` must be `shared`.

        Raises:
            FrameError: what arrived is no frame.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is gone, or silent for longer than its timeout.
        """
        packing = self._packing
        self._fill(memoryview(self._header))
        cls, text_length, length = frames.parse_header(
            bytes(self._header),
            self._kinds,
            self._max_text,
            buffer.nbytes,
            None if packing is None else (packing.codec.number, packing.num_bytes),
        )
        text = bytearray(text_length)
        self._fill(memoryview(text))
        if packing is not None and cls is Exchange:
            self._receive_packed(packing, buffer)
        elif length and buffer is not self.shared:
            self._fill(buffer.data.cast("B"))
            if not np.little_endian:
                buffer.byteswap(inplace=True)
        return frames.parse(cls, bytes(text), buffer)

    def _receive_packed(self, packing: Packing, buffer: Vector) -> None:
        if self._packed.size != packing.num_bytes:  # Not before the first: it is as large as the message.
            self._packed = np.empty(packing.num_bytes, np.uint8)
        self._fill(self._packed.data)
        try:
            packing.decode(self._packed, buffer)
        except CodecError as error:
            raise frames.FrameError(str(error)) from error

    def prove_to_client(self, token: bytes) -> bytes:
        """The server's side of the handshake: challenge, check, answer the client's challenge.

        Returns:
            The client's session.

        Raises:
            AuthenticationError: the client does not know the token.
        """
        nonce = secrets.token_bytes(NONCE_BYTES)
        self.sock.sendall(GREETING + nonce)
        theirs = self._read(NONCE_BYTES + SESSION_BYTES)
        proof = self._read(hashlib.sha256().digest_size)
        if not hmac.compare_digest(proof, _proof(token, b"client", nonce, theirs)):
            raise AuthenticationError("Expected a proof of the job's token. Received: a wrong one")
        self.sock.sendall(_proof(token, b"server", theirs, nonce))
        return theirs[NONCE_BYTES:]

    def prove_to_server(self, token: bytes, session: bytes) -> None:
        """The client's side of the handshake. The token itself is never sent.

        Args:
            token: the job's secret.
            session: `SESSION_BYTES` that all connections of one client have in common, and no other's.

        Raises:
            AuthenticationError: the server does not know the token, or is no server of this protocol.
        """
        greeting = self._read(len(GREETING))
        if greeting != GREETING:
            raise AuthenticationError(f"Expected a server that says {GREETING!r}. Received: {greeting!r}")
        theirs = self._read(NONCE_BYTES)
        nonce = secrets.token_bytes(NONCE_BYTES) + session
        self.sock.sendall(nonce + _proof(token, b"client", theirs, nonce))
        proof = self._read(hashlib.sha256().digest_size)
        if not hmac.compare_digest(proof, _proof(token, b"server", nonce, theirs)):
            raise AuthenticationError("Expected the server to prove the job's token. Received: a wrong proof")

    def close(self) -> None:
        """Close the socket; a thread that waits on it wakes up with an error."""
        with contextlib.suppress(OSError):  # The other side may have been faster.
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        while view:
            count = self.sock.recv_into(view)
            if count == 0:
                raise ConnectionError("The other side closed the connection.")
            view = view[count:]


def _proof(token: bytes, side: bytes, challenge: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, side + challenge + nonce, "sha256")
