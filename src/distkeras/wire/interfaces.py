"""The names and addresses at which other machines may reach this one."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915
"""Linux: the address of an interface."""
NAME_BYTES = 256


def own_hosts() -> list[str]:
    """Return the addresses of this machine's interfaces, without the loopback interface, and its name.

    The address of the interface of the default route is the first.
    """
    found = [_address_towards("192.0.2.1"), *_of_interfaces()]
    with contextlib.suppress(OSError):  # A name that no resolver knows.
        found += socket.gethostbyname_ex(socket.gethostname())[2]
    outside = [each for each in found if each and not each.startswith("127.")]
    return list(dict.fromkeys([*outside, socket.gethostname()]))


def _address_towards(host: str) -> str:
    """Return the address of the interface from which packets to `host` would leave; "" for none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, 9))  # It sends nothing.
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def _of_interfaces() -> list[str]:
    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # It has no address, or the system tells none.
                request = struct.pack(f"{NAME_BYTES}s", name[:15].encode())
                addresses.append(socket.inet_ntoa(fcntl.ioctl(sock, SIOCGIFADDR, request)[20:24]))
    return addresses
