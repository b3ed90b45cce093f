"""What a new user does first, in processes of its own: `distkeras init`, `distkeras train`, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from starting import without_tensorflow

DISTKERAS = [sys.executable, "-m", "distkeras"]


def test_a_new_project_trains_and_ctrl_c_keeps_its_model(tmp_path):
    environment = {**os.environ, **without_tensorflow(tmp_path)}
    folder = tmp_path / "first"
    subprocess.run([*DISTKERAS, "init", folder, "--backend", "jax"], check=True, env=environment)
    flags = ["--epochs", "100000", "--run", "run", "--json"]
    with open(tmp_path / "progress", "w") as progress:
        training = subprocess.Popen(
            [*DISTKERAS, "train", "job.toml", *flags],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=progress,
            text=True,
        )
    try:
        deadline = time.monotonic() + 500
        while not list(folder.glob("run/epochs/*.json")):
            assert training.poll() is None, (tmp_path / "progress").read_text()
            assert time.monotonic() < deadline, (tmp_path / "progress").read_text()
            time.sleep(0.1)
        training.send_signal(signal.SIGINT)
        document, _ = training.communicate(timeout=200)
    finally:
        training.kill()
        training.wait()
    assert training.returncode == 130, (tmp_path / "progress").read_text()
    told = json.loads(document)
    assert told["reason"] == "interrupt"
    assert told["epochs"] >= 1
    assert (folder / "trained.keras").stat().st_size > 0
