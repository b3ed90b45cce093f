"""The processes of a run, found by a variable of their environment: also those without their parent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "CHAOS_RUN"


class Processes:
    """Those of one run.

    Args:
        run: value of the variable `MARK` in their environment.
        workers: folder where each process that trains has left a file `WORKER-PID`.
    """

    def __init__(self, run: str, workers: Path) -> None:
        self._mark = f"{MARK}={run}".encode()
        self._workers = workers

    def all(self) -> list[psutil.Process]:
        """Return those that live."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, psutil.Error):
                if folder.name.isdigit() and self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(folder.name)))
        return found

    def servers(self) -> list[psutil.Process]:
        """Return the processes of the parameter servers, the oldest first."""
        return _sorted(p for p in self.all() if "distkeras.wire" in command(p))

    def executors(self) -> list[psutil.Process]:
        """Return the JVMs of Spark's executors, the oldest first."""
        return _sorted(p for p in self.all() if "CoarseGrainedExecutorBackend" in command(p))

    def python_worker(self, executor: psutil.Process) -> psutil.Process | None:
        """Return the process of an executor that trains, or will: the largest that its daemon forked."""
        with contextlib.suppress(psutil.Error):
            below = executor.children(recursive=True)
            daemons = {p.pid for p in below if p.ppid() == executor.pid}
            workers = [p for p in below if p.ppid() in daemons]
            return max(workers, key=lambda p: p.memory_info().rss, default=None)
        return None

    def worker_of(self, process: psutil.Process | None) -> int | None:
        """Return the index of the worker that a process trains as; `None`: it has not begun."""
        if process is None:
            return None
        names = [path.name.split("-") for path in self._workers.iterdir()]
        return next((int(worker) for worker, pid in names if int(pid) == process.pid), None)

    def applications(self, work: Path) -> set[Path]:
        """Return the folders below `work` in which the executors run."""
        found = set()
        for executor in self.executors():
            with contextlib.suppress(psutil.Error):
                found.add(Path(executor.cwd()).parent)
        return {folder for folder in found if folder.parent == work}

    def memory(self) -> int:
        """Return the bytes that all of them take, what they share counted once."""
        total = 0
        for process in self.all():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        return total


def command(process: psutil.Process) -> str:
    """Return the command line of a process; empty: it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _sorted(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return sorted(processes, key=lambda process: process.create_time())
