"""The one form in which benchmarks keep what they measure: figures, and what is needed to believe them.

A file holds one run. A script notes the start by `begin`, and hands its figures to `Run.write` as often as it
has new ones. Each time the file is written whole, and never merged with what another run left there.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "keras",
    "keras-hub",
    "jax",
    "tensorflow-cpu",
    "tensorflow",
    "torch",
    "pyspark",
    "pyarrow",
    "numpy",
)
FACTS = ("command", "commit", "changed", "date", "seconds", "machine", "load", "versions")
"""What every record has beside its figures."""


class Run:
    """One run of a benchmark, from `begin` to its last `write`.

    Args:
        name: of the benchmark, such as "train".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.perf_counter()
        self._facts: dict[str, Any] = {
            "benchmark": name,
            "command": command(),
            **revision(),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        self._load = load()
        self._versions = versions()

    def write(self, figures: dict[str, Any], path: Path | None = None) -> Path:
        """Write the run as far as it has come, in the place of what the file held.

        Args:
            figures: what was measured, and the settings that it depends on. A name may not be one of `FACTS`.
            path: of the file; by default `benchmarks/results/NAME.json`.

        Returns:
            The path.
        """
        if taken := sorted({*FACTS, "benchmark"} & figures.keys()):
            raise ValueError(f"Expected figures under names of their own. Received: {', '.join(taken)}.")
        path = RESULTS / f"{self._name}.json" if path is None else path
        facts = self._facts | {
            "seconds": round(time.perf_counter() - self._began, 1),
            "machine": machine(),
            "load": {"before": self._load, "after": load()},
            "versions": self._versions,
        }
        text = json.dumps(facts | figures, indent=1, ensure_ascii=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: an interrupted benchmark leaves the record before it.
        part = path.with_name(path.name + ".part")
        part.write_text(text)
        part.replace(path)
        return path


def begin(script: str) -> Run:
    """Note the start of a benchmark.

    Args:
        script: its `__file__`; the record has its name.
    """
    return Run(Path(script).stem)


def read(name: str, results: Path = RESULTS) -> dict[str, Any]:
    """Return the record of a benchmark."""
    record: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    return record


def command() -> str:
    """Return the command line of this process, with the repository's paths as one types them in its root."""
    words = ["python"]
    for word in sys.argv:
        path = Path(word)
        inside = path.is_absolute() and path.is_relative_to(ROOT)
        words.append(str(path.relative_to(ROOT)) if inside else word)
    # An interpreter or a scratch folder elsewhere says nothing to the reader.
    return shlex.join(Path(word).name if word.startswith("/") else word for word in words)


def revision() -> dict[str, Any]:
    """Return the commit that is checked out, and whether the source differs from it."""

    def git(*words: str) -> str:
        run = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
        return run.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "--short=10", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no", "src", "benchmarks/*.py")),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def machine() -> dict[str, Any]:
    """Return what the figures depend on: the processor, its cores, vector units and memory."""
    facts: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
    }
    if (cpus := Path("/proc/cpuinfo")).exists():
        described = dict(line.split(":", 1) for line in cpus.read_text().splitlines() if ":" in line)
        described = {key.strip(): value.strip() for key, value in described.items()}
        facts["processor"] = described.get("model name", facts["processor"])
        flags = described.get("flags", "").split()
        facts["vectors"] = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), None)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return facts


def load() -> float:
    """Return how many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
