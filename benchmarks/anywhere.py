"""One script, five kinds of Spark: does `examples/mnist_anywhere.py` reach the same accuracy on all of them?

It runs, unchanged, on `local[2]`, on `local-cluster`, on a standalone cluster, on Spark Connect from a client
that no executor can reach, and on hosts of their own with a firewall between. The last two need root and
Linux: the hosts are network namespaces. All is one machine, so the seconds say what each adds, and not how
fast a cluster is. JSON out.

python benchmarks/anywhere.py [--epochs 3] [--limit 600] [--only PLACE ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "clusters"))

import recording
from connect_server import ConnectServer  # type: ignore[import-not-found]
from namespaces import Namespaces, why_not  # type: ignore[import-not-found]
from standalone import Standalone  # type: ignore[import-not-found]
from starting import start_fast  # type: ignore[import-not-found]
from submitting import submitted  # type: ignore[import-not-found]

SCRIPT = Path(__file__).parents[1] / "examples" / "mnist_anywhere.py"
DRIVER, DRIVER_BLOCKS, EXECUTOR_BLOCKS = 7001, 7002, 7003
FIXED = {
    "spark.driver.port": str(DRIVER),
    "spark.driver.blockManager.port": str(DRIVER_BLOCKS),
    "spark.blockManager.port": str(EXECUTOR_BLOCKS),
}
EXECUTORS = ("executor-a", "executor-b")
SLOTS = {"spark.executor.cores": "2", "spark.cores.max": "4"}
"""Servers on executors need slots beside the workers'."""


@contextmanager
def on_local(folder: Path) -> Iterator[dict[str, Any]]:
    """The driver's own JVM."""
    yield {"to": "local[2]"}


@contextmanager
def on_local_cluster(folder: Path) -> Iterator[dict[str, Any]]:
    """Executors in JVMs of their own."""
    memory = {"spark.executor.memory": "2g"}
    yield {"to": "local-cluster[2,1,2048]", "settings": memory}


@contextmanager
def on_standalone(folder: Path) -> Iterator[dict[str, Any]]:
    """A master and two workers."""
    with Standalone(folder) as cluster:
        yield {"to": cluster}


@contextmanager
def behind_firewall(folder: Path) -> Iterator[dict[str, Any]]:
    """Each on a host of its own. Executors reach Spark's two ports of the driver, and no other."""
    with Namespaces(folder) as network, _far(network, folder) as cluster:
        network.close_all_but((DRIVER, DRIVER_BLOCKS), "driver")
        for executor in EXECUTORS:
            network.close((32768, 65534), executor, "driver")  # Where the system puts servers.
            network.close((1, 32767), "driver", executor)  # Above are the ends of what executors open.
        shared = folder / "shared"
        shared.mkdir()
        yield {
            "to": cluster,
            "host": network["driver"],
            "settings": FIXED | SLOTS,
            "arguments": ("--shared", shared),
        }


@contextmanager
def by_connect(folder: Path) -> Iterator[dict[str, Any]]:
    """A Connect server beside the master. The client reaches that alone, and nobody reaches the client."""
    with (
        Namespaces(folder) as network,
        _far(network, folder) as cluster,
        ConnectServer(folder, cluster.url, host=network["master"], settings=SLOTS) as server,
    ):
        for executor in EXECUTORS:
            network.close(None, executor, "driver")
            network.close(None, "driver", executor)
        shared = folder / "shared"
        shared.mkdir()
        network.hide(shared, "driver")
        yield {"to": server, "host": network["driver"], "arguments": ("--shared", shared)}


def _far(network: Namespaces, folder: Path) -> Standalone:
    executors = tuple(network[name] for name in EXECUTORS)
    return Standalone(folder, master_on=network["master"], workers_on=executors)


PLACES: dict[str, Callable[[Path], Any]] = {
    "local[2]": on_local,
    "local-cluster[2,1,2048]": on_local_cluster,
    "standalone": on_standalone,
    "Spark Connect, client out of reach": by_connect,
    "hosts of their own, firewall": behind_firewall,
}


def run(place: str, epochs: int, limit: float) -> dict[str, Any]:
    """Run the script on one kind of Spark, and return what it printed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with PLACES[place](folder) as where:
            arguments = ("--epochs", epochs, *where.pop("arguments", ()))
            own = folder / "script"
            own.mkdir()
            script = submitted(SCRIPT, *arguments, folder=own, **where)
            with script.program:
                return dict(json.loads(script.succeeded(limit).splitlines()[-1]))


def main() -> None:
    """Run the script everywhere, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600, help="seconds for each place")
    parser.add_argument("--only", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    record = recording.begin(__file__)
    start_fast()
    table: dict[str, Any] = {"script": "examples/mnist_anywhere.py", "epochs": arguments.epochs, "places": {}}
    for place in arguments.only:
        if PLACES[place] in (behind_firewall, by_connect) and (reason := why_not()) is not None:
            outcome = {"skipped": reason}
        else:
            outcome = run(place, arguments.epochs, arguments.limit)
        print(place, outcome, flush=True)
        table["places"][place] = outcome
        if arguments.out:  # Each at once: the next one may fail.
            record.write(table, arguments.out)


if __name__ == "__main__":
    main()
