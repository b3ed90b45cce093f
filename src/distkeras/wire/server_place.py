"""Where a parameter server can be found that Spark may start on any executor: a folder that says it.

lease-E.json       the process that serves, or is about to; the largest epoch E counts
address-E.json     where it listens, once it is up
E/...              its mailbox: see `distkeras.wire.mailbox`
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, replace

from distkeras.wire.lease import Lease, find_holder
from distkeras.wire.shared_folder import SharedFolder

VERSION = 1


class NotThere(ConnectionError):
    """No server is up at a place now: Spark has not started it, or starts it again."""


@dataclass(frozen=True)
class Location:
    """Where a server listens.

    Attributes:
        epoch: larger for a server that was started later.
        hosts: addresses and names of its machine, to be tried in this order.
        port: TCP port.
        local_name: Unix socket for processes on its machine; `None` for no such socket.
        machine: name of its machine.
        executor: id of its executor.
    """

    epoch: int
    hosts: tuple[str, ...]
    port: int
    local_name: str | None = None
    machine: str = ""
    executor: str = ""

    @property
    def candidates(self) -> list[str]:
        """The hosts to try; the loopback interface first on the server's own machine."""
        here = self.machine == platform.node()
        return [*(["127.0.0.1"] if here else []), *self.hosts]

    def __str__(self) -> str:
        where = f"executor {self.executor} on {self.machine}" if self.executor else self.machine
        return f"{where}, {' or '.join(self.hosts)}, port {self.port}"


@dataclass(frozen=True)
class ServerPlace:
    """The folder of one server of a job. Whoever connects reads it anew.

    What stands there is no secret, and trusted by nobody: the handshake proves that a server is the right
    one.

    Attributes:
        folder: the folder.
        shares_memory: whether those who look here use the server's Unix socket on its machine.
    """

    folder: SharedFolder
    shares_memory: bool = True

    def __str__(self) -> str:
        return str(self.folder)

    def lease(self, run: str) -> Lease:
        """Return the right to serve here, which `Lease.take` takes from an earlier process."""
        fs, path = self.folder.open()
        fs.makedirs(path, exist_ok=True)
        return Lease(fs, path, run)

    def epoch(self) -> int:
        """Return the epoch of the process that serves, or is about to; 0 for none."""
        holder = find_holder(*self.folder.open())
        return 0 if holder is None else holder.epoch

    def announce(self, location: Location) -> None:
        """Write where the server of an epoch listens."""
        facts = {"version": VERSION, **asdict(location)}
        self.folder.write(_name(location.epoch), json.dumps(facts).encode())

    def location(self, epoch: int) -> Location | None:
        """Return where the server of `epoch` listens; `None` if it is not up yet.

        Raises:
            ValueError: the file is not one of this release.
        """
        data = self.folder.read(_name(epoch))
        if data is None:
            return None
        facts = json.loads(data)
        if facts.pop("version", None) != VERSION:
            raise ValueError(f"Expected the address of a server, version {VERSION}. Received: {data[:100]!r}")
        return Location(**facts | {"hosts": tuple(facts["hosts"])})

    def find(self) -> Location:
        """Return where the present server listens.

        Raises:
            NotThere: none is up.
            OSError: the folder cannot be read.
            ValueError: another release wrote there.
        """
        epoch = self.epoch()
        location = self.location(epoch) if epoch else None
        if location is None:
            raise NotThere(f"No parameter server is up at {self} now.")
        return location if self.shares_memory else replace(location, local_name=None)


def _name(epoch: int) -> str:
    return f"address-{epoch:010d}.json"
