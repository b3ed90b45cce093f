"""Workers on the server's machine: a Unix socket, and next to it one vector in shared memory.

The socket carries the same data as a TCP connection, with the handshake but without the vectors: the sender
writes them once, where the receiver reads them, so they are not copied into the kernel and out again. The
socket's name is abstract and the memory has no name, so a killed process leaves nothing behind. Every process
of the machine can read the name in /proc/net/unix and connect: as for a TCP port, only the token lets it in.
Only Linux has such names; workers on other systems and machines use TCP.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import socket
import sys

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector

AVAILABLE = sys.platform == "linux" and hasattr(os, "memfd_create")
_MARK = b"M"


def new_name() -> str | None:
    """Return a unique name for a server's Unix socket; `None` if the system has no such names."""
    return f"\0distkeras-{secrets.token_hex(16)}" if AVAILABLE else None


def listen(name: str) -> socket.socket:
    """Return a listening socket with the name `name`.

    Raises:
        OSError: the name is taken.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name)
        sock.listen(512)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(name: str, timeout: float) -> socket.socket:
    """Return a socket connected to the listener `name`.

    Raises:
        OSError: there is no listener `name` on this machine.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def share(sock: socket.socket, size: int, dtype: npt.DTypeLike = np.float32) -> Vector:
    """Return a new vector, shape (size,), that is shared with the other side of the Unix socket `sock`.

    Raises:
        OSError: there is no memory, or the connection is lost.
    """
    num_bytes = max(size * np.dtype(dtype).itemsize, 1)
    memory = os.memfd_create("distkeras", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, num_bytes)
        # The other side could shrink it, and this process would die at the first read past its end.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        socket.send_fds(sock, [_MARK], [memory])
        return np.frombuffer(mmap.mmap(memory, num_bytes), dtype, size)
    finally:
        os.close(memory)


def accept(sock: socket.socket, size: int, dtype: npt.DTypeLike = np.float32) -> Vector:
    """Return the vector, shape (size,), that the other side of `sock` shares.

    Raises:
        OSError: the other side does not share a vector of this size.
    """
    _, descriptors, _, _ = socket.recv_fds(sock, len(_MARK), 1)
    if len(descriptors) != 1:
        raise ConnectionError("The other side shares no memory.")
    try:
        num_bytes = max(size * np.dtype(dtype).itemsize, 1)
        if os.fstat(descriptors[0]).st_size != num_bytes:
            raise ConnectionError(f"Expected {num_bytes} bytes of shared memory. Received: another size")
        return np.frombuffer(mmap.mmap(descriptors[0], num_bytes), dtype, size)
    finally:
        os.close(descriptors[0])
