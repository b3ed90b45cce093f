"""One worker without Spark and Keras, as a process of its own: it reads what to do from standard input.

Every minibatch adds one to every weight, so with DOWNPOUR the center counts the minibatches that are in it.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.center import Fragments, Layout
from distkeras.wire.client import JobStopped, ServerAddress
from distkeras.wire.group import connect
from distkeras.worker.about import about_this_process
from distkeras.worker.heartbeat import Heartbeat
from distkeras.worker.loop import Loop
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.stopwatch import Stopwatch

SIZE = 64


@dataclass(frozen=True)
class Work:
    """What every worker of a job does."""

    addresses: tuple[ServerAddress, ...]
    algorithm: Algorithm
    num_batches: int
    num_epoch: int
    pause: float
    patience: float
    beat: float
    overlap: bool | int = False
    fragments: Fragments | None = None
    gate: str | None = None
    """Each worker waits in the middle of its last epoch until this file exists."""


class CountingReplica:
    """Each minibatch adds the rate to every weight, at first one, and takes a while."""

    def __init__(self, pause: float) -> None:
        self.layout = Layout((("w", (SIZE,)),))
        self.weights = np.zeros(SIZE, np.float32)
        self.pause = pause
        self.rate = 1.0

    def train(self, x, y=None, sample_weight=None):
        time.sleep(self.pause)
        self.weights += self.rate

    def read(self):
        return self.weights.copy()

    def write(self, vector):
        self.weights = vector.copy()

    adopt = write

    def obey(self, orders, epoch, step):
        if orders.learning_rate is not None:
            self.rate = orders.learning_rate

    def metrics(self):
        return {"loss": 0.5}

    def collect_metrics(self, before=()):
        pass


class NumberedFeed:
    """So many minibatches of one row an epoch; `wait` is called in the middle of each."""

    def __init__(self, num_batches: int, wait: Callable[[int], None] = lambda epoch: None) -> None:
        self.num_batches = num_batches
        self.wait = wait

    def epoch(self, epoch, start=0):
        for step in range(start, self.num_batches):
            if step == max(start, self.num_batches // 2):
                self.wait(epoch)
            yield Minibatch(step, None, None, 1)


def main() -> None:
    driver = os.getppid()
    work, worker, attempt = pickle.load(sys.stdin.buffer)
    with (
        connect(work.addresses, patience=work.patience) as client,
        Heartbeat(client, worker, work.beat) as heartbeat,
    ):
        heartbeat.tell("starting")

        def wait(epoch: int) -> None:
            while work.gate and epoch == work.num_epoch - 1 and not os.path.exists(work.gate):
                if os.getppid() != driver:  # It was killed, and opens no gate.
                    return
                time.sleep(0.01)

        replica = CountingReplica(work.pause)
        loop = Loop(
            replica,
            NumberedFeed(work.num_batches, wait),
            work.algorithm,
            client.call,
            worker=worker,
            num_epoch=work.num_epoch,
            on_orders=replica.obey,
            overlap=work.overlap,
            fragments=work.fragments,
            on_phase=heartbeat.tell,
            about=about_this_process("numpy", 1, "", work.num_batches),
            watch=Stopwatch(lambda: client.traffic),
        )
        try:
            loop.run(attempt)
        except JobStopped:
            return


if __name__ == "__main__":
    import bare_worker

    bare_worker.main()  # What is unpickled is of this module by its name.
