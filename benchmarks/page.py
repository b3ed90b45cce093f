"""The page of a large run: how fast it opens, and what the viewer takes while it follows it.

Writes a run as a driver writes it, all but its last seconds. Then a viewer and Chromium open it, in turns,
each from nothing. At last the rest is written, as fast as a training would, while the page is open. `opened`
are seconds from the address to the drawn page, the viewer's first reading included, and `processor` the
viewer's processor time from its start to there, which other programs lengthen less. `memory` is the viewer's,
in MB (resident), after the first reading and at the end. JSON out.

python benchmarks/page.py [--workers 64] [--windows 1000000] [--seconds 5400] [--live 30] [--turns 5]
    [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import recording

from distkeras.monitor.dashboard.starting import Viewer
from distkeras.monitor.dashboard.viewer import ViewerOptions, link
from distkeras.runs import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "monitor"))
made_up: Any = import_module("synthetic_runs")
browsing: Any = import_module("browsing")

Step = tuple[float, Any]


def written(address: str, made: Any, until: float) -> tuple[Run, Iterator[Step], float]:
    """Write the run up to a time in it; return the open run, the steps left, and how long it took."""
    began = time.perf_counter()
    run = Run.open(address)
    made_up.begin(run, made)
    left = made_up.steps(made)
    for step in left:
        made_up.perform(run, step)
        if step[0] >= until:
            break
    return run, left, time.perf_counter() - began


def opened(address: str, browser: Any) -> tuple[float, float, float]:
    """Open the page by a new viewer; return the seconds, the viewer's processor time, and its memory."""
    viewer = Viewer(ViewerOptions((address,), port=0, token="benchmark"))
    page = browser.new_page()
    try:
        began = time.perf_counter()
        page.goto(link("127.0.0.1", viewer.port, "benchmark", address))
        page.wait_for_selector("[data-windows]")
        seconds, used = time.perf_counter() - began, psutil.Process(viewer.pid).cpu_times()
        return seconds, used.user + used.system, memory_of(viewer)
    finally:
        page.close()
        viewer.close()


def followed(address: str, browser: Any, run: Run, left: Iterator[Step], seconds: float) -> dict[str, Any]:
    """Keep the page open while the rest of the run is written in real time; return what that took."""
    viewer = Viewer(ViewerOptions((address,), port=0, token="benchmark"))
    page = browser.new_page()
    try:
        page.goto(link("127.0.0.1", viewer.port, "benchmark", address))
        page.wait_for_selector("[data-windows]")
        seen = windows_on(page)
        process = psutil.Process(viewer.pid)
        before, began, first = process.cpu_times().user, time.perf_counter(), None
        for step in left:
            first = step[0] if first is None else first
            if (ahead := step[0] - first - (time.perf_counter() - began)) > 0.02:
                time.sleep(ahead)
            if step[0] - first > seconds:
                break
            made_up.perform(run, step)
        time.sleep(2)
        used = process.cpu_times().user - before
        return {
            "memory": memory_of(viewer),
            "processor": used / (time.perf_counter() - began),
            "windows": windows_on(page) - seen,
        }
    finally:
        page.close()
        viewer.close()


def windows_on(page: Any) -> int:
    return int(page.get_attribute("[data-windows]", "data-windows"))


def memory_of(viewer: Viewer) -> float:
    """Return the resident memory of a viewer, in MB."""
    return float(psutil.Process(viewer.pid).memory_info().rss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5400.0, help="duration of the training")
    parser.add_argument("--live", type=float, default=30.0, help="seconds of it that the page follows")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = recording.begin(__file__)
    began = time.time() - arguments.seconds + arguments.live
    made = made_up.Synthetic(arguments.workers, arguments.windows, arguments.seconds, epochs=20, began=began)
    with tempfile.TemporaryDirectory() as folder, browsing.browser() as chromium:
        address = f"{folder}/run"
        run, left, seconds = written(address, made, arguments.seconds - arguments.live)
        size = {
            name: sum(each.stat().st_size for each in Path(address, name).iterdir()) / 1e6
            for name in ("events", "rollups")
        }
        turns = [opened(address, chromium) for _ in range(arguments.turns)]
        live = followed(address, chromium, run, left, arguments.live)
        run.close()
    result = {
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "written": seconds,
        "megabytes": size,
        "opened": [turn[0] for turn in turns],
        "opened_median": statistics.median(turn[0] for turn in turns),
        "processor": [turn[1] for turn in turns],
        "memory": max(turn[2] for turn in turns),
        "live": live,
    }
    print(json.dumps(result, indent=1))
    if arguments.out is not None:
        record.write(result, arguments.out)


if __name__ == "__main__":
    main()
