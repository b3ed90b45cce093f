"""`distkeras submit` of a new project to a real standalone master: followed to its end, or stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from standalone import SETTINGS, SPARK_HOME

DISTKERAS = [sys.executable, "-m", "distkeras"]


@pytest.fixture
def project(standalone, tmp_path, monkeypatch):
    """A new project in a repository, and a profile for the master."""
    monkeypatch.setenv("SPARK_HOME", str(SPARK_HOME))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    here = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    conf = "".join(f'"{name}" = "{value}"\n' for name, value in {**SETTINGS, **here}.items())
    config = tmp_path / "config" / "distkeras" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'default = "cluster"\n[profiles.cluster]\nmaster = "{standalone.url}"\npython = "{sys.executable}"\n'
        f"[profiles.cluster.conf]\n{conf}"
    )
    folder = tmp_path / "first"
    distkeras("init", folder, "--backend", "jax")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return folder


def distkeras(*arguments, cwd=None, code=0):
    """Run the command as a person does, and return what it printed."""
    command = [*DISTKERAS, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def folder_of(job):
    return Path(os.environ["XDG_STATE_HOME"]) / "distkeras" / "jobs" / job


@pytest.mark.limit(600)
def test_a_new_project_trains_on_the_master_and_leaves_its_model(project, standalone):
    told = json.loads(distkeras("submit", "--follow", "--json", "--", "--epochs", "2", cwd=project))
    assert (told["state"], told["exit_code"], told["files"]) == ("succeeded", 0, 5)
    assert told["application"].startswith("app-")
    assert list(standalone.folder.glob(f"worker-*/{told['application']}"))
    assert (folder_of(told["id"]) / "project" / "trained.keras").exists()
    assert "2 epochs in" in distkeras("logs", told["id"])


@pytest.mark.slow
@pytest.mark.limit(600)
def test_a_job_on_the_master_is_stopped_and_its_training_keeps_its_model(project):
    job = distkeras("submit", "job.toml", "--", "--epochs", "100000", "--run", "run", cwd=project).strip()
    kept = folder_of(job) / "project"
    deadline = time.monotonic() + 500
    while not list(kept.glob("run/epochs/*.json")):
        assert time.monotonic() < deadline, distkeras("logs", job)
        assert json.loads(distkeras("jobs", job, "--json"))["state"] in ("queued", "running")
        time.sleep(0.5)
    distkeras("stop", job)
    log = distkeras("logs", "--follow", job)
    assert json.loads(distkeras("jobs", job, "--json"))["state"] == "stopped", log
    assert (kept / "trained.keras").exists(), log
