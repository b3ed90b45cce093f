"""`monitor="dashboard"`: a viewer as a child of the driver, which shows its trainings until it ends."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distkeras.monitor.dashboard.viewer import ViewerOptions, link
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts
from distkeras.monitor.screens import in_notebook
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.web.serving import MISSING

START_SECONDS = 60.0


@dataclass(frozen=True)
class DashboardLink:
    """The address of a page. A notebook shows it as a link.

    Attributes:
        address: the address.
        title: what the page shows.
    """

    address: str
    title: str = "the training"

    def __str__(self) -> str:
        return f"The page of {self.title}: {self.address}"

    def _repr_html_(self) -> str:
        address, title = html.escape(self.address, quote=True), html.escape(self.title)
        return f'<a href="{address}" target="_blank" rel="noopener">The page of {title}</a>'


class Viewer:
    """A viewer process. It ends with this process, however that ends: its standard input then does.

    Args:
        options: what is served, and how.

    Raises:
        RuntimeError: the process has not come up.
    """

    def __init__(self, options: ViewerOptions) -> None:
        self.options = options
        # Not by the command line, which every user of the machine may read: the token would be there.
        command = [sys.executable, "-m", "distkeras.monitor.dashboard.viewer"]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        # In a session of its own, since Ctrl-C ends the training, not the page.
        self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
        self._say(asdict(options))
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        try:
            self.port = int(json.loads(self._heard())["port"])
        finally:
            timer.cancel()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def add(self, address: str) -> None:
        """Show another run."""
        self._say({"add": address})

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()
        self._process.wait(10)

    def _say(self, what: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("The viewer has no standard input.")
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> str:
        """Return the line with the port.

        Raises:
            RuntimeError: the process has ended, or has not come up in time.
        """
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            self._process.wait(10)
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["it printed nothing"]
            raise RuntimeError(f"The viewer of the page does not start: {last[0]}")
        return line


_SHARED: dict[str, Viewer] = {}
"""The viewers of this process: trainings with the same settings share one, so that they can be compared."""
_LOCK = threading.Lock()


class Dashboard(Monitor):
    """Shows the training on a page, and prints its address when the training begins.

    The page is served by a process of its own, which reads the run directory. It stays until this process
    ends, since people look at it after the training; later, `distkeras dashboard RUNS` shows the same.

    Args:
        host: address to bind to; another one than the default lets other machines look, who need the token
            that is part of the address.
        port: port; `None` for 8765, or a free one if that is taken.
        storage_options: arguments of fsspec's driver, for a run whose store needs them.

    Raises:
        ImportError: Starlette or uvicorn is missing.
    """

    needs_run = True

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        from importlib.util import find_spec

        if find_spec("starlette") is None or find_spec("uvicorn") is None:
            raise ImportError(MISSING)
        self._given = {"host": host, "port": port, "names": _proxies()}
        self._storage_options = dict(storage_options or {})
        self.link: DashboardLink | None = None

    def begin(self, training: TrainingFacts) -> None:
        """Start the viewer, unless an earlier training of this process has, and tell where the page is."""
        if training.run is None:
            raise ValueError("The page shows a run directory. Received: a training without one")
        run = _absolute(training.run)
        if not Folder(*find_filesystem(run, self._storage_options)).is_shared:
            raise ValueError(
                "Expected a run that another process can read: on a local disk, or in a store for "
                f"which fsspec has a driver. Received: {training.run}"
            )
        viewer = self._viewer(run)
        options = viewer.options
        self.link = DashboardLink(_reached(options, viewer.port, run), training.title)
        _show(self.link)

    def take(self, events: Sequence[Shown]) -> None:
        """Do nothing: the page reads the run."""

    def _viewer(self, run: str) -> Viewer:
        key = (*sorted(self._given.items()), *sorted(self._storage_options.items()))
        with _LOCK:
            viewer = _SHARED.get(repr(key))
            if viewer is None or not viewer.is_alive:
                given: dict[str, Any] = {**self._given, "storage_options": self._storage_options}
                _SHARED[repr(key)] = viewer = Viewer(ViewerOptions((run,), **given))
            else:
                viewer.add(run)
            return viewer


def _absolute(run: str) -> str:
    """Return the address of a run as every process of this machine understands it."""
    return run if ":/" in run else os.path.abspath(run)


def _proxies() -> tuple[str, ...]:
    """Return the names by which a notebook server's proxy may be reached: any, the token guards the data."""
    return ("*",) if "JUPYTERHUB_SERVICE_PREFIX" in os.environ else ()


def _reached(options: ViewerOptions, port: int, run: str) -> str:
    """Return where a browser finds the page; below a JupyterHub, through its proxy of the user's ports."""
    address = link(options.host, port, options.token, run)
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    return address if prefix is None else f"{prefix}proxy/{port}/#{address.partition('#')[2]}"


def _show(shown: DashboardLink) -> None:
    """Show a link: in a notebook below the cell, else as a line of text."""
    if in_notebook():
        from IPython.display import display

        display(shown)
    else:
        print(shown, flush=True)
