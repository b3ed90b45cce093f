"""A training of one worker, killed at random moments and resumed: does it decide as if nothing happened?

First the training runs undisturbed. Then it runs with a run directory and `resume="auto"`, while at random
moments its worker, its parameter server or its driver is killed (SIGKILL), each in turn; a driver that died
is started again. Adam, dropout, a plateau of the rate, an early stop that restores the best weights, and
validation at every epoch: all of them show where a place, a state or a decision is lost. Rates, logs, best
epoch, reason of the end and every weight must be equal, logs and weights to the bit. JSON out.

python benchmarks/kills.py [--kills 20] [--seed 0] [--epochs 40] [--out FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recording

WORKER, SERVER, DRIVER = "worker", "server", "driver"


def train(folder: Path, epochs: int) -> None:
    """Train, or go on with the training, and write what came out. The child's part."""
    import keras
    import numpy as np

    from distkeras import DistributedTrainer, algorithms

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6400, 20)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("float32")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy", metrics=["accuracy"])
    trainer = DistributedTrainer(
        model, algorithms.Sequential(20), num_epoch=epochs, num_workers=1, batch_size=16, seed=1, verbose=0
    )
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=2),
    ]
    validation = x[:1600], y[:1600]
    rows = x[1600:], y[1600:]
    trained = trainer.train(
        rows, shuffle=True, validation_data=validation, callbacks=callbacks, run=folder / "run", resume="auto"
    )
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in trained.get_weights()))
    result = trainer.result
    assert result is not None
    found = {
        "history": trainer.get_history().history,
        "epochs": trainer.get_history().epoch,
        "reason": result.reason,
        "best_epoch": result.best_epoch,
        "weights": digest.hexdigest(),
    }
    (folder / "found.json").write_text(json.dumps(found))


def started(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--train", str(folder), "--epochs", str(epochs)]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def processes_of(driver: int) -> dict[str, list[int]]:
    """Return the processes of a training by their part."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # It has ended meanwhile.
                continue
            parents[int(entry.name)] = int(stat[1]), command

    def is_below(process: int) -> bool:
        while process in parents:
            process = parents[process][0]
            if process == driver:
                return True
        return False

    below = {process: command for process, (_, command) in parents.items() if is_below(process)}
    servers = [process for process, command in below.items() if "distkeras.wire" in command]
    daemons = [process for process, command in below.items() if "daemon" in command and "java" not in command]
    # A Python worker is a fork of its daemon, and has its command.
    workers = [process for process in daemons if parents[process][0] in daemons]
    return {WORKER: workers, SERVER: servers, DRIVER: [driver]}


def is_training(folder: Path, written: int) -> bool:
    return size_of(folder) > written


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "run" / "events").glob("*"))


def disturbed(folder: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train under kills; return them and what came out."""
    chance = random.Random(args.seed)
    kills: list[dict[str, Any]] = []
    child, begun, written = started(folder, args.epochs), time.monotonic(), 0
    deadline = time.monotonic() + args.minutes * 60
    next_kill = None
    while child.poll() is None or not (folder / "found.json").exists():
        if time.monotonic() > deadline:
            os.killpg(child.pid, signal.SIGKILL)
            raise TimeoutError(
                f"The training did not end within {args.minutes} minutes: {folder / 'log.txt'}"
            )
        if child.poll() is not None:
            if child.returncode > 0:
                raise RuntimeError((folder / "log.txt").read_text()[-3000:])
            child, written = started(folder, args.epochs), size_of(folder)
            next_kill = None
        elif next_kill is None and is_training(folder, written):
            next_kill = time.monotonic() + chance.uniform(0.05, 2.0)
        elif next_kill is not None and time.monotonic() >= next_kill and len(kills) < args.kills:
            part = (WORKER, SERVER, DRIVER)[len(kills) % 3]
            found = processes_of(child.pid)[part]
            if found:
                os.kill(chance.choice(found), signal.SIGKILL)
                if part == DRIVER:
                    child.wait()
                    subprocess.run(["pkill", "-KILL", "-s", str(child.pid)], check=False)
                kills.append({"part": part, "second": round(time.monotonic() - begun, 2)})
                print(f"{kills[-1]['second']:8.2f} s: the {part} is killed", flush=True)
                next_kill, written = None, size_of(folder)
        time.sleep(0.02)
    return kills, json.loads((folder / "found.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train is not None:
        train(args.train, args.epochs)
        return
    run = recording.begin(__file__)
    with tempfile.TemporaryDirectory() as base:
        whole, killed = Path(base, "whole"), Path(base, "killed")
        whole.mkdir()
        killed.mkdir()
        if started(whole, args.epochs).wait():
            raise RuntimeError((whole / "log.txt").read_text()[-3000:])
        expected = json.loads((whole / "found.json").read_text())
        print(f"undisturbed: {expected['reason']}, epochs {len(expected['epochs'])}", flush=True)
        try:
            kills, found = disturbed(killed, args)
        except BaseException:
            print((killed / "log.txt").read_text()[-6000:], file=sys.stderr)
            raise
    result = {
        "kills": kills,
        "equal": {name: expected[name] == found[name] for name in expected},
        "expected": expected,
        "found": found,
    }
    print(json.dumps({"kills": len(kills), "equal": result["equal"]}))
    if args.out is not None:
        run.write(result, args.out)


if __name__ == "__main__":
    main()
