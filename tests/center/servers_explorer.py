"""A model of a center on two servers: the first decides, the second follows; and random orders of events.

Both are the real `Center`, with real snapshots, and the second a real `Follower`. A worker is what
`worker.loop` and `wire.group` make of it: it sends each request to both servers, again to the one whose reply
is lost, and goes on when both have answered. Each window is an element of the center: its commit makes it
one, and whatever is lost or counted twice shows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
from explorer import Clock, Total, Violation

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import Center, CenterConfig, restore_snapshot, take_snapshot
from distkeras.center.answers import Done, Exchanged, Joined, Refused, Rejoin
from distkeras.center.follower import Follower
from distkeras.center.request_log import RequestLog
from distkeras.center.requests import Beat, Dismiss, Exchange, Follow, Join, Leave
from distkeras.wire.client import _answers
from distkeras.wire.group import CALLS

LEADER, FOLLOWER = 0, 1


@dataclass
class Process:
    """One worker's process.

    Attributes:
        request: what it waits for; `None` before its first request.
        replies: what the servers have answered to it, by server.
        reached: servers that have received it on a connection that is still open.
        sequence: windows that it has committed.
        joined: whether it may commit.
        left: whether it has ended.
        calls: requests so far.
    """

    ticket: int = 0
    request: Join | Exchange | Leave | None = None
    replies: dict[int, object] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)
    sequence: int = 0
    joined: bool = False
    left: bool = False
    calls: int = 0


@dataclass
class World:
    """Two servers and their workers, under random events.

    Args:
        algorithm: the rule; DOWNPOUR and `Total` add up messages, so that windows can be counted.
        seed: of the random events.
        faults: how many of them are faults.
        kinds: which faults: "cut", "kill", "leader" and "follower" (restarts).
        quorum: of the rounds.
        grace: of the rounds, in seconds of a clock that both servers share.
        follower: the class of the second server; replaced to plant a bug.
        center: the class of both centers; replaced to plant a bug.
    """

    algorithm: Algorithm
    seed: int
    faults: int = 3
    kinds: tuple[str, ...] = ("cut", "kill", "leader", "follower")
    num_workers: int = 3
    num_windows: int = 3
    quorum: int | None = None
    grace: float = 0.0
    follower: type[Follower] = Follower
    center: type[Center] = Center

    def __post_init__(self):
        self.clock = Clock()
        self.random = random.Random(self.seed)
        self.steps: list[str] = []
        self.size = self.num_workers * self.num_windows
        self.workers = [Process() for _ in range(self.num_workers)]
        self.leader = self._new_leader()
        self.second = self._new_follower()
        self.snapshots = [take_snapshot(center, {}) for center in self.centers]
        self._poll()

    @property
    def centers(self):
        return [self.leader, self.second.center]

    def _new_leader(self, restored=False):
        return self._center(RequestLog(restored=restored))

    def _new_follower(self):
        return self.follower(self._center(None))

    def _center(self, log):
        config = CenterConfig(self.algorithm, self.num_workers, quorum=self.quorum, grace=self.grace)
        if log is None:
            config = config.follower(0, self.size)
        initial = np.zeros(self.size, np.float32)
        return self.center(config, initial, clock=self.clock, request_log=log)

    def run(self):
        """Let everything happen until all workers have ended.

        Raises:
            Violation: something is lost or counted twice, or nothing goes on.
        """
        for _ in range(4000):
            if all(worker.left for worker in self.workers):
                return self._check()
            self._step()
        raise Violation(f"Nothing goes on after {self.steps[-40:]}: {self.workers}")

    def _step(self):
        random = self.random
        if self.faults and random.random() < 0.05:
            self.faults -= 1
            happen = {
                "cut": self._cut,
                "kill": self._kill,
                "leader": self._restart_leader,
                "follower": self._restart_follower,
            }
            happen[random.choice(self.kinds)](random.randrange(self.num_workers))
        elif random.random() < 0.1:
            which = random.randrange(2)
            self.snapshots[which] = take_snapshot(self.centers[which], {})
        elif random.random() < 0.3:
            self._poll()
        elif self.grace and random.random() < 0.1:
            self._pass_time()
        else:
            index = random.randrange(self.num_workers)
            worker = self.workers[index]
            if worker.left:
                return
            if worker.request is None:
                self._begin(index, worker)
            waits_for = [s for s in (LEADER, FOLLOWER) if s not in worker.reached | worker.replies.keys()]
            if waits_for:
                self._send(index, random.choice(waits_for))

    def _begin(self, index, worker):
        worker.calls += 1
        call = worker.ticket * CALLS + worker.calls
        if not worker.joined:
            self.second.handle(Beat(index, worker.ticket))
            worker.request = Join(index, ticket=worker.ticket, call=call)
        elif worker.sequence == self.num_windows:
            worker.request = Leave(index, call)
        else:
            message = np.zeros(self.size, np.float32)
            message[index * self.num_windows + worker.sequence] = 1
            sequence = worker.sequence + 1
            worker.request = Exchange(index, sequence, 1, 1, 0, sequence, message, call=call)
        worker.replies, worker.reached = {}, set()

    def _send(self, index, server):
        worker = self.workers[index]
        request = worker.request
        if isinstance(request, Exchange):
            request = replace(request, message=request.message.copy())
        call = request.call % CALLS
        self.steps.append(f"{index}->{server}: {type(request).__name__} {call}")
        worker.reached.add(server)
        answers = (self.leader, self.second)[server].handle(request)
        if isinstance(request, Leave) and any(isinstance(reply, Done) for _, reply in answers):
            self.snapshots[server] = take_snapshot(self.centers[server], {})
        self._deliver(server, answers)

    def _deliver(self, server, answers):
        for index, reply in answers:
            worker = self.workers[index]
            if worker.left or worker.request is None or server not in worker.reached:
                continue  # Its connection is gone.
            if not _answers(worker.request, reply):  # It is for a process that was killed.
                self._lose(server, index)
                continue
            worker.reached.discard(server)
            worker.replies[server] = reply
            if isinstance(reply, Done):  # Before its process may end.
                self.snapshots[server] = take_snapshot(self.centers[server], {})
            if len(worker.replies) == 2 or isinstance(reply, Rejoin | Refused):
                self._hear(worker)
                if worker.reached:  # It gives up the other request.
                    self._lose(1 - server, index)

    def _hear(self, worker):
        replies, request = list(worker.replies.values()), worker.request
        worker.request = None
        if any(isinstance(reply, Refused) for reply in replies):
            raise Violation(f"Refused: {replies} after {self.steps[-40:]}")
        if any(isinstance(reply, Rejoin) for reply in replies):
            worker.joined = False
        elif isinstance(request, Join):
            worker.joined = True
            worker.sequence = min(reply.sequence for reply in replies if isinstance(reply, Joined))
        elif isinstance(request, Exchange):
            assert all(isinstance(reply, Exchanged) for reply in replies)
            worker.sequence = request.sequence
        else:
            worker.left = True

    def _poll(self):
        if not self.second.leader:
            self._deliver(LEADER, self.leader.handle(Dismiss()))
        ((_, page),) = self.leader.handle(Follow(self.second.leader, self.second.next))
        self._deliver(FOLLOWER, self.second.follow(page))

    def _pass_time(self):
        """Let the grace of any open round end; the servers look at their centers, as `GraceWatch` does."""
        self.steps.append("time passes")
        self.clock.now += self.grace
        self._deliver(LEADER, self.leader.look())
        self._poll()
        self._deliver(FOLLOWER, self.second.look())

    def _lose(self, server, index):
        """The connection of a worker to a server is cut; it will send again."""
        self.workers[index].reached.discard(server)
        if server == FOLLOWER:
            self._deliver(FOLLOWER, self.second.cut(index))

    def _cut(self, index):
        server = self.random.randrange(2)
        self.steps.append(f"cut {index}->{server}")
        self._lose(server, index)

    def _kill(self, index):
        if self.workers[index].left:
            return
        self.steps.append(f"kill {index}")
        ticket = self.workers[index].ticket + 1
        self._lose(LEADER, index)
        self._lose(FOLLOWER, index)
        self.workers[index] = Process(ticket)

    def _restart_leader(self, _):
        self.steps.append("restart 0")
        self.leader = self._new_leader(restored=True)
        restore_snapshot(self.leader, self.snapshots[LEADER])
        self.snapshots[LEADER] = take_snapshot(self.leader, {})
        for worker in self.workers:
            worker.reached.discard(LEADER)

    def _restart_follower(self, _):
        self.steps.append("restart 1")
        self.second = self._new_follower()
        restore_snapshot(self.second.center, self.snapshots[FOLLOWER])
        self.snapshots[FOLLOWER] = take_snapshot(self.second.center, {})
        for worker in self.workers:
            worker.reached.discard(FOLLOWER)

    def _check(self):
        for which, center in enumerate(self.centers):
            places = [record.sequence for record in center._records]
            if places != [self.num_windows] * self.num_workers:
                raise Violation(f"Windows are lost at server {which}: {places} after {self.steps}")
            if isinstance(self.algorithm, DOWNPOUR | Total) and (center.snapshot() != 1).any():
                raise Violation(f"Received: {center.snapshot()} at server {which} after {self.steps}")
