"""A job server as a process of its own, and what a client sends it."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

TYPE = "application/x-distkeras-job"
COMMAND = "from distkeras.command.serve import serve; serve(prog_name='serve')"


def archive_of(files: dict[str, str]) -> bytes:
    """Return a zip."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return written.getvalue()


def body_of(archive: bytes, **request: Any) -> bytes:
    """Return what a client sends to submit a job."""
    asked = {"entry": "main.py", "name": "a job", "sha256": hashlib.sha256(archive).hexdigest(), **request}
    return json.dumps(asked).encode() + b"\n" + archive


class JobServerProcess:
    """A job server.

    Args:
        folder: its folder.
        options: of the command `distkeras serve`.
        tls: what trusts its certificate, if it has one.

    Attributes:
        process: the process.
        address: where it listens.
        port: its port.
        token: its token.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.folder, self._tls = folder, tls
        command = [sys.executable, "-c", COMMAND, "--folder", str(folder), "--port", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = self._line().rpartition(" ")[2]
        self.port = int(self.address.rstrip("/").rpartition(":")[2])
        self.token_file = Path(self._line().rpartition(": ")[2])
        self.token = self.token_file.read_text().strip()

    def _line(self) -> str:
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate()[1]
        return line

    def open(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Return the answer, also if it is a refusal."""
        own = {"X-Distkeras-Token": self.token, "X-Distkeras": "command", "Content-Type": TYPE, **headers}
        request = urllib.request.Request(self.address + path, body, own, method=method)
        try:
            return urllib.request.urlopen(request, timeout=30, context=self._tls)
        except urllib.error.HTTPError as error:
            return error

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the answer."""
        with self.open(method, path, body, **headers) as answer:
            return answer.status, json.load(answer)

    def submit(self, code: str, **request: Any) -> str:
        """Submit a script; return the job's id."""
        status, job = self.ask("POST", "api/jobs", body_of(archive_of({"main.py": code}), **request))
        assert status == 201, job
        return job["id"]

    def job(self, job: str) -> dict[str, Any]:
        """Return a job."""
        return self.ask("GET", f"api/jobs/{job}")[1]["job"]

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of some states, by default those of its end; return it."""
        wanted, deadline = states or ("succeeded", "failed", "stopped"), time.monotonic() + 60
        while (found := self.job(job))["state"] not in wanted:
            assert time.monotonic() < deadline, (found, self.log(job))
            time.sleep(0.05)
        return found

    def log(self, job: str) -> str:
        """Return the whole log of a job."""
        text, cursor = "", ""
        while True:
            _, piece = self.ask("GET", f"api/jobs/{job}/logs?cursor={cursor}")
            if not piece["text"]:
                return text
            text, cursor = text + piece["text"], piece["cursor"]

    def wait_for(self, job: str, word: str) -> str:
        """Wait until the log of a job has a word; return the log."""
        deadline = time.monotonic() + 60
        while word not in (log := self.log(job)):
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
        return log

    def kill(self) -> None:
        """Kill the server, and nothing else."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        """End the server as Ctrl-C does, after its jobs; nothing is left of those of a failed test either."""
        if self.process.poll() is not None:
            return
        for job in self.ask("GET", "api/jobs")[1]["jobs"]:
            self.ask("POST", f"api/jobs/{job['id']}/stop")
        for job in self.ask("GET", "api/jobs")[1]["jobs"]:
            self.wait(job["id"])
        self.process.send_signal(signal.SIGINT)
        assert self.process.communicate(timeout=30) == ("", "")
        assert self.process.returncode == 0

    def __enter__(self) -> JobServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
