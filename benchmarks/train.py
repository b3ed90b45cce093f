"""A whole job on MNIST against others: MLP 784-500-500-10, SGD 0.05, batch 32. JSON to benchmarks/results.

python benchmarks/train.py [--quick] [--goals] [--backend jax] [--elephas PYTHON] [--modes hogwild-http ...]

Two workers of one core each against `keras.Model.fit` on the same two cores, two processes that train from
memory without Spark or an exchange (`bound`: what the step allows), TorchDistributor (DDP over gloo), and
elephas in three of its modes, if PYTHON is the interpreter of an environment that has it:
`scripts/elephas-environment` makes one. Each has a process of its own in each round. The first training of a
process is cold, the others are warm, and ours, those of `fit` and the bare steps are by turns. Medians over
all of them. With --goals each also trains for 1 to 4 epochs, which tells how soon it gets to 97 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import recording

HERE = Path(__file__).parent
MODES = ("synchronous", "asynchronous-http", "asynchronous-socket", "hogwild-http", "hogwild-socket")
USUAL_MODES = ("synchronous", "asynchronous-http", "hogwild-http")
"""The others take twice as long."""
BY_TURNS = ("distkeras", "fit", "bound")
"""Contenders of which the warm trainings alternate."""
GOAL = 0.97
PATIENCE = 900.0


class Contender:
    """A process of `contenders.py`, which trains when it is told.

    Args:
        python: its interpreter.
        name: of the contender.
        backend: of Keras.
        options: its further arguments.
    """

    def __init__(self, python: str, name: str, backend: str, options: list[str]) -> None:
        self._name = " ".join([name, *options])
        environment = os.environ | {"KERAS_BACKEND": backend, "PYSPARK_PYTHON": python}
        self._process = subprocess.Popen(
            [python, str(HERE / "contenders.py"), name, *options],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def train(self, epochs: int) -> list[dict[str, Any]]:
        """Train so many epochs; return what the process says of it: nothing where it has failed."""
        calls, answers = self._process.stdin, self._process.stdout
        assert calls is not None
        assert answers is not None
        ends_all = threading.Timer(PATIENCE, self._process.kill)
        ends_all.start()
        try:
            calls.write(f"{epochs}\n")
            calls.flush()
            line = next((line for line in answers if line.startswith("{")), None)
        except BrokenPipeError:
            return []
        finally:
            ends_all.cancel()
        print(self._name, line, sep="\n  ", file=sys.stderr, flush=True)
        return [] if line is None else [json.loads(line)]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def summary(records: list[dict[str, Any]], epochs: int) -> dict[str, Any]:
    """Return medians over the trainings of one contender."""

    def median(values: list[float]) -> float | None:
        return round(statistics.median(values), 2) if values else None

    whole = [record for record in records if record["epochs"] == epochs]
    warm = [record for record in whole if record["turn"]]
    reached = [record for record in records if record["turn"] and record["accuracy"] >= GOAL]
    fewest = min((record["epochs"] for record in reached), default=None)
    return {
        "cold": median([record["ready"] + record["seconds"] for record in whole if not record["turn"]]),
        "warm": median([record["seconds"] for record in warm]),
        "fixed_warm": median(
            [record["seconds"] - record["training"] for record in warm if record["training"]]
        ),
        "accuracy": median([100 * record["accuracy"] for record in warm]),
        "to_goal": median([record["seconds"] for record in reached if record["epochs"] == fewest]),
        "epochs_to_goal": fewest,
    }


def main() -> None:
    """Run every contender, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the rows, 2 epochs")
    parser.add_argument("--backend", default="jax", help="of distkeras and `fit`")
    parser.add_argument("--elephas", help="interpreter that has elephas")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=USUAL_MODES, help="of elephas")
    parser.add_argument("--goals", action="store_true", help="how many epochs the goal takes")
    parser.add_argument("--only", nargs="+", help="contenders to run")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/train.json")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--warm", type=int, default=2, help="warm trainings of each process")
    options = parser.parse_args()
    epochs = 2 if options.quick else 5
    goals = [1, 2, 3, 4] if options.goals else []
    rows = ["--rows", "12000"] if options.quick else []
    contenders = {
        name: (sys.executable, name, options.backend, [*rows])
        for name in ("distkeras", "fit", "bound", "ddp")
    }
    if options.elephas:
        for mode in options.modes:
            contenders[f"elephas {mode}"] = (
                options.elephas,
                "elephas",
                "tensorflow",
                [*rows, "--mode", mode],
            )
    if options.only:
        contenders = {name: contender for name, contender in contenders.items() if name in options.only}
    run = recording.begin(__file__)
    trained: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    # Spark ends Python workers that were idle for a minute, and the others train for that long.
    together = [[name for name in BY_TURNS if name in contenders]]
    together += [[name] for name in contenders if name not in BY_TURNS]
    for turn in range(1 if options.quick else options.rounds):
        for names in together:
            with contextlib.ExitStack() as stack:
                running = {}
                for name in names:
                    running[name] = Contender(*contenders[name])
                    stack.callback(running[name].close)
                    # How many epochs the goal takes is asked once.
                    for count in (epochs, *([] if turn else goals)):
                        trained[name] += running[name].train(count)
                for name in names * options.warm:
                    trained[name] += running[name].train(epochs)
    medians = {name: summary(found, epochs) for name, found in trained.items() if found}
    settings = {"backend": options.backend, "epochs": epochs, "goal": GOAL}
    run.write({**settings, "medians": medians, "trainings": trained}, options.out)
    print(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
