"""`distkeras submit`, `jobs`, `logs` and `stop`, each in a process of its own as in a person's shell."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from distkeras.command import main
from distkeras.jobs import records
from distkeras.jobs.profiles import config_file

FAKE = """#!{python}
import os, sys
script = next(n for n, each in enumerate(sys.argv) if each.endswith("launcher.py"))
os.execv(sys.executable, [sys.executable, *sys.argv[script:]])
"""


@pytest.fixture(autouse=True)
def fake_spark(tmp_path, monkeypatch):
    """A `spark-submit` that runs the script without Spark."""
    program = tmp_path / "spark" / "bin" / "spark-submit"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout, result.stderr


def test_a_script_is_submitted_followed_and_found_by_another_shell(project):
    (project / "work.py").write_text("import sys; print('worked', sys.argv[1:]); sys.exit(int(sys.argv[-1]))")
    text, told = run("submit", "work.py", "--follow", "--name", "first", "--", "--epochs", "0")
    assert "worked ['--epochs', '0']" in text
    assert "1 files" in told
    failed = json.loads(run("submit", "work.py", "--follow", "--json", "--", "4", code=1)[0])
    assert (failed["state"], failed["exit_code"], failed["profile"]) == ("failed", 4, "local")

    other = subprocess.run(
        [sys.executable, "-m", "distkeras", "jobs", "--json"], capture_output=True, text=True, check=True
    )
    listed = json.loads(other.stdout)
    assert [(each["name"], each["state"]) for each in listed] == [
        ("first", "succeeded"),
        ("my project", "failed"),
    ]
    assert len(run("jobs")[0].splitlines()) == 3
    assert "state: failed" in run("jobs", failed["id"])[0]
    assert "worked ['4']" in run("logs", failed["id"])[0]
    assert "has ended already: failed" in run("stop", failed["id"])[0]
    assert json.loads(run("logs", failed["id"], "--json")[0])["state"] == "failed"


def test_a_job_is_stopped_by_how_its_id_begins(project):
    (project / "work.py").write_text(
        "import pathlib, time\npathlib.Path('ready').touch()\n"
        "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('kept')\n"
    )
    job = run("submit", "work.py")[0].strip()
    ready = records.job_folder(job) / "project" / "ready"
    for _ in range(600):
        if ready.exists():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert "asked to end" in run("stop", job[:-2])[0]
    assert "kept" in run("logs", "-f", job)[0]
    assert json.loads(run("jobs", job, "--json")[0])["state"] == "stopped"


def test_what_is_wrong_is_said_before_anything_is_sent(project):
    (project / "job.toml").write_text("[train]\nworkes = 3\n")
    assert "`workes` - at `$.train`" in run("submit", code=2)[1]
    assert "sent with the project" in run("submit", "none.py", code=2)[1]
    (project / "work.py").write_text("print(1)")
    assert "largest files" in run("submit", "work.py", "--max-bytes", "5", code=2)[1]
    assert "Expected a profile" in run("submit", "work.py", "--profile", "prod", code=2)[1]
    assert "Received: 'nothing'" in run("logs", "nothing", code=1)[1]
    assert records.records() == []


def test_a_job_of_an_engine_that_does_not_answer_is_listed_with_the_reason(project):
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[profiles.far]\nengine = "kyuubi"\nurl = "http://127.0.0.1:1"\n')
    records.add(records.Record("some-id", "far", "far job", 1.0, "a.py", (), "0" * 64))
    (listed,) = json.loads(run("jobs", "--json")[0])
    assert (listed["state"], listed["name"]) == ("unknown", "far job")
    assert "Expected an answer of http://127.0.0.1:1" in listed["detail"]
    assert "Expected an answer" in run("jobs", "--profile", "far", code=1)[1]
