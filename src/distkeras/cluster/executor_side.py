"""What a short task says of the executor that it runs on. Its functions travel by value.

They run where this package is missing, or is of another version, so they import nothing but the standard
library, and this project only once it is known to be the driver's.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "distkeras"


def ask(question: dict[str, Any]) -> str:
    """Return, as JSON, the fields of `ExecutorFacts`: what this process and its machine are like.

    Args:
        question: `digest` of the driver's distkeras, or None where this Python is the driver's; `modules`
            that must be there; `versions` to return, by name of the package; and `prepare`, the
            arguments of `prepare` if nothing is missing, or None to import nothing.
    """
    begin = time.time()
    digest = question["digest"]
    if digest is not None:
        forget_other(digest)
    facts: dict[str, Any] = {
        "host": platform.node(),
        "executor": executor_id(),
        "python": sys.executable,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "versions": {name: version_of(name) for name in question["versions"]},
        "missing": [name for name in question["modules"] if importlib.util.find_spec(name) is None],
        "package": package_here() if digest is not None else ("", "", ""),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": memory_of_machine(),
        "disk": free_disk(),
        "gpus": (len(glob.glob("/dev/nvidia[0-9]*")), len(gpus_of_task())),
        "gpus_of_backend": None,
    }
    fits = digest is None or facts["package"][1] == digest
    if question["prepare"] and fits and not facts["missing"]:
        facts["gpus_of_backend"] = prepare(*question["prepare"])
    return json.dumps(facts | {"begin": begin, "end": time.time()})


def prepare(backend: str, threads: int, gpu: int = 1, machine: int = 1) -> int:
    """Import Keras, as a worker does; return how many GPUs the backend sees.

    Args:
        backend: the Keras backend.
        threads: cores of a worker.
        gpu: as in `Sharing`, which a Python without this package could not read.
        machine: likewise.
    """
    from pyspark import TaskContext

    from distkeras.worker.environment import prepare_process
    from distkeras.worker.gpus import Sharing, gpus_of_backend

    worker = TaskContext.get().partitionId()
    prepare_process(backend, threads, gpus_of_task(), worker, Sharing(gpu, machine))
    return gpus_of_backend(backend)


def package_here() -> tuple[str, str, str]:
    """Return version, digest of the source and folder of the distkeras that an import would find."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return "", "", ""
    folder = next(iter(spec.submodule_search_locations))
    source = dict(sources_of(folder))
    beside = importlib.metadata.distributions(name=PACKAGE, path=[os.path.dirname(folder)])
    version = next((found.version for found in beside), None) or version_of(PACKAGE)
    return version, digest_of(source), folder


def sources_of(folder: str) -> list[tuple[str, bytes]]:
    """Return the path, with slashes, and the content of each Python file of a package, sorted.

    Args:
        folder: of the package; it may lie in a zip file.
    """
    if os.path.isdir(folder):
        paths = sorted(Path(folder).rglob("*.py"))
        return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths]
    archive, inside = os.path.split(folder)
    while not os.path.isfile(archive):
        archive, name = os.path.split(archive)
        inside = f"{name}/{inside}"
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.startswith(f"{inside}/"))
        return [(name[len(inside) + 1 :], file.read(name)) for name in names if name.endswith(".py")]


def digest_of(sources: dict[str, bytes]) -> str:
    """Return a digest of the files of a package: equal for equal code."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name} {len(sources[name])}\n".encode())
        digest.update(sources[name])
    return digest.hexdigest()[:16]


def forget_other(digest: str) -> None:
    """Let this process import distkeras anew if it has imported another one than that with `digest`.

    Spark reuses its Python workers: one may have imported what was there before the driver sent its own.
    """
    own = sys.modules.get(PACKAGE)
    if own is None or getattr(own, "_digest_in_worker", None) == digest:
        return
    if digest_of(dict(sources_of(next(iter(own.__path__))))) == digest:
        own._digest_in_worker = digest  # type: ignore[attr-defined]  # Read the source once a process.
        return
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()


def check_package(digest: str) -> None:
    """Raise RuntimeError unless this process imports the distkeras with `digest`, the driver's."""
    forget_other(digest)
    if PACKAGE in sys.modules:
        return
    version, found, folder = package_here()
    if found != digest:
        what = f"distkeras {version} with different code, in {folder}" if found else "no distkeras"
        raise RuntimeError(
            f"Expected the driver's distkeras in this Python worker ({sys.executable} on {platform.node()}). "
            f"Received: {what}. Install the same version on the executors, or let the driver send its own: "
            "spark.distkeras.ship=true."
        )


def version_of(name: str) -> str:
    """Return the version of an installed package, or of its build for processors alone; empty if unknown."""
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def executor_id() -> str:
    """Return Spark's id of this executor; "driver" where tasks run in the driver; empty if unknown."""
    if "SPARK_EXECUTOR_ID" in os.environ:
        return os.environ["SPARK_EXECUTOR_ID"]
    process = os.getppid()
    for _ in range(4):  # Python worker, its daemon, the executor's JVM.
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            return ""
        if "--executor-id" in words:
            return words[words.index("--executor-id") + 1]
        if any(word.startswith("org.apache.spark.") for word in words):
            return "driver"
        process = int(parent)
    return ""


def memory_of_machine() -> tuple[int, int]:
    """Return total and available bytes of memory, of the container if it has a limit; 0 if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    total, available = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = int(Path(limit).read_text()), int(Path(used).read_text())
        except (OSError, ValueError):  # There is no such file, or it says "max".
            continue
        if most < total:
            return most, min(available, most - now)
    return total, available


def free_disk() -> dict[str, int]:
    """Return the free bytes of each of Spark's local folders; -1 for one that cannot be written."""
    listed = os.environ.get("LOCAL_DIRS") or os.environ.get("SPARK_LOCAL_DIRS") or ""
    folders = [folder for folder in listed.split(",") if folder] or ["/tmp"]
    return {
        folder: shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else -1 for folder in folders
    }


def gpus_of_task() -> tuple[str, ...]:
    """Return the addresses of the GPUs that Spark gave this task."""
    from pyspark import TaskContext

    given = TaskContext.get().resources().get("gpu")
    return () if given is None else tuple(given.addresses)
