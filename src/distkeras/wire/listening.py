"""Listen at one of some ports; accept connections and close them, to try whether others can open one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Self


def listen(bind: str, ports: Sequence[int]) -> socket.socket:
    """Return a socket that listens at the first free port.

    Args:
        bind: name or address of this machine.
        ports: candidates, tried in order; 0 lets the system choose.

    Raises:
        OSError: the address is not one of this machine, or all ports are taken; the message says which.
    """
    fault: OSError | None = None
    for port in ports:
        try:
            family, _, _, _, _ = socket.getaddrinfo(bind, None, type=socket.SOCK_STREAM)[0]
            return socket.create_server((bind, port), family=family, backlog=512)
        except OSError as error:
            fault = error
    raise OSError(
        f"Expected to listen at {bind}, on one of the ports {list(ports)}. Received: {fault}. Set "
        "ServerOptions(host=..., bind=...) to an address of this machine, and `ports` to free ones, or to 0."
    ) from fault


class Listening:
    """Listens where a parameter server would, for the duration of one `with` block.

    Args:
        host: name or address at which others reach it.
        bind: address that it binds.
        ports: candidates, tried in order; 0 lets the system choose.

    Attributes:
        port: the port that it has.

    Raises:
        OSError: as `listen`.
    """

    def __init__(self, host: str, bind: str, ports: Sequence[int] = (0,)) -> None:
        self.host = host
        self._socket = listen(bind, ports)
        self.port: int = self._socket.getsockname()[1]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # The socket is closed.
            while True:
                connection, _ = self._socket.accept()
                connection.close()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Else `accept` would wait on for ever.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
