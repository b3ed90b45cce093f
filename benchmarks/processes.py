"""Servers and clients of a benchmark, each in a process of its own, which a pipe connects with this one."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any

_SPAWN = mp.get_context("spawn")


@contextlib.contextmanager
def serving(serve: Callable[[int, Pipe], None], size: int) -> Iterator[int]:
    """Run `serve(size, pipe)` in a process until the block ends; yield the port that it sends first."""
    ours, theirs = _SPAWN.Pipe()
    server = _SPAWN.Process(target=serve, args=(size, theirs), daemon=True)
    server.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        server.kill()
        server.join()


@contextlib.contextmanager
def clients(act: Callable[..., None], each: Sequence[tuple[Any, ...]]) -> Iterator[Clients]:
    """Run `act(*arguments, pipe)` in one process for each tuple of arguments; yield them when all are ready.

    `act` sends `None` when it is ready. Then it answers what it receives, until that is `None`. Where a
    process has failed, its next answer is an `EOFError`.
    """
    pipes, processes = [], []
    for arguments in each:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=act, args=(*arguments, theirs), daemon=True)
        process.start()
        # Else nobody would notice the end of the process.
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        yield Clients(pipes)
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()


class Clients:
    """Processes that are ready.

    Args:
        pipes: one for each.
    """

    def __init__(self, pipes: Sequence[Pipe]) -> None:
        self._pipes = pipes

    def ask(self, order: object) -> list[Any]:
        """Send all of them the same order at once, and return what each answers."""
        for pipe in self._pipes:
            pipe.send(order)
        return [pipe.recv() for pipe in self._pipes]
