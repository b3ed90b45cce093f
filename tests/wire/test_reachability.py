"""Whether an address can be reached is found out by connecting to it, and the reason is told."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from distkeras.wire.reachability import connector


def test_what_stands_between_is_told_for_each_address():
    with ExitStack() as stack:
        open_ = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # The kernel drops what comes to a port with a full queue, as a firewall does.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nobody = closed.getsockname()
        addresses = [open_.getsockname(), full.getsockname(), nobody, ("no-such-host.invalid", 1)]
        assert connector(addresses, 0.5)() == [
            "",
            "timed out after 0.5 s",
            "connection refused",
            "the name 'no-such-host.invalid' does not resolve there",
        ]
