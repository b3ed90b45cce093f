"""All checks of a cluster for one training, in the order to fix what they find."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING

from pyspark.sql.utils import is_remote

from distkeras.cluster.executor_facts import ExecutorFacts
from distkeras.cluster.executor_side import memory_of_machine
from distkeras.cluster.options import addresses
from distkeras.cluster.probe import ExecutorsNotReady, ask, ask_ready, preparation
from distkeras.cluster.reach import ServerUnreachable, check_reachable
from distkeras.cluster.resources import gpus_of_worker, is_dynamic, sharing_of, threads_of
from distkeras.cluster.settings import is_local
from distkeras.cluster.slots import count_slots
from distkeras.doctor import executors
from distkeras.doctor.diagnosis import Finding, Level
from distkeras.wire.listening import Listening

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from distkeras.doctor.wanted import Wanted

UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def examine(spark: SparkSession, wanted: Wanted, limit: float = 120.0) -> list[Finding]:
    """Check a cluster for a training, without starting it. What needs what is broken is left out.

    Args:
        spark: the session.
        wanted: what the training wants.
        limit: seconds to wait for the executors.
    """
    facts, found = check_executors(spark, wanted, limit)
    if not facts:
        return found
    found += check_slots(spark, wanted)
    found += check_network(spark, wanted)
    found += executors.check_versions(facts, wanted.backend)
    if any(each.gpus[0] for each in facts):
        # As for a training: a Python worker that has started its backend keeps its cores and its share. One
        # with resources of its own will have other Python workers.
        number, packages = wanted.num_workers, wanted.further
        prepare = preparation(wanted.backend, threads_of(spark), sharing_of(spark, None, number))
        facts = ask_ready(spark, wanted.backend, number, limit, prepare, packages) or facts
    # Once more, since the first Python workers took seconds to start.
    before = time.time()
    again = ask(spark, wanted.backend, (), num_tasks=wanted.num_workers, limit=limit)
    found += executors.check_clocks(again, before, time.time())
    found += executors.check_disk(facts, wanted)
    found += executors.check_memory(facts, wanted, memory_settings(spark))
    found += executors.check_server_memory(wanted, memory_of_machine()[1])
    found += executors.check_payload(sum(wanted.worker_bytes.values()), tempfile.gettempdir())
    # With dynamic allocation Spark starts other executors for a training with resources of its own.
    resources = None if is_dynamic(spark) else wanted.resources
    found += executors.check_gpus(facts, gpus_of_worker(spark, resources))
    return found


def check_executors(
    spark: SparkSession, wanted: Wanted, limit: float
) -> tuple[list[ExecutorFacts], list[Finding]]:
    """Let short tasks tell what their executors are like; look for Python and packages."""
    try:
        facts = ask_ready(spark, wanted.backend, wanted.num_workers, limit, further=wanted.further)
    except ExecutorsNotReady as error:
        return [], [Finding("error", "executors", str(error))]
    if not facts:
        what = f"Expected {wanted.num_workers} short tasks to run on the executors within {limit:.0f} s. "
        return [], [Finding("error", "executors", f"{what}Received: no answer.", _why_no_answer(spark))]
    told = sorted({f"{each.python_version} on {each.host}" for each in facts})
    return facts, [Finding("ok", "executors", f"Python {', '.join(told)}, with all packages")]


def _why_no_answer(spark: SparkSession) -> str:
    asked = setting(spark, "spark.executor.memory", "1g")
    cores = setting(spark, "spark.executor.cores", "all")
    dynamic = setting(spark, "spark.dynamicAllocation.enabled", "false")
    most = setting(spark, "spark.dynamicAllocation.maxExecutors", "no limit")
    text = (
        "Spark has started no executor, or all are busy: see its web page. An executor asks for "
        f"spark.executor.memory={asked} and spark.executor.cores={cores}; a machine with less cannot start "
        "one."
    )
    if dynamic == "true":
        text += f" With dynamic allocation: spark.dynamicAllocation.maxExecutors={most}."
    return text


def check_slots(spark: SparkSession, wanted: Wanted) -> list[Finding]:
    """Compare the tasks that can run at once with the workers."""
    servers = len(wanted.server_bytes) or 1
    need = wanted.num_workers + (servers if wanted.placement == "executors" else 0)
    slots, who = count_slots(spark, need), f"{wanted.num_workers} workers"
    who += f" and {need - wanted.num_workers} parameter server(s)" if need > wanted.num_workers else ""
    if slots >= need:
        return [Finding("ok", "slots", f"{slots} for {who}")]
    what = f"{who}, and {slots} tasks can run at once."
    if wanted.synchronous or slots <= need - wanted.num_workers:
        mend = "Lower `num_workers`, or give the application more executor cores: all must run at once."
        return [Finding("error", "slots", what, mend)]
    mend = "Some workers start when others have finished. Lower `num_workers`, or give more executor cores."
    return [Finding("warning", "slots", what, mend)]


def check_network(spark: SparkSession, wanted: Wanted) -> list[Finding]:
    """Let every executor connect to a port of the driver, where a parameter server would listen."""
    if wanted.placement == "executors":
        return [Finding("ok", "network", "the parameter servers run on executors")]
    if is_local(spark):
        return [Finding("ok", "network", "driver and workers are on one machine")]
    try:
        host, bind = addresses(spark, wanted.options)
        with Listening(host, bind, wanted.options.ports) as listening:
            check_reachable(spark, [listening], wanted.num_workers)
    except (ServerUnreachable, ValueError, OSError) as error:
        level: Level = "warning" if wanted.placement == "auto" else "error"
        mend = 'With server_placement="executors", executors need not reach this machine.'
        return [Finding(level, "network", str(error), mend)]
    return [Finding("ok", "network", f"all executors reach {host}")]


def memory_settings(spark: SparkSession) -> dict[str, str]:
    """Return the settings that `executors.check_memory` takes."""
    master = "" if is_remote() else setting(spark, "spark.master", "local")
    heap = bytes_of(setting(spark, "spark.executor.memory", "1g"), "m")
    factor = "0.4" if master.startswith("k8s") else "0.1"
    factor = setting(spark, "spark.executor.memoryOverheadFactor", factor)
    given = setting(spark, "spark.executor.memoryOverhead", "")
    overhead = bytes_of(given, "m") if given else max(384 * 2**20, int(heap * float(factor)))
    cores = setting(spark, "spark.executor.cores", "1")
    tasks = max(1, int(cores) // threads_of(spark))
    return {"master": master, "overhead": str(overhead), "tasks": str(tasks)}


def setting(spark: SparkSession, name: str, default: str) -> str:
    """Return a setting of Spark."""
    return str(spark.conf.get(name, default))


def bytes_of(text: str, unit: str) -> int:
    """Return the bytes that a setting such as "2g" says; `unit` is that of a bare number."""
    text = text.strip().lower().removesuffix("b") or "0"
    return int(text) * UNITS[unit] if text.isdigit() else int(text[:-1]) * UNITS[text[-1]]
