"""A job without Spark and Keras: the real server process, real worker processes, the driver's own watch."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import bare_worker
import numpy as np
from bare_worker import SIZE, Work

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import CenterConfig
from distkeras.center.requests import Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.cluster.watch import Watch, WorkerError
from distkeras.events import Event, ServerRestored, Window
from distkeras.wire.group import connect


class Workers:
    """Worker processes; one that is killed is started again, as Spark does."""

    def __init__(self, work: Work, num_workers: int) -> None:
        self.error: BaseException | None = None
        self.rows: list[SimpleNamespace] = []
        self._job = work
        self._attempts = dict.fromkeys(range(num_workers), 0)
        self.processes = {worker: self._spawn(worker) for worker in range(num_workers)}

    def _spawn(self, worker: int) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, bare_worker.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        process.stdin.write(pickle.dumps((self._job, worker, self._attempts[worker])))
        process.stdin.close()
        return process

    def wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        for worker, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            error = process.stderr.read().decode()
            process.stderr.close()
            del self.processes[worker]
            if code < 0:
                self._attempts[worker] += 1
                self.processes[worker] = self._spawn(worker)
            elif code > 0:
                self.rows.append(SimpleNamespace(worker=worker, error=error))
        return not self.processes

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            process.stderr.close()


@dataclass
class Job:
    """One job, while it runs and after."""

    server: ServerProcess
    workers: Workers
    servers: Servers
    watch: Watch | None = None
    history: list[Window] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    center: np.ndarray | None = None
    num_updates: int = 0

    def take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Window):
            self.history.append(event)
        if isinstance(event, ServerRestored):
            self.history = [w for w in self.history if w.iteration < event.commits[w.worker]]

    def wait_for_windows(self, count: int, worker: int | None = None) -> None:
        """Wait until the history has so many windows, of all workers or of one."""
        deadline = time.monotonic() + 60
        while sum(worker in (None, window.worker) for window in self.history) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} windows were expected. There are {len(self.history)}")
            time.sleep(0.01)


def run(
    fault=lambda job: None,
    *,
    algorithm: Algorithm | None = None,
    num_workers: int = 2,
    num_batches: int = 30,
    num_epoch: int = 2,
    pause: float = 0.005,
    options: ServerOptions | None = None,
    num_servers: int = 1,
    through=lambda address: address,
    clock: Callable[[], float] = time.monotonic,
    resume: int | None = None,
    ends_before: bool = True,
    **decided,
) -> Job:
    """Train to the end while `fault(job)` runs in a thread; return the job.

    A machine with much other work may be slow to run that thread. So that the fault is in time, each worker
    waits for it in the middle of its last epoch.

    Args:
        num_servers: processes that hold the center between them.
        through: gives the address by which workers reach a server, given its own.
        clock: of the driver's patience.
        resume: as in `Servers`.
        ends_before: the fault ends before the middle of the last epoch. Without it workers do not wait there.
        decided: of the `CenterConfig`.
    """
    algorithm = algorithm or DOWNPOUR(communication_window=2)
    options = options or ServerOptions()
    setup = ServerSetup(CenterConfig(algorithm, num_workers, **decided), options=options)
    with (
        Servers(num_servers, setup, np.zeros(SIZE, np.float32), resume=resume) as servers,
        tempfile.TemporaryDirectory() as folder,
    ):
        gate = Path(folder, "open")
        addresses = tuple(through(address) for address in servers.addresses)
        work = Work(
            addresses,
            algorithm,
            num_batches,
            num_epoch,
            pause,
            options.patience,
            options.heartbeat / 3,
            setup.center.overlap,
            setup.center.fragments,
            str(gate) if ends_before else None,
        )
        job = Job(servers.processes[0], Workers(work, num_workers), servers)
        broken: list[BaseException] = []

        def do():
            try:
                fault(job)
            except BaseException as error:
                broken.append(error)
                servers.stop("The test has failed.")  # Its workers may wait for ever.
            finally:
                gate.touch()

        thread = threading.Thread(target=do)
        thread.start()
        try:
            with connect(servers.addresses, patience=1.0) as client:
                watch = job.watch = Watch(job.workers, servers, client, num_workers, job.take, clock=clock)
                job.num_updates = watch.run()
                job.center = watch.ask(Pull()).center.copy()
        except WorkerError:
            if not broken:
                raise
        finally:
            job.workers.end()
            thread.join(60)
        if broken:
            raise broken[0]
    return job


def check(job: Job, total: int, num_workers: int = 2) -> None:
    """Every window is in the center exactly once, and in the history once."""
    assert job.center.tolist() == [float(total)] * SIZE
    assert sum(window.steps for window in job.history) == total
    for worker in range(num_workers):
        iterations = [window.iteration for window in job.history if window.worker == worker]
        assert iterations == list(range(len(iterations)))


def main() -> None:
    """Train as a driver that something else kills; say when it has begun."""
    options = pickle.load(sys.stdin.buffer)

    def tell(job):
        job.wait_for_windows(20)
        print(job.server._process.pid, flush=True)
        threading.Event().wait(60)  # It is killed while its workers wait for this.

    run(tell, options=options)


if __name__ == "__main__":
    import bare

    bare.main()
