"""Training in a storm of faults: which share of the undisturbed speed is left, and does every row count once?

A training on real processes (Spark's `local-cluster` with three executors, two parameter servers, snapshots,
a proxy between them) of which workers, executors, servers and the driver are killed, workers are stopped,
connections are cut and held up and the disk is full, at times drawn from a seed. At level 1 a worker fails
every 10 minutes on average, a server every 20, the driver every 30, a connection every 2; at level L as many
times as often. Steps have a fixed duration, so that nobody gains by another's death.

**Goodput**: rows that count a second, over those of the same job undisturbed, which is measured first for as
long as `--calibrate` says. The first start is left out on both sides, up to every worker's first window; all
later ones are not. When the minutes are over the storm ends, and the training goes on to its end: the center,
whose every element counts rows, then says whether one is missing or counted twice. JSON out.

python benchmarks/chaos.py [--level 3] [--minutes 30] [--seed 0 1 2]
    [--rule asynchronous synchronous decoupled] [--calibrate 2] [--rate ROWS] [--side-by-side] [--out FILE]
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import Any

import recording
from storm.account import rate_between, summary
from storm.plan import MINUTE, Storm
from storm.run import Run, records
from storm.training import RULES, Config

from distkeras.class_archive import make_class_archive
from distkeras.jvm import archive_path

AFTER_SECONDS = 2.0
"""For which is waited after a moment whose count is asked for."""
REST_FACTOR, REST_SECONDS = 2.0, 300.0
"""How long the rest may take: so many times what it takes undisturbed, and so many seconds more."""
SPARE = 1.03
"""Rows of a run over those that the storm's minutes take undisturbed: no worker may end before."""


def calibrate(config: Config, seconds: float) -> float:
    """Return the rows a second of the job without faults."""
    with Run(sized(config, 2 * seconds + MINUTE)) as run:
        started = run.start()
        run.wait_until(started + seconds + AFTER_SECONDS)
        return rate_between(run.traces.read(), started, started + seconds)


def sized(config: Config, seconds: float) -> Config:
    """Return `config` with as many epochs as last for `seconds`."""
    epoch = config.num_workers * config.rows / config.rows_a_second
    return replace(config, epochs=max(2, round(SPARE * seconds / epoch + 0.5)))


def in_storm(config: Config, storm: Storm, rate: float) -> dict[str, Any]:
    """Train in a storm and return the record of it."""
    with Run(sized(config, storm.seconds), disk=storm.disk, seed=storm.seed) as run:
        storm = replace(storm, disk=run.has_small_disk)
        began = time.monotonic()
        started = run.start()
        first_start = time.monotonic() - began
        struck = run.storm(storm, started)
        run.wait_until(max(time.time(), started + storm.seconds) + AFTER_SECONDS)
        rest = run.config.total / rate
        counted = run.finish(REST_FACTOR * rest + REST_SECONDS)
        history = run.traces.read()
        goodput = rate_between(history, started, started + storm.seconds) / rate
        recoveries = defaultdict(list)
        listed = []
        for fault, record in zip(struck, records(struck), strict=True):
            seconds = history.recovery(fault, config.num_workers)
            if seconds is not None:
                recoveries[fault.fault.kind].append(seconds)
            listed.append(record | {"recovery": seconds})
        return {
            "rule": config.rule,
            "level": storm.level,
            "minutes": storm.seconds / MINUTE,
            "seed": storm.seed,
            "goodput": round(goodput, 4),
            "rows_a_second_undisturbed": round(rate, 1),
            "rows_expected": counted["expected"],
            "rows_lost": max(0.0, counted["expected"] - counted["fewest"]),
            "rows_doubled": max(0.0, counted["most"] - counted["expected"]),
            "faults": dict(Counter(fault.fault.kind for fault in struck if not fault.missed)),
            "missed": dict(Counter(fault.fault.kind for fault in struck if fault.missed)),
            "recovery_seconds": {kind: summary(times) for kind, times in sorted(recoveries.items())},
            "first_start_seconds": round(first_start, 1),
            "small_disk": storm.disk,
            "peak_memory_bytes": run.peak_memory,
            "driver_restarts": run.restarts,
            "drivers_ended_by_full_disk": run.refused,
            "events": history.kinds,
            "left": run.left(),
            "storm": listed,
        }


def asked_for(options: argparse.Namespace) -> Iterator[tuple[Config, Storm, float]]:
    """Yield the storms; the undisturbed job of a rule is measured just before its first one."""
    for rule in options.rule:
        config = Config(folder="", ports=(), rule=rule)
        rate = options.rate or calibrate(config, options.calibrate * MINUTE)
        print(f"{rule}: {rate:.1f} rows a second undisturbed", flush=True)
        for seed in options.seed:
            seconds, processes = options.minutes * MINUTE, (config.num_workers, config.num_servers)
            storm = Storm(options.level, seconds, seed, *processes, disk=not options.no_disk)
            yield config, storm, rate


def side_by_side(storms: list[tuple[Config, Storm, float]]) -> list[dict[str, Any]]:
    """Train in storms at the same time, each in a process of its own; return their records."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(storms), spawned, initializer=exit_when_terminated) as pool:
        try:
            return list(pool.map(in_storm, *zip(*storms, strict=True)))
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def exit_when_terminated() -> None:
    """Let SIGTERM raise SystemExit, so that the processes of a run end with this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM."))


def table(found: list[dict[str, Any]]) -> str:
    """Return the records as two tables of Markdown."""
    runs = [
        f"| {r['rule']} | {r['level']:g} | {r['seed']} | {r['minutes']:g} | {r['goodput']:.3f} | "
        f"{r['rows_lost']:g} | {r['rows_doubled']:g} | {sum(r['faults'].values())} | "
        f"{r['peak_memory_bytes'] / 1e9:.1f} GB |"
        for r in found
    ]
    recoveries = [
        f"| {r['rule']} | {kind} | {r['faults'][kind]} | {times['median']} | {times['longest']} |"
        for r in found
        for kind, times in r["recovery_seconds"].items()
    ]
    return "\n".join(
        [
            "| rule | level | seed | minutes | goodput | rows lost | rows doubled | faults | peak memory |",
            "|---|---|---|---|---|---|---|---|---|",
            *runs,
            "",
            "| rule | fault | times | to recover, median, s | longest, s |",
            "|---|---|---|---|---|",
            *recoveries,
        ]
    )


def main() -> None:
    """Run the storms that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--level", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="a storm of each")
    parser.add_argument("--rule", nargs="+", choices=RULES, default=["asynchronous"])
    parser.add_argument("--calibrate", type=float, default=2.0, help="minutes of the undisturbed job")
    parser.add_argument("--rate", type=float, help="rows a second of the undisturbed job, if they are known")
    parser.add_argument("--side-by-side", action="store_true", help="all storms at the same time")
    parser.add_argument("--no-disk", action="store_true", help="leave out the full disk")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    exit_when_terminated()
    archive = archive_path()
    if archive is not None and not archive.is_file():  # As docs/backends.md advises for short starts.
        make_class_archive()
    found: list[dict[str, Any]] = []
    storms = asked_for(options)
    for record in side_by_side([*storms]) if options.side_by_side else starmap(in_storm, storms):
        found.append(record)
        if options.out is not None:
            run.write({"storms": found}, options.out)
    print(table(found))
    if any(record["rows_lost"] or record["rows_doubled"] for record in found):
        raise SystemExit("Rows were lost or counted twice.")


if __name__ == "__main__":
    main()
