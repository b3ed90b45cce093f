"""Measures the ratios of speed that the documentation claims, and lists the claims that no longer hold.

python benchmarks/quick.py [--only PART ...] [--out FILE]        # `make bench-quick`

About ten minutes on two idle cores. Every part is a benchmark of its own, in which the sides take turns; each
run of it gives one value of a ratio, or more. The claims are in claims.toml. The exit code is 1 where a
benchmark fails, and 0 where a claim does not hold. All ratios go into benchmarks/results/quick.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import claims
import recording

HERE = Path(__file__).parent
ELEPHAS = recording.ROOT / ".venv-elephas"
PATIENCE = 900.0
"""Seconds until a benchmark counts as failed."""

Record = dict[str, Any]
Ratios = dict[str, list[float]]


def measured(script: str, *arguments: str) -> Record:
    """Run a benchmark, which writes its record to `--out`, and return the record."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "record.json")
        command = [sys.executable, str(HERE / script), *arguments, "--out", str(path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if run.returncode or not path.exists():
            raise RuntimeError(
                f"Expected {script} {' '.join(arguments)} to end with a record. "
                f"Received: exit code {run.returncode}.\n{run.stderr[-2000:]}"
            )
        return recording.read(path.stem, path.parent)


def jobs() -> Ratios:
    """Whole jobs: ours, `keras.fit` and the bare steps by turns, twice when warm; then the others, once."""
    others, modes = ["ddp"], []
    if (ELEPHAS / "installed").exists():
        others += ["elephas synchronous"]
        modes = ["--elephas", str(ELEPHAS / "bin" / "python"), "--modes", "synchronous"]
    ours = ["distkeras", "fit", "bound"]
    trained: dict[str, list[Record]] = {}
    for sides, warm in ((ours, 2), (others, 1)):
        turn = measured("train.py", "--only", *sides, *modes, "--rounds", "1", "--warm", str(warm))
        trained |= turn["trainings"]
    if missing := [side for side, runs in trained.items() if not runs]:
        raise RuntimeError(f"Expected train.py to train each side. Received: nothing of {missing}.")
    found: Ratios = {}
    for kind in ("warm", "cold"):
        seconds = {side: of_kind(runs, kind) for side, runs in trained.items()}
        for side in trained.keys() - {"distkeras"}:
            # The others have no turn beside ours.
            own = seconds["distkeras"] if side in ours else [statistics.median(seconds["distkeras"])]
            ratios = [value / each for value, each in zip(seconds[side], own, strict=True)]
            found[f"jobs: {side} / distkeras, {kind}"] = ratios
    return found


def of_kind(trainings: list[Record], kind: str) -> list[float]:
    """Return the seconds of cold trainings, from the start of the process, or those of warm ones."""
    if kind == "cold":
        return [each["ready"] + each["seconds"] for each in trainings if not each["turn"]]
    return [each["seconds"] for each in trainings if each["turn"]]


def exchange() -> Ratios:
    """Exchanges over loopback, in two runs: with TLS and checksums, over plain ones."""
    found: Ratios = {}
    sizes, targets = ("0.5", "2.6", "40"), ("tcp", "tls", "checksum")
    for _ in range(2):
        rows = measured(
            "exchange.py", "--megabytes", *sizes, "--targets", *targets, "--workers", "1", "--rounds", "3"
        )["exchanges"]
        took = {(row["target"], row["megabytes"]): row["ms"] for row in rows}
        for target, size in itertools.product(targets[1:], sizes):
            ratio = took[target, float(size)] / took["tcp", float(size)]
            found.setdefault(f"exchange: {target} / tcp, {size} MB", []).append(ratio)
    return found


def simulator() -> Ratios:
    """A real model in the simulator, in two runs; ratios of processor time."""
    found: Ratios = {}
    for _ in range(2):
        for row in measured("simulate_model.py", "--windows", "1,5", "--turns", "2")["windows"]:
            for other, ratio in (("bare", "of_bare_by_cpu"), ("one by one", "times_one_by_one_by_cpu")):
                name = f"simulator: one call / {other}, window {row['window']}"
                found.setdefault(name, []).append(row[ratio])
    return found


def physicist() -> Ratios:
    """A tenth of the physicist's job."""
    if not (HERE / "physicist.py").exists():
        return {}
    ratios = measured("physicist.py", "--scale", "0.1", "--quick")["ratios"]
    return {f"physicist: {name}": [ratio] for name, ratio in ratios.items()}


PARTS: dict[str, Callable[[], Ratios]] = {
    "exchange": exchange,
    "simulator": simulator,
    "jobs": jobs,
    "physicist": physicist,
}


def told(values: list[float]) -> str:
    """Return the median, and the spread of several values."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def summary(ratios: Ratios, failed: dict[str, str]) -> str:
    """Return all that was measured, then the claims that do not hold, and what was not measured."""
    known = claims.read()
    rows = claims.verdicts(ratios, known)
    lines = [f"{told(values):<24} {name}" for name, values in ratios.items()]
    broken = [row for row in rows if row["holds"] is False]
    unknown = [claim for claim, row in zip(known, rows, strict=True) if row["holds"] is None]
    held = sum(row["holds"] is True for row in rows)
    lines += [
        "",
        f"{held} of {len(rows)} claims hold, {len(broken)} do not, {len(unknown)} were not measured.",
    ]
    lines += [
        f"DOES NOT HOLD  {row['claim']}: {row['page']} claims {row['claimed']:.2f}, "
        f"measured {row['measured']['median']:.2f} "
        f"({row['measured']['least']:.2f} to {row['measured']['most']:.2f})"
        for row in broken
    ]
    lines += [f"not measured   {claim.name}: {claim.command or claim.ratio}" for claim in unknown]
    return "\n".join([*lines, *(f"FAILED         {name}: {why}" for name, why in failed.items())])


def main() -> int:
    """Measure, write, and compare; return 1 where a benchmark has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quick.json")
    options = parser.parse_args()
    run = recording.begin(__file__)
    ratios: Ratios = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in options.only:
        began = time.perf_counter()
        try:
            ratios |= PARTS[name]()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed[name] = str(error)  # The other parts are still worth their time.
        seconds[name] = round(time.perf_counter() - began, 1)
        print(f"{name}: {seconds[name]:.0f} s{' FAILED' if name in failed else ''}", flush=True)
        run.write(
            {
                "parts": seconds,
                "failed": failed,
                "ratios": {
                    each: claims.spread(values) | {"values": values} for each, values in ratios.items()
                },
                "claims": claims.verdicts(ratios, claims.read()),
            },
            options.out,
        )
    print(summary(ratios, failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
