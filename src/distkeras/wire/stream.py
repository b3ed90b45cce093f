"""The bytes of one connection, over a socket that blocks or does not.

What may have to wait for the socket is a conversation of `event_loop`.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import struct
import sys
import termios
from typing import NamedTuple

from distkeras.wire.event_loop import READ, WRITE, Steps
from distkeras.wire.handshake import hang_up

SMALL_BYTES = 16 * 2**10
READ_AHEAD = 256
PIECE = 4 * 2**20
"""Most bytes of a vector in one system call, so that progress can be seen."""
NOTHING = memoryview(b"")
_READS = (BlockingIOError, ssl.SSLWantReadError)
_WRITES = (BlockingIOError, ssl.SSLWantWriteError)
_CLOSED = "The other side closed the connection."


class Rest(NamedTuple):
    """What is left to send of a frame.

    Attributes:
        head: of its header, text and zeros.
        data: of its vector.
    """

    head: bytes
    data: memoryview


class Stream:
    """Sends and receives bytes over one socket.

    Args:
        sock: a connected TCP or Unix socket, after its handshake; closed with the stream.

    Attributes:
        ahead: bytes that have been received but not used.
        encrypted: whether the socket encrypts.
        moved: bytes of vectors that have been sent and received so far.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ahead = b""
        self.encrypted = isinstance(sock, ssl.SSLSocket)
        self.moved = 0

    def limit_waits(self, seconds: float) -> None:
        """Limit each system call to `seconds`; it then raises `TimeoutError`."""
        if self.encrypted:
            self.sock.settimeout(seconds)
            return
        # The kernel's own limit. Python's limit makes the socket non-blocking: then each part of a large
        # vector costs two system calls, and a small exchange takes half as long again.
        self.sock.settimeout(None)
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, limit)

    def send(self, head: bytes, data: memoryview) -> Rest | None:
        """Send in one system call what the system takes; return the rest, or `None` if there is none.

        Raises:
            OSError: the connection is lost.
        """
        if self.encrypted:  # It has no sendmsg.
            return Rest(b"", memoryview(head + data)) if len(data) <= SMALL_BYTES else Rest(head, data)
        try:
            # One system call for both, so that a small vector does not wait for a second packet.
            sent = self.sock.sendmsg((head, data[:PIECE])) if data else self.sock.send(head)
        except BlockingIOError:
            return Rest(head, data)
        in_head = min(sent, len(head))
        self.moved += sent - in_head
        return None if sent == len(head) + len(data) else Rest(head[in_head:], data[sent - in_head :])

    def sending(self, rest: Rest) -> Steps[None]:
        """Send the rest of a frame.

        Raises:
            OSError: the connection is lost.
        """
        for data in (memoryview(rest.head), rest.data):
            while data:
                try:
                    sent = self.sock.send(data[:PIECE])
                except _WRITES:
                    yield WRITE
                except ssl.SSLWantReadError:
                    yield READ
                else:
                    data = data[sent:]
                    self.moved += sent

    def ready(self) -> bool:
        """Return whether bytes have been received already."""
        return bool(self.ahead) or (self.encrypted and self.sock.pending() > 0)  # type: ignore[attr-defined]

    def receive(self, head: bytearray, data: memoryview) -> int:
        """Receive into `head`, then into `data`, in one system call; return how many bytes have come.

        Raises:
            BlockingIOError: nothing has arrived.
            ConnectionError: the other side has closed the connection.
            OSError: the connection is lost.
        """
        count: int = self.sock.recvmsg_into((head, data[:PIECE]))[0] if data else self.sock.recv_into(head)
        if not count:
            raise ConnectionError(_CLOSED)
        return count

    def looking_ahead(self, size: int) -> Steps[None]:
        """Receive at least `size` bytes ahead. Header and text of a small frame need one system call."""
        data = self.ahead
        while len(data) < size:
            try:
                piece = self.sock.recv(max(READ_AHEAD, size - len(data)))
            except _READS:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                if not piece:
                    raise ConnectionError(_CLOSED)
                data = data + piece if data else piece
        self.ahead = data

    def filling(self, view: memoryview) -> Steps[None]:
        """Receive into `view` until it is full."""
        if self.ahead:
            count = min(len(self.ahead), len(view))
            view[:count], self.ahead = self.ahead[:count], self.ahead[count:]
            view = view[count:]
        while view:
            try:
                count = self.sock.recv_into(view[:PIECE])
            except _READS:
                yield READ
            except ssl.SSLWantWriteError:
                yield WRITE
            else:
                if not count:
                    raise ConnectionError(_CLOSED)
                view = view[count:]
                self.moved += count

    def progress(self) -> int:
        """Return a number that changes when bytes of vectors move, from any thread.

        What the system has taken but the other side has not acknowledged does not count as moved.
        """
        with contextlib.suppress(OSError):  # The socket is closed, or the system does not tell.
            return self.moved - int.from_bytes(
                fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        return self.moved

    def hang_up(self) -> None:
        """End the connection, from any thread: a thread that waits on it gets an error."""
        hang_up(self.sock)

    def close(self) -> None:
        """Close the socket. Only for the thread that uses it."""
        self.hang_up()
        self.sock.close()
