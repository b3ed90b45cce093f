"""A physicist's job: millions of events, an MLP of 3 x 500 units, one epoch. JSON to benchmarks/results.

python benchmarks/physicist.py [--scale 0.1 | --rows N] [--quick] [--xgboost FOLDER]

The table is like that of the thesis of dist-keras (2017): 30 measurements an event and 14.9 million events,
which `examples/physics_events.py` draws. It is written to Parquet files once. Each side then runs in a
process of its own, one after the other:

- distkeras: DOWNPOUR on Spark, a worker a core; first on a sample, a fifteenth of the table, then on all;
- fit: `keras.Model.fit` on the sample, in memory, on all cores; before and after distkeras;
- bound: a process a core trains on the sample by a worker's bare step, without Spark; before and after;
- xgboost: XGBoost on Spark (`xgboost.spark`) on all of the table, if `--xgboost` says where it is installed:
  `pip install --target FOLDER --no-deps xgboost scikit-learn joblib narwhals threadpoolctl`;
- cut: the best cut on one measurement, which says how much there is to learn.

F1 scores are of a test table with other random numbers: means of the two classes, weighted by their shares.
Memory is the peak of what the processes of a side hold together, the JVM and others apart, each page counted
once (proportional set size), looked at twice a second. Spark's JVM gets `--memory`, less than the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import recording

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
import physics_events  # noqa: E402 (it is no package)

ROWS = 14_900_000
SAMPLE = 15
TEST = 4 * physics_events.CHUNK
ROW_BYTES = 4 * (len(physics_events.FEATURES) + 1)
"""Of a row in memory: float32 measurements, an int32 label."""
PATIENCE = 3600.0
ORDER = ("bound", "fit", "distkeras", "fit", "bound", "cut", "xgboost")

Part = dict[str, Any]


class PeakMemory:
    """The most memory that a process and its descendants hold, in MB: of its JVMs, and of the others."""

    def __init__(self, process: int) -> None:
        self._root = psutil.Process(process)
        self._peak = {"jvm": 0.0, "python": 0.0}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def take(self) -> dict[str, float]:
        """Return the peaks since the last call."""
        with self._lock:
            peak, self._peak = self._peak, {"jvm": 0.0, "python": 0.0}
        return {f"{kind}, MB": round(size) for kind, size in peak.items() if size}

    def look(self) -> None:
        """Look now."""
        sizes = {"jvm": 0.0, "python": 0.0}
        try:
            for each in [self._root, *self._root.children(recursive=True)]:
                kind = "jvm" if each.name() == "java" else "python"
                sizes[kind] += each.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            return  # One has ended meanwhile: the sum would be that of no moment.
        with self._lock:
            self._peak = {kind: max(self._peak[kind], size) for kind, size in sizes.items()}

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self.look()


def run_side(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Part]:
    """Run a side in a process of its own; return its parts by name, each with its peak memory."""
    words = [sys.executable, str(HERE / "physicist_sides.py"), name]
    for table in ("table", "sample", "test"):
        words += [f"--{table}", str(folder / table)]
    for option in ("workers", "batch", "trees", "memory"):
        words += [f"--{option}", str(getattr(options, option))]
    paths = [str(EXAMPLES), *([str(options.xgboost)] if name == "xgboost" else [])]
    path = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {
        "KERAS_BACKEND": options.backend,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": path,
        "SPARK_LOCAL_DIRS": str(folder),
    }
    began = time.perf_counter()
    parts: dict[str, Part] = {}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        PeakMemory(process.pid) as memory,
    ):
        limit = threading.Timer(PATIENCE, process.kill)
        limit.daemon = True  # Else an interrupted benchmark would wait for it.
        limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            found = {
                key: round(value, 4 if key == "F1" else 2) if isinstance(value, float) else value
                for key, value in json.loads(line).items()
            }
            parts[str(found.pop("part"))] = found | memory.take()
            print(name, line.strip(), file=sys.stderr, flush=True)
        process.wait()
        limit.cancel()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{name} ended with status {process.returncode}:\n{errors.read()[-3000:]}")
    return parts | {"all": {"took": round(time.perf_counter() - began, 1)}}


def make(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """Write table, sample and test table; return what the table is."""
    began = time.perf_counter()
    physics_events.write_files(folder / "table", rows, workers)
    took = time.perf_counter() - began
    # The sample has other events, of the same kind, in as many files.
    physics_events.write_files(folder / "sample", whole(rows // SAMPLE, workers), workers, seed=1)
    physics_events.write_files(folder / "test", TEST, 2, seed=2)
    size = sum(file.stat().st_size for file in (folder / "table").glob("*.parquet"))
    return {
        "rows": rows,
        "in memory, MB": round(rows * ROW_BYTES / 1e6),
        "on disk, MB": round(size / 1e6),
        "written in, s": round(took, 1),
    }


def whole(rows: int, workers: int) -> int:
    """Return about as many rows, so that the workers' files have equally many."""
    unit = workers * physics_events.CHUNK
    return max(1, round(rows / unit)) * unit


def ratios(sides: dict[str, list[dict[str, Part]]]) -> dict[str, float]:
    """Return rates of distkeras divided by those of its neighbors in time."""
    (ours,) = sides["distkeras"]
    table, sample = ours["whole"], ours["sample"]
    rates = {
        name: statistics.median(run["sample"]["rows/s"] for run in sides[name]) for name in ("fit", "bound")
    }
    return {
        "distkeras / bare steps, rows/s": round(table["rows/s"] / rates["bound"], 3),
        "distkeras / bare steps, rows/s of the whole training": round(
            table["rows"] / table["took"] / rates["bound"], 3
        ),
        "distkeras / fit, rows/s": round(table["rows/s"] / rates["fit"], 3),
        "distkeras / fit, rows/s of the whole training": round(
            table["rows"] / table["took"] / rates["fit"], 3
        ),
        "memory of the whole table / of the sample, jvm": round(table["jvm, MB"] / sample["jvm, MB"], 2),
        "memory of the whole table / of the sample, python": round(
            table["python, MB"] / sample["python, MB"], 2
        ),
    }


def main() -> None:
    """Make the table, run the sides, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, help="share of the 14.9 million rows; default: 1")
    parser.add_argument("--rows", type=int, help="rows of the table, in place of --scale")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, fewer trees")
    parser.add_argument("--workers", type=int, default=recording.machine()["cores"])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--trees", type=int, help="of XGBoost; default: 100, with --quick 20")
    parser.add_argument("--memory", default="1g", help="of Spark's JVM, as Spark writes it")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--xgboost", type=Path, help="folder in which xgboost is installed")
    parser.add_argument("--sides", nargs="+", choices=ORDER, default=ORDER, help="those to run; default: all")
    parser.add_argument("--folder", type=Path, help="for the tables; by default a temporary one")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/physicist.json")
    options = parser.parse_args()
    scale = options.scale or (0.1 if options.quick else 1.0)
    rows = whole(options.rows or round(ROWS * scale), options.workers)
    options.trees = options.trees or (20 if options.quick else 100)
    run = recording.begin(__file__)
    order = [side for side in ORDER if side in options.sides and (side != "xgboost" or options.xgboost)]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        settings = {
            "table": make(folder, rows, options.workers),
            **{key: getattr(options, key) for key in ("workers", "batch", "trees", "backend")},
            "memory of Spark": options.memory,
        }
        print(json.dumps(settings), file=sys.stderr, flush=True)
        sides: dict[str, list[dict[str, Part]]] = {}
        for each in order:
            sides.setdefault(each, []).append(run_side(each, folder, options))
    compared = ratios(sides) if {"distkeras", "fit", "bound"} <= sides.keys() else {}
    figures = {**settings, "ratios": compared, "sides": sides}
    run.write(figures, options.out)
    print(json.dumps(compared, indent=1))


if __name__ == "__main__":
    main()
