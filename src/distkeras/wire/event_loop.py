"""Many conversations over sockets in one thread; those that move large vectors have threads of their own.

A conversation is a generator. It yields what it waits for, and continues when that has come. With many
threads, a switch between two takes longer than a small exchange; in the loop's thread there is none. Long
transfers run side by side in threads: NumPy and the sockets release the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
"""Wait until the socket has bytes, or takes some."""
IDLE = 4
"""Wait for the next message: the socket has nothing now."""
PARK = 8
"""Wait for `EventLoop.wake`; it may also come for no reason."""
THREAD = 16
"""Continue in a thread, where the socket blocks, up to the next `IDLE` or `PARK` at least."""
THREADS = "distkeras-"
"""Prefix of the names of the server's own threads, which a user's algorithm does not use."""

T = TypeVar("T")
Steps = Generator[int, None, T]
"""A conversation, or a part of one that returns T."""


class Task:
    """A conversation over one socket.

    Args:
        sock: a connected socket. The loop decides whether it blocks.
        steps: the conversation.
        done: called at its end, from any thread, with the exception that ended it.
        in_thread: whether it has a thread of its own for good.
    """

    def __init__(
        self,
        sock: socket.socket,
        steps: Steps[None],
        done: Callable[[Exception | None], None],
        *,
        in_thread: bool = False,
    ) -> None:
        self.sock, self.steps, self.done = sock, steps, done
        self.stays = self.in_thread = in_thread
        self.watched = 0
        self.parked = self.ended = False
        self.awake = threading.Event()


class EventLoop:
    """Runs conversations until it is closed.

    Args:
        prepare: called in each thread that runs conversations.
        tick: called in the loop's thread about every `seconds`.
        seconds: interval between two calls of `tick`.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        tick: Callable[[], None],
        seconds: float = 1.0,
    ) -> None:
        self._prepare, self._tick, self._seconds = prepare, tick, seconds
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, Task] = {}  # By file descriptor.
        self._epoll = _epoll_of(self._selector)
        self._calls: deque[Callable[[], None]] = deque()
        self._ours, self._others = socket.socketpair()
        for sock in (self._ours, self._others):
            sock.setblocking(False)
        self._selector.register(self._ours, READ)
        self._tasks: set[Task] = set()  # All that have not ended.
        self._closed = threading.Event()

    def start(self, task: Task) -> None:
        """Begin a conversation. From any thread."""
        self._call(lambda: self._begin(task))

    def wake(self, task: Task) -> None:
        """Let a conversation continue that waits for this, or will. From any thread."""
        task.awake.set()
        if not task.in_thread:
            self._call(lambda: self._resume(task))

    def run(self) -> None:
        """Run conversations until `close`."""
        self._prepare()
        next_tick = time.monotonic() + self._seconds
        while not self._closed.is_set():
            for descriptor in self._ready():
                if (task := self._watched.get(descriptor)) is not None:
                    self._step(task)
                else:  # `_signal`, if not a conversation that has just ended.
                    with contextlib.suppress(BlockingIOError):
                        self._ours.recv(4096)
            while self._calls:
                self._calls.popleft()()
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + self._seconds
        for task in list(self._tasks):
            if not task.in_thread:  # The others end by themselves: their sockets are shut down.
                self._end(task, None)
        while self._calls:
            self._calls.popleft()()
        if self._epoll is not None:
            self._epoll.close()
        self._selector.close()
        self._ours.close()
        self._others.close()

    def close(self) -> None:
        """End all conversations whose sockets have been shut down. From any thread."""
        self._closed.set()
        self._signal()

    def _call(self, call: Callable[[], None]) -> None:
        """Run `call` in the loop's thread."""
        self._calls.append(call)
        self._signal()

    def _signal(self) -> None:
        # A full buffer wakes the loop as well; a closed one needs no more.
        with contextlib.suppress(OSError):
            self._others.send(b"\0")

    def _ready(self) -> list[int]:
        """Wait for what the conversations wait for; return the descriptors of the sockets that have it."""
        if self._epoll is not None:  # Without the record that `selectors` makes for each.
            return [descriptor for descriptor, _ in self._epoll.poll(self._seconds)]
        return [key.fd for key, _ in self._selector.select(self._seconds)]

    def _begin(self, task: Task) -> None:
        self._tasks.add(task)
        task.sock.setblocking(False)
        self._go_on(task, THREAD if task.stays else IDLE)

    def _resume(self, task: Task) -> None:
        if task.parked:
            self._go_on(task, PARK)

    def _step(self, task: Task) -> None:
        """Continue a conversation in the loop's thread."""
        try:
            wait = next(task.steps)
        except StopIteration:
            self._end(task, None)
        except Exception as error:
            self._end(task, error)
        else:
            self._go_on(task, wait)

    def _go_on(self, task: Task, wait: int) -> None:
        """Let a conversation wait as it asks, or continue in a thread. In the loop's thread."""
        if self._closed.is_set():
            self._end(task, None)
        elif wait == THREAD:
            self._watch(task, 0)
            self._to_thread(task)
        elif wait == PARK:
            self._watch(task, 0)
            task.parked = not task.awake.is_set()
            if not task.parked:
                task.awake.clear()
                self._step(task)
        else:
            self._watch(task, WRITE if wait == WRITE else READ)

    def _watch(self, task: Task, events: int) -> None:
        if task.watched == events:
            return
        descriptor = task.sock.fileno()
        if not task.watched:
            self._selector.register(descriptor, events)
            self._watched[descriptor] = task
        elif events:
            self._selector.modify(descriptor, events)
        else:
            self._selector.unregister(descriptor)
            del self._watched[descriptor]
        task.watched = events

    def _to_thread(self, task: Task) -> None:
        task.in_thread = True
        try:
            thread("transfer", self._run_in_thread, task).start()
        except (RuntimeError, MemoryError) as error:  # There is no thread for it now.
            self._end(task, error)

    def _run_in_thread(self, task: Task) -> None:
        try:
            self._prepare()
            task.sock.setblocking(True)
            for wait in task.steps:
                if wait == THREAD:
                    continue
                if not task.stays:
                    task.sock.setblocking(False)
                    task.in_thread = False
                    self._call(functools.partial(self._go_on, task, wait))
                    return
                if wait == PARK:
                    task.awake.wait()
                    task.awake.clear()
        except Exception as error:
            self._end(task, error)
        else:
            self._end(task, None)

    def _end(self, task: Task, error: Exception | None) -> None:
        if task.ended:
            return
        task.ended = True
        self._watch(task, 0)
        self._tasks.discard(task)
        task.steps.close()
        task.done(error)


def _epoll_of(selector: selectors.BaseSelector) -> select.epoll | None:
    """Return the epoll object of the system behind `selector`; `None` where there is none."""
    if sys.platform != "linux" or not isinstance(selector, selectors.EpollSelector):
        return None
    return select.epoll.fromfd(os.dup(selector.fileno()))


def thread(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    """Return a thread of the server, which has not started."""
    return threading.Thread(target=target, args=args, name=f"{THREADS}{name}", daemon=True)
