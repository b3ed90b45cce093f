"""Findings from what the executors have said of themselves."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from distkeras.cluster.executor_facts import ExecutorFacts
from distkeras.cluster.server_memory import check_memory as check_memory_allowed
from distkeras.doctor.diagnosis import Finding
from distkeras.doctor.driver import version_of
from distkeras.doctor.wanted import Wanted
from distkeras.worker.spool import RESERVE_BYTES

CLOCK_SECONDS = 3.0
"""Difference of two clocks from which logs and records of a training mislead."""

CONTAINERS = ("yarn", "k8s")
"""Masters that end an executor whose processes take more memory than was requested."""


def check_versions(found: Sequence[ExecutorFacts], backend: str) -> list[Finding]:
    """Compare the versions of Keras, its backend and PySpark with those of the driver."""
    findings, names = [], ("keras", backend, "pyspark")
    for name in names:
        own = version_of(name)
        others = {
            (facts.versions.get(name, ""), facts.place)
            for facts in found
            if _minor(facts.versions.get(name, "")) not in ("", _minor(own))
        }
        for version, place in sorted(others):
            what = f"Expected {name} {_minor(own)} as on the driver. Received: {version} on {place}."
            findings.append(Finding("warning", "versions", what, f"Install {name}=={own} there."))
    return findings or [Finding("ok", "versions", f"{', '.join(names)} as on the driver")]


def check_clocks(found: Iterable[ExecutorFacts], before: float, after: float) -> list[Finding]:
    """Compare the executors' clocks with the driver's.

    Args:
        found: what was said of tasks that ran between `before` and `after`.
        before: seconds by the driver's clock, before the tasks were submitted.
        after: seconds by the driver's clock, when all had answered.
    """
    findings = []
    for host, facts in sorted({facts.host: facts for facts in found}.items()):
        ahead, behind = facts.end - after, before - facts.begin
        if max(ahead, behind) > CLOCK_SECONDS:
            way = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
            what = f"The clock of {host} is at least {way} the driver's."
            mend = "Synchronize the machines' clocks (chrony, ntpd). Until then, times in logs are wrong."
            findings.append(Finding("warning", "clocks", what, mend))
    return findings or [Finding("ok", "clocks", f"the same to {after - before + CLOCK_SECONDS:.0f} s")]


def check_disk(found: Sequence[ExecutorFacts], wanted: Wanted) -> list[Finding]:
    """Compare the free disk of Spark's local folders with the rows that workers keep there."""
    findings = []
    for facts, count in _by_host(found, wanted.num_workers):
        closed = [folder for folder, free in facts.disk.items() if free < 0]
        if closed:
            what = f"Spark's local folder {', '.join(closed)} on {facts.host} cannot be written."
            mend = "Let Spark's user write there, or point SPARK_LOCAL_DIRS (spark.local.dir) elsewhere."
            findings.append(Finding("error", "disk", what, mend))
        need, free = count * wanted.spool_bytes + RESERVE_BYTES, max(facts.disk.values(), default=0)
        if not closed and free < need:
            what = (
                f"{count} worker(s) on {facts.host} need {_mib(need)} of disk for their rows. "
                f"Received: {_mib(free)} free in {', '.join(facts.disk)}."
            )
            mend = "Point SPARK_LOCAL_DIRS to a larger disk, use more machines, or train for one epoch."
            findings.append(Finding("error", "disk", what, mend))
    return findings or [Finding("ok", "disk", f"at least {_mib(min(_free(found)))} free on each machine")]


def check_memory(
    found: Sequence[ExecutorFacts], wanted: Wanted, settings: Mapping[str, str]
) -> list[Finding]:
    """Compare the memory of the machines, or of their containers, with that of the workers.

    Args:
        found: what was said.
        wanted: the training.
        settings: of Spark: "master", and "overhead", the bytes for processes beside an executor's JVM, of
            which each has "tasks" at once.
    """
    each = sum(wanted.worker_bytes.values())
    if not each:
        return []
    parts = ", ".join(f"{purpose} {_mib(count)}" for purpose, count in wanted.worker_bytes.items())
    findings = []
    for facts, count in _by_host(found, wanted.num_workers):
        total, available = facts.memory
        if total and count * each > available:
            what = (
                f"{count} worker(s) on {facts.host} need at least {_mib(count * each)} of memory beside the "
                f"executor's ({parts}). Received: {_mib(available)} available of {_mib(total)}."
            )
            mend = (
                "Use fewer workers per machine (raise `spark.task.cpus`), larger machines or a smaller model."
            )
            findings.append(Finding("error" if count * each > total else "warning", "memory", what, mend))
    overhead, tasks = int(settings["overhead"]), int(settings["tasks"])
    if settings["master"].startswith(CONTAINERS) and tasks * each > overhead:
        what = (
            f"Expected `spark.executor.memoryOverhead` of at least {_mib(tasks * each)} for {tasks} "
            f"worker(s) of an executor ({parts}). Received: {_mib(overhead)}."
        )
        mend = (
            f"Set spark.executor.memoryOverhead={tasks * each // 2**20 + 1}m before you create the session."
        )
        findings.append(Finding("error", "memory", what, mend))
    return findings or [Finding("ok", "memory", f"a worker needs about {_mib(each)}")]


def check_gpus(found: Sequence[ExecutorFacts], asked: float) -> list[Finding]:
    """Compare the GPUs that Spark was asked for with those of the machines.

    Args:
        found: what was said.
        asked: GPUs of a task, such as 0.5 where two workers share one; 0 if Spark was asked for none.
    """
    findings = []
    for facts in sorted({facts.host: facts for facts in found}.values(), key=lambda facts: facts.host):
        there, given = facts.gpus
        if asked and not there:
            what = f"Spark gives each task {asked:g} GPU(s), and {facts.host} has no /dev/nvidia*."
            mend = "Install the driver there and pass the devices to the container, or request no GPU."
            findings.append(Finding("error", "GPU", what, mend))
        elif there and facts.gpus_of_backend == 0:
            what = f"{facts.host} has {there} GPU(s), and the Keras backend there sees none."
            mend = "Install the backend's build for GPUs, such as jax[cuda12], and a driver that fits it."
            findings.append(Finding("error" if asked else "warning", "GPU", what, mend))
        elif there and not given and not asked:
            what = f"{facts.host} has {there} GPU(s), which its workers share without Spark's knowledge."
            mend = "Set spark.task.resource.gpu.amount and spark.executor.resource.gpu.amount to divide them."
            findings.append(Finding("warning", "GPU", what, mend))
    return findings or [Finding("ok", "GPU", "as requested" if asked else "none requested, none present")]


def check_server_memory(wanted: Wanted, available: int) -> list[Finding]:
    """Compare the memory of the parameter servers with that of the driver's machine.

    Args:
        wanted: the training.
        available: bytes of memory that are free there; 0 if unknown.
    """
    if not wanted.server_bytes:
        return []
    need = sum(sum(parts.values()) for parts in wanted.server_bytes)
    if wanted.options.memory is not None:
        try:
            for parts in wanted.server_bytes:
                check_memory_allowed(wanted.options.memory, dict(parts))
        except ValueError as error:
            return [Finding("error", "server memory", str(error))]
    if wanted.placement == "executors":
        return [Finding("ok", "server memory", f"at most {_mib(need)}, on executors")]
    if available and need > available:
        what = (
            f"The parameter servers may need {_mib(need)}. Received: {_mib(available)} available on the "
            "driver's machine."
        )
        mend = "See docs/faults.md, The server's memory, for what needs less."
        return [Finding("warning", "server memory", what, mend)]
    return [Finding("ok", "server memory", f"at most {_mib(need)}")]


def check_payload(need: int, folder: str) -> list[Finding]:
    """Compare the driver's disk with the model, which goes to the executors as files."""
    free = shutil.disk_usage(folder).free
    if need < free:
        return []
    what = f"The model takes {_mib(need)} of the driver's disk. Received: {_mib(free)} free in {folder}."
    return [Finding("error", "disk", what, "Point spark.local.dir to a larger disk.")]


def _by_host(found: Sequence[ExecutorFacts], num_workers: int) -> list[tuple[ExecutorFacts, int]]:
    """Return the facts of one task of each host, with the number of workers that may run there at once."""
    counts = Counter(facts.host for facts in found)
    share = {host: -(-num_workers * count // len(found)) for host, count in counts.items()}
    return [(facts, share[host]) for host, facts in sorted({each.host: each for each in found}.items())]


def _free(found: Sequence[ExecutorFacts]) -> list[int]:
    return [max(facts.disk.values(), default=0) for facts in found]


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
