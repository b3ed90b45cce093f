"""Workers on the server's own machine: a Unix socket, and beside it one vector that both sides map.

The socket carries what the TCP connection would, handshake included, but for the vectors: those are written
where the other side reads them, once, instead of being copied into the kernel and out again. The socket's
name is an abstract one and the memory has none, so that a process that is killed leaves nothing behind. Every
process of the machine can read the name in /proc/net/unix and connect: as at a TCP port, the token alone lets
it in. Linux alone has such names; elsewhere, and on other machines, workers use TCP.
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
    """Return a name for a server's Unix socket that no other has; `None` where there is no such thing."""
    return f"\0distkeras-{secrets.token_hex(16)}" if AVAILABLE else None


def listen(name: str) -> socket.socket:
    """Return a socket that listens under `name`.

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
    """Return a socket connected to the one that listens under `name`.

    Raises:
        OSError: nobody listens under `name` on this machine.
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
    """Return a new vector, shape (size,), that the other side of the Unix socket `sock` maps as well.

    Raises:
        OSError: no memory, or the connection is gone.
    """
    num_bytes = max(size * np.dtype(dtype).itemsize, 1)
    memory = os.memfd_create("distkeras", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, num_bytes)
        # The other side could make it shorter, and this one would die of the first read behind its end.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        socket.send_fds(sock, [_MARK], [memory])
        return np.frombuffer(mmap.mmap(memory, num_bytes), dtype, size)
    finally:
        os.close(memory)


def accept(sock: socket.socket, size: int, dtype: npt.DTypeLike = np.float32) -> Vector:
    """Return the vector, shape (size,), that the other side of `sock` shares.

    Raises:
        OSError: the other side shares none of this size.
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
