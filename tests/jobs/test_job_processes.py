"""Jobs that are processes of this machine: their state, output and end, as another shell sees them."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from distkeras.jobs import JobError, Profile, ProfileError, records
from distkeras.jobs.engines import engine_of
from distkeras.jobs.engines.processes import Processes, Start
from distkeras.jobs.engines.spark_submit import engine as spark_submit
from distkeras.jobs.engines.spark_submit import properties_of


def python(submission, folder):
    """Start the launcher without Spark."""
    command = (sys.executable, str(folder / "launcher.py"), submission.entry, *submission.arguments)
    return Start(command, submission.environment)


def engine(grace=60.0):
    return Processes("python", python, grace)


def ended(engine, job):
    """Wait for the end of a job and return its status."""
    deadline = time.monotonic() + 60
    while (status := engine.status(job)).state in ("queued", "running"):
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def stat_of(pid):
    """Return what the kernel tells of a process: its state, its parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


SAYS = """
import os, pathlib, sys
import neighbour
print(sys.argv, os.environ["GREETING"], pathlib.Path("neighbour.py").exists(), __name__)
print("Connected to Spark cluster with app ID app-20260101120000-0001")
sys.exit(int(sys.argv[1]))
"""


def test_a_job_runs_in_its_project_and_its_end_is_seen_by_whoever_asks(submission, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "neighbour.py").touch()
    given = {"environment": {"GREETING": "hello"}}
    good = engine().submit(submission(SAYS, "0", "a b;$HOME", **given))
    bad = engine().submit(submission(SAYS, "3", **given))
    status = ended(engine(), good)
    assert (status.state, status.exit_code, status.name) == ("succeeded", 0, "first job")
    assert status.submitted <= status.began <= status.ended
    assert status.application == "app-20260101120000-0001"
    log = "".join(engine().logs(good, follow=False))
    assert "['entry.py', '0', 'a b;$HOME'] hello True __main__" in log
    assert (ended(engine(), bad).state, engine().status(bad).exit_code) == ("failed", 3)
    assert [each.id for each in engine().jobs()] == [good, bad]
    assert (records.job_folder(good).stat().st_mode & 0o777) == 0o700


GRACEFUL = """
import pathlib, sys, time
print("begun", flush=True)
try:
    pathlib.Path("ready").touch()
    time.sleep(600)
except KeyboardInterrupt:
    print("kept the model", flush=True)
"""


def test_a_job_that_is_stopped_hears_an_interrupt_and_its_log_is_followed_to_the_end(submission):
    job = engine().submit(submission(GRACEFUL))
    pieces = engine().logs(job, follow=True)
    assert "begun" in next(pieces)
    wait_for(records.job_folder(job) / "project" / "ready")
    assert engine().status(job).state == "running"
    engine().stop(job)
    assert "kept the model" in "".join(pieces)
    status = ended(engine(), job)
    assert (status.state, status.exit_code) == ("stopped", 0)
    engine().stop(job)
    assert engine().status(job) == status


DEAF = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
command = [sys.executable, "-c", "import time; time.sleep(600)"]
child, other = subprocess.Popen(command), subprocess.Popen(command, start_new_session=True)
pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid} {other.pid}")
pathlib.Path("ready").touch()
time.sleep(600)
"""


def test_a_job_that_ignores_signals_is_killed_with_its_children_after_the_grace(submission):
    deaf = engine(grace=0.2)
    job = deaf.submit(submission(DEAF))
    project = records.job_folder(job) / "project"
    wait_for(project / "ready")
    deaf.stop(job)
    assert (ended(deaf, job).state, deaf.status(job).exit_code) == ("stopped", -9)
    for pid in map(int, (project / "pids").read_text().split()):
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            assert stat_of(pid)[0] == "Z"


def test_a_second_stop_does_not_wait_for_the_grace(submission):
    job = engine(grace=600).submit(
        submission(GRACEFUL.replace('print("kept the model"', "time.sleep(600); print(1"))
    )
    wait_for(records.job_folder(job) / "project" / "ready")
    engine().stop(job)
    engine().stop(job)
    assert (ended(engine(), job).state, engine().status(job).exit_code) == ("stopped", -15)


def test_a_job_whose_supervisor_was_killed_is_not_said_to_run(submission):
    job = engine().submit(submission(GRACEFUL))
    folder = records.job_folder(job)
    wait_for(folder / "project" / "ready")
    driver = int((folder / "driver.pid").read_text())
    supervisor = int(stat_of(driver)[1])
    os.kill(supervisor, 9)
    try:
        assert ended(engine(), job).state == "unknown"
        with pytest.raises(JobError, match="may still run"):
            engine().stop(job)
    finally:
        os.killpg(driver, 9)


def test_a_program_that_is_not_there_fails_the_job_with_the_reason(submission):
    lost = Processes("python", lambda *_: Start(("/nowhere/python",), {}))
    job = lost.submit(submission())
    assert (ended(lost, job).state, lost.status(job).exit_code) == ("failed", 127)
    assert "cannot be started" in "".join(lost.logs(job, follow=False))


@pytest.mark.parametrize("job", ["../..", "none", "", "a/b"])
def test_what_is_no_job_is_refused(job):
    with pytest.raises(JobError):
        engine().status(job)


FAKE = """#!{python}
import json, os, pathlib, runpy, sys
arguments = sys.argv[1:]
at = arguments.index("--properties-file") + 1
file = pathlib.Path(arguments[at])
print("told", json.dumps([arguments, file.read_text(), oct(file.stat().st_mode)]))
sys.stdout.flush()
script = next(n for n, each in enumerate(arguments) if each.endswith("launcher.py"))
os.execv(sys.executable, [sys.executable, *arguments[script:]])
"""


@pytest.fixture
def fake_spark(tmp_path, monkeypatch):
    """A `spark-submit` that says how it was called, and runs the script."""
    program = tmp_path / "spark" / "bin" / "spark-submit"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))


def test_spark_submit_gets_arguments_as_a_list_and_settings_in_a_file_of_ones_own(fake_spark, submission):
    profile = Profile(master="spark://a:7077", conf={"spark.a": "1", "spark.key": "p=\\ä"}, python="python3")
    sent = submission("print('ran')", "a b", "$(x)", spark_conf={"spark.a": "2"})
    job = engine_of(profile).submit(sent)
    assert ended(engine_of(profile), job).state == "succeeded"
    log = "".join(engine_of(profile).logs(job, follow=False))
    assert log.endswith("ran\n")
    arguments, properties, mode = json.loads(log.partition("told ")[2].partition("\n")[0])
    assert arguments[:4] == ["--master", "spark://a:7077", "--deploy-mode", "client"]
    assert arguments[-3:] == ["entry.py", "a b", "$(x)"]
    assert mode.endswith("600")
    assert "spark.a=2\n" in properties
    assert "spark.key=p\\=\\\\\\u00e4\n" in properties
    assert "spark.pyspark.python=python3\n" in properties


def test_settings_are_escaped_as_javas_properties_are():
    given = {"a.b": " space", "c": "back\\slash: #!=\nline\ttab", "\u00e4": "\U0001f600"}
    assert properties_of(given) == (
        "a.b=\\ space\nc=back\\\\slash\\: \\#\\!\\=\\nline\\ttab\n\\u00e4=\\ud83d\\ude00\n"
    )


def test_python_drivers_run_on_the_cluster_on_yarn_alone():
    for master in ("local[2]", "spark://a:7077", None):
        with pytest.raises(ProfileError, match="YARN"):
            spark_submit(Profile(master=master, deploy_mode="cluster"))


def test_on_yarn_the_driver_finds_the_project_in_an_archive(fake_spark, submission):
    profile = Profile(master="yarn", deploy_mode="cluster", environment={"A": "b"})
    job = engine_of(profile).submit(submission())
    ended(engine_of(profile), job)
    log = "".join(engine_of(profile).logs(job, follow=False))
    arguments, properties, _ = json.loads(log.partition("told ")[2].partition("\n")[0])
    assert arguments[arguments.index("--archives") + 1].endswith("project.zip#project")
    assert "spark.yarn.appMasterEnv.A=b\n" in properties


def test_a_client_of_spark_connect_runs_here_with_the_address_of_the_server(submission):
    connect = engine_of(Profile(engine="connect", url="sc://a:15002"))
    job = connect.submit(submission("import os; print(os.environ['SPARK_REMOTE'])"))
    assert ended(connect, job).state == "succeeded"
    assert "sc://a:15002" in "".join(connect.logs(job, follow=False))
    with pytest.raises(ProfileError, match="sc://"):
        engine_of(Profile(engine="connect", url="http://a"))
    with pytest.raises(ProfileError, match="no settings"):
        connect.submit(submission(spark_conf={"spark.a": "1"}))
