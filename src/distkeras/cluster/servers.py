"""The driver's handle of a job's parameter servers: one or several, each with a part of the center."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from distkeras.algorithms import Vector
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.process import Process
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.story import Story
from distkeras.wire.client import Client, ServerAddress
from distkeras.wire.group import Group, connect
from distkeras.wire.store import Store

ANSWER_SECONDS = 1.0


class Servers:
    """Server processes that hold one center together, for the duration of one `with` block.

    Parts are contiguous and equal in bytes; if the algorithm needs tensors, they begin at tensors. For an
    ensemble, each server has a part of every member. Each server has its own ledger and snapshots; the first
    leads (see `distkeras.wire.group.Group`).

    Args:
        num_servers: number of processes.
        setup: settings of the whole center; servers other than the first write snapshots to subfolders.
        initial: the first center, shape (size,) or (workers, size).
        resume: number of the next event of an earlier job, at the first server.
        launched: processes to take from; default: start all now.
        story: the story of the job; default: a new one.

    Attributes:
        pause: least seconds between two polls of the events.

    Raises:
        ValueError: fewer ports than servers, several servers for a center in fragments, or a server may
            need more memory than the options allow.
        ServerFailed: a process did not start.
    """

    pause = 0.0

    def __init__(
        self,
        num_servers: int,
        setup: ServerSetup,
        initial: Vector,
        *,
        resume: int | None = None,
        launched: list[Process] | None = None,
        story: Story | None = None,
    ) -> None:
        story = story or Story()
        parts = ServerParts(num_servers, setup, initial.shape[-1])
        bounds, ports = parts.bounds, setup.options.ports
        if 0 not in ports and len(ports) < len(bounds):
            raise ValueError(
                f"Expected a port for each of {len(bounds)} parameter servers, or 0 among them, which lets "
                f"the system choose. Received: ports={ports}"
            )

        def start(index: int, leader: ServerAddress | None = None) -> ServerProcess:
            low, high = bounds[index]
            part = replace(
                parts.setup_of(index),
                options=_options_of(index, setup.options, resume is not None),
                leader=leader,
            )
            return ServerProcess(
                part,
                initial[..., low:high],
                resume=resume if index == 0 or resume is None else 0,
                launched=launched,
                story=story,
            )

        with ExitStack() as stack, ThreadPoolExecutor(len(bounds)) as pool:
            self.processes = [stack.enter_context(start(0))]
            leader = self.processes[0].address if parts.setup_of(0).leads else None
            starting = [pool.submit(start, index, leader) for index in range(1, len(bounds))]
            failures = []
            for future in starting:
                if (error := future.exception()) is not None:
                    failures.append(error)
                else:
                    self.processes.append(stack.enter_context(future.result()))
            if failures:
                raise failures[0]
            self._stack = stack.pop_all()

    def client(self) -> Client | Group:
        """Return the driver's connection to the servers."""
        return connect(self.addresses, patience=ANSWER_SECONDS)

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """Addresses of all servers, in the order of their parts."""
        return tuple(process.address for process in self.processes)

    def revive(self, since: int, seconds: float = 0.0) -> bool:
        """Restart servers that have ended, as `ServerProcess.revive`; return whether there was one."""
        revived = [
            process.revive(0 if index else since, seconds) for index, process in enumerate(self.processes)
        ]
        return any(revived)

    def stop(self, reason: str) -> None:
        """Answer the next request of every worker with the end of the job. The driver may continue to ask."""
        for process in self.processes:
            process.stop(reason)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:  # All at the same time: each may have a last snapshot to write.
            process.hang_up()
        self._stack.close()


def _options_of(index: int, options: ServerOptions, resumed: bool) -> ServerOptions:
    """Return the options of one server: its own snapshots, without those left by an earlier job."""
    snapshots = options.snapshots
    if index == 0 or snapshots is None or snapshots.address is None:
        return options
    own = replace(snapshots, address=f"{snapshots.address.rstrip('/')}/server-{index}")
    if not resumed:
        Store(str(own.address), storage_options=own.storage_options).clear()
    return replace(options, snapshots=own)
