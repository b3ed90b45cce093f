"""One run: the training as a child process, the faults at their times, and whatever dies started again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyspark

from storm.account import Traces
from storm.plan import Fault, Storm
from storm.processes import MARK, Processes
from storm.proxy import Proxy, free_ports
from storm.training import Config

TRAINING = Path(__file__).with_name("training.py")
SPARK_HOME = Path(pyspark.__file__).parent
LOOK_SECONDS = 0.05
MEMORY_SECONDS = 10.0
START_SECONDS = 300.0
SPARE_PORTS = 2
FULL_SECONDS = 10.0
"""After the disk was full, a driver may still end for it."""
DISK_BYTES = 4 * 2**20


class RunFailed(RuntimeError):
    """The training ended by an error of its own, which no fault may bring about."""


@dataclass(frozen=True)
class Struck:
    """A fault that was carried out.

    Attributes:
        fault: as it was planned.
        at: seconds since the Unix epoch.
        worker: the index of the worker that it hit, if it hit one that trained.
        missed: there was nothing to hit: it was down already.
    """

    fault: Fault
    at: float
    worker: int | None = None
    missed: bool = False


class Run:
    """The training of one configuration, for the time of one `with` block, in a folder of its own.

    Args:
        config: what is trained; its folder and ports are chosen here.
        disk: put the snapshots on a small filesystem of their own, so that it can be full.
        seed: of the choice of the connection that is cut.
    """

    def __init__(self, config: Config, *, disk: bool = False, seed: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        for name in ("workers", "snapshots", "temporary", "spark"):
            (self.folder / name).mkdir()
        self.id = secrets.token_hex(8)
        self.processes = Processes(self.id, self.folder / "workers")
        self.traces = Traces(self.folder)
        self.peak_memory = 0
        self.restarts = 0
        self.refused = 0
        self.config = replace(
            config, folder=str(self.folder), ports=free_ports(config.num_servers + SPARE_PORTS)
        )
        self._shared_before = _shared_memory()
        self._proxies = [Proxy(port) for port in self.config.ports]
        self._chance = random.Random(f"{seed} connection")
        self._timers: list[threading.Timer] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._next_memory = 0.0
        self._full_until = 0.0
        self._applications: set[Path] = set()
        self._mounted = disk and _mount(self.folder / "snapshots")
        (self.folder / "config.json").write_text(json.dumps(asdict(self.config)))

    @property
    def has_small_disk(self) -> bool:
        """Whether the snapshots lie on a filesystem that can be filled."""
        return self._mounted

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        for process in self.processes.all():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._child is not None:
            self._child.wait()
        for proxy in self._proxies:
            proxy.close()
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.folder / "snapshots")], check=False)
        for folder in (self.folder, *self._applications):
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> float:
        """Start the training; return the time at which every worker has had a window."""
        self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while len(self.traces.read().first_windows()) < self.config.num_workers:
            if time.monotonic() > deadline:
                raise RunFailed(f"No window of each worker after {START_SECONDS:.0f} s.\n{self.log_tail()}")
            self._look(may_end=False)
            time.sleep(0.2)
        return time.time()

    def storm(self, storm: Storm, started: float) -> list[Struck]:
        """Carry out the faults of `storm`, which began at `started`, up to its end."""
        struck = []
        for fault in storm.faults():
            self._wait_until(started + fault.at)
            struck.append(self._strike(fault))
        self._wait_until(started + storm.seconds)
        for timer in self._timers:  # What stands still goes on; the rest is undisturbed.
            timer.join()
        return struck

    def wait_until(self, moment: float) -> None:
        """Let it train undisturbed until `moment`, in seconds since the Unix epoch."""
        self._wait_until(moment)

    def finish(self, seconds: float) -> dict[str, Any]:
        """Wait for at most `seconds` for the end of the training; return what its center has counted."""
        deadline = time.monotonic() + seconds
        done = self.folder / "done.json"
        while not done.exists():
            if time.monotonic() > deadline:
                raise RunFailed(f"The training has not ended after {seconds:.0f} s.\n{self.log_tail()}")
            self._look(may_end=True)
            time.sleep(0.2)
        counted: dict[str, Any] = json.loads(done.read_text())
        return counted

    def left(self, seconds: float = 30.0) -> dict[str, Any]:
        """Return the files and processes that are left, after `seconds` at most for them to go."""
        deadline = time.monotonic() + seconds
        while (alive := self.processes.all()) and time.monotonic() < deadline:
            time.sleep(0.5)
        files = [path for place in ("temporary", "spark") for path in sorted((self.folder / place).glob("*"))]
        return {
            "processes": [" ".join(process.cmdline())[:200] for process in alive],
            "temporary_files": sorted(path.name for path in files if not _is_spark(path)),
            "of_spark": sum(_is_spark(path) for path in files),
            "snapshots": sorted(
                path.name for path in (self.folder / "snapshots").rglob("*") if path.is_file()
            ),
            "shared_memory": sorted(_shared_memory() - self._shared_before),
        }

    def log_tail(self, lines: int = 60) -> str:
        """Return the end of what the drivers wrote."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])

    def _spawn(self) -> None:
        environment = os.environ | {
            MARK: self.id,
            "KERAS_BACKEND": "jax",
            "PYSPARK_PYTHON": sys.executable,
            "TMPDIR": str(self.folder / "temporary"),
            "SPARK_HOME": str(SPARK_HOME),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with open(self.folder / "log", "ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, str(TRAINING), str(self.folder / "config.json")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _look(self, may_end: bool) -> None:
        """See whether the driver lives: one that ended by an error of its own ends the run.

        But where the disk is full, a driver that was started anew may say so and end, and is started again.
        """
        code = None if self._child is None else self._child.poll()
        if code is not None and not (may_end and code == 0):
            if time.monotonic() > self._full_until:
                raise RunFailed(f"The driver ended with exit code {code}.\n{self.log_tail()}")
            self.refused += 1
            self._spawn()
        if time.monotonic() >= self._next_memory:
            self._next_memory = time.monotonic() + MEMORY_SECONDS
            self.peak_memory = max(self.peak_memory, self.processes.memory())
            self._applications |= self.processes.applications(SPARK_HOME / "work")

    def _wait_until(self, moment: float) -> None:
        while (rest := moment - time.time()) > 0:
            self._look(may_end=False)
            time.sleep(min(rest, LOOK_SECONDS))

    def _strike(self, fault: Fault) -> Struck:
        worker = None
        at = time.time()
        match fault.kind:
            case "kill worker" | "kill executor" | "stop worker":
                executors = self.processes.executors()
                executor = executors[fault.target] if fault.target < len(executors) else None
                python = None if executor is None else self.processes.python_worker(executor)
                victim = executor if fault.kind == "kill executor" else python
                worker = self.processes.worker_of(python)
                missed = victim is None or not self._signal(victim, fault)
            case "kill server":
                servers = self.processes.servers()
                missed = fault.target >= len(servers) or not self._signal(servers[fault.target], fault)
            case "kill driver":
                missed = not self._kill_driver()
            case "cut":
                missed = not self._chance.choice(self._proxies_in_use()).cut(self._chance)
            case "delay":
                missed = False
                self._chance.choice(self._proxies_in_use()).delay(fault.lasts)
            case "full disk":
                missed = False
                self._fill(fault.lasts)
            case kind:
                raise ValueError(f"Expected a fault that can be carried out. Received: kind={kind!r}")
        return Struck(fault, at, worker, missed)

    def _proxies_in_use(self) -> list[Proxy]:
        return [proxy for proxy in self._proxies if proxy.num_connections] or self._proxies

    def _signal(self, victim: psutil.Process, fault: Fault) -> bool:
        with contextlib.suppress(psutil.Error):
            if fault.lasts:
                victim.suspend()
                self._later(fault.lasts, lambda: _resume(victim))
            else:
                victim.kill()
            return True
        return False

    def _kill_driver(self) -> bool:
        """Kill the driver's process and start another at once, as whatever watches over it would."""
        if self._child is None:
            return False
        self._child.kill()
        self._child.wait()
        self.restarts += 1
        self._spawn()
        return True

    def _fill(self, seconds: float) -> None:
        filler = self.folder / "snapshots" / "filler"
        with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        self._full_until = time.monotonic() + seconds + FULL_SECONDS
        self._later(seconds, lambda: filler.unlink(missing_ok=True))

    def _later(self, seconds: float, action: Any) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):  # It was killed while it stood still.
        process.resume()


def _mount(folder: Path) -> bool:
    """Mount a small filesystem; return whether this user may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def _is_spark(path: Path) -> bool:
    return path.name.startswith(("spark-", "blockmgr-", "hsperfdata", "app-", "pyspark-", "liblz4", "snappy"))


def records(values: list[Struck]) -> Iterator[dict[str, Any]]:
    """Yield what was carried out, as JSON has it."""
    for struck in values:
        yield asdict(struck.fault) | {
            "struck_at": struck.at,
            "worker": struck.worker,
            "missed": struck.missed,
        }
