"""What becomes of a job that is sent to a job server."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import sys
import time

import msgspec
import psutil
import pytest
from job_servers import TYPE, JobServerProcess, archive_of, body_of

from distkeras.jobs import launcher
from distkeras.jobs.server.commands import Commands
from distkeras.jobs.server.folders import JobFolder
from distkeras.jobs.server.home import Home, HomeError
from distkeras.jobs.server.limits import Limits
from distkeras.jobs.server.queue import Queue
from distkeras.jobs.server.request import JobRequest, read_request
from distkeras.jobs.server.store import Store, StoreError

STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
code = "import time; time.sleep(600)"
other = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
child = subprocess.Popen([sys.executable, "-c", code])
print("pids", os.getpid(), other.pid, child.pid, flush=True)
time.sleep(600)
"""
GRACEFUL = """
import time
try:
    print("training", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("kept the model")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    options = ["--running", "4", "--grace", "0.2", "--log-mb", "1", "--upload-mb", "1", "--unpacked-mb", "2"]
    with JobServerProcess(tmp_path_factory.mktemp("home") / "server", *options) as started:
        yield started


def alive(pids):
    """Return the processes that run; where nobody waits for orphans, killed ones stay as zombies."""
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [each.pid for each in found if each.status() != psutil.STATUS_ZOMBIE]


def pids_of(log):
    line = next(line for line in log.splitlines() if line.startswith("pids"))
    return [int(word) for word in line.split()[1:]]


def test_a_job_runs_in_its_project_with_its_arguments_and_environment(server):
    code = "import os, sys, part.more; print(sys.argv, part.more.X, os.environ['NAME'], os.listdir())"
    files = {"main.py": code, "part/__init__.py": "", "part/more.py": "X = 'imported'"}
    arguments, environment = ["a b", "$HOME; ls"], {"NAME": "ü"}
    body = body_of(archive_of(files), arguments=arguments, environment=environment)
    status, job = server.ask("POST", "api/jobs", body)
    assert (status, job["arguments"]) == (201, arguments)
    failing = server.submit("print('no'); raise SystemExit(3)", name="failing")
    ended = server.wait(job["id"])
    assert (ended["state"], ended["exit_code"]) == ("succeeded", 0)
    assert ended["submitted"] <= ended["began"] <= ended["ended"]
    log = server.log(job["id"])
    assert "['main.py', 'a b', '$HOME; ls'] imported ü" in log
    assert "'part'" in log
    ended = server.wait(failing)
    assert (ended["state"], ended["exit_code"], server.log(failing)) == ("failed", 3, "no\n")
    names = [job["name"] for job in server.ask("GET", "api/jobs")[1]["jobs"]]
    assert names[-1] == "failing"
    order = server.folder / "jobs" / job["id"] / "order.json"
    assert not order.exists()  # It may hold secrets.


def test_a_job_that_does_not_end_by_itself_is_killed_with_all_that_it_has_started(server):
    job = server.submit(STUBBORN)
    pids = pids_of(server.wait_for(job, "pids"))
    assert alive(pids) == pids
    status, asked = server.ask("POST", f"api/jobs/{job}/stop")
    assert (status, asked["state"]) == (200, "running")
    assert asked["stop_asked"] is not None
    ended = server.wait(job)
    assert (ended["state"], ended["exit_code"]) == ("stopped", -9)
    assert alive(pids) == []
    assert server.ask("POST", f"api/jobs/{job}/stop")[1]["state"] == "stopped"  # It stays as it is.


def test_a_job_that_has_ended_leaves_no_process(server):
    code = "import subprocess as s; print('pids', s.Popen(['sleep', '600'], start_new_session=True).pid)"
    job = server.submit(code)
    assert server.wait(job)["state"] == "succeeded"
    assert alive(pids_of(server.log(job))) == []


def test_a_long_log_keeps_its_beginning_and_its_end(server):
    job = server.submit("print('first'); print('x' * 3_000_000); print('last ü')")
    assert server.wait(job)["state"] == "succeeded"
    log = server.log(job)
    assert log.startswith("first\nxxx")
    assert log.endswith("xxx\nlast ü\n")
    left_out = 3_000_000 + len("first\n\nlast ü\n".encode()) - (1 << 20) - 65536
    assert f"\n[distkeras: {left_out} bytes are left out here]\n" in log
    tail = server.ask("GET", f"api/jobs/{job}/logs?tail=10")[1]
    assert tail["text"] == "x\nlast ü\n"


def test_a_log_is_followed_and_goes_on_after_a_lost_connection(server):
    code = """
import time, os
print("first", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
print("second", flush=True)
"""
    job = server.submit(code)
    server.wait_for(job, "first")
    path = f"api/jobs/{job}/logs/stream"
    with server.open("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        cursor, first = next_event(stream)
    assert (first["text"], first["job"]["state"]) == ("first\n", "running")
    (server.folder / "jobs" / job / "work" / "go").touch()
    with server.open("GET", path, **{"Last-Event-ID": cursor}) as stream:
        texts = [event["text"] for event in iter(lambda: (next_event(stream) or ("", None))[1], None)]
    assert "".join(texts) == "second\n"
    assert texts[-1] == ""  # The last event says that the job has ended, then the stream ends.


def next_event(stream):
    fields = {}
    while line := stream.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return (fields["id"], json.loads(fields["data"])) if fields else None


def test_an_upload_is_refused_before_it_has_come_whole(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/api/jobs")
    headers = {"X-Distkeras-Token": server.token, "X-Distkeras": "command", "Content-Type": TYPE}
    for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    for block in (body_of(b""), *[bytes(65536)] * 17):  # One more than the limit, and not the last.
        connection.send(b"%x\r\n%s\r\n" % (len(block), block))
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"][:28]) == (413, "Expected an archive of at mo")
    connection.close()


@pytest.fixture
def narrow(tmp_path):
    with JobServerProcess(tmp_path / "server", "--queued", "2", "--kept", "3") as started:
        yield started


def test_jobs_wait_in_order_and_end_gracefully_and_no_more_wait_than_may(narrow):
    first = narrow.submit(GRACEFUL)
    narrow.wait_for(first, "training")
    waiting = [narrow.submit("print(1)"), narrow.submit("print(2)")]
    status, refusal = narrow.ask("POST", "api/jobs", body_of(archive_of({"main.py": ""})))
    assert (status, "2 jobs wait" in refusal["error"]) == (429, True)
    assert narrow.ask("POST", f"api/jobs/{waiting[0]}/stop")[1]["state"] == "stopped"
    assert narrow.job(waiting[1])["state"] == "queued"
    narrow.ask("POST", f"api/jobs/{first}/stop")
    ended = narrow.wait(first)  # Its driver is interrupted, as by Ctrl-C.
    assert (ended["state"], ended["exit_code"]) == ("stopped", 0)
    assert "kept the model" in narrow.log(first)
    assert narrow.wait(waiting[1])["state"] == "succeeded"
    assert narrow.log(waiting[0]) == ""
    # Only the newest three that have ended are kept.
    waiting.append(narrow.submit("print(3)"))
    narrow.wait(waiting[2])
    deadline = time.monotonic() + 30
    while len(left := narrow.ask("GET", "api/jobs")[1]["jobs"]) > 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [job["id"] for job in left] == waiting
    assert narrow.ask("GET", f"api/jobs/{first}")[0] == 404
    assert sorted(path.name for path in (narrow.folder / "jobs").iterdir()) == sorted(waiting)


def test_a_killed_server_loses_no_job_and_runs_none_twice(tmp_path):
    marks = tmp_path / "marks"
    code = f"""
import os, time
with open({str(marks)!r}, "a") as file:
    file.write("ran\\n")
print("pids", os.getpid(), flush=True)
while not os.path.exists({str(tmp_path / "go")!r}):
    time.sleep(0.02)
"""
    with (
        JobServerProcess(tmp_path / "server", "--running", "2") as first,
        contextlib.ExitStack() as after,
    ):
        job, orphan, waiting = first.submit(code), first.submit(STUBBORN), first.submit(code)
        first.wait_for(job, "pids")
        pids = pids_of(first.wait_for(orphan, "pids"))
        first.kill()
        begun = json.loads((tmp_path / "server" / "jobs" / orphan / "begun.json").read_text())
        psutil.Process(begun["runner"]).kill()  # Out of memory, say.
        second = after.enter_context(JobServerProcess(tmp_path / "server", "--running", "2"))
        lost = second.wait(orphan)
        assert (lost["state"], lost["exit_code"]) == ("failed", None)
        assert "was killed" in lost["detail"]
        assert alive(pids) == []
        assert second.job(job)["state"] == "running"
        second.wait_for(waiting, "pids")
        (tmp_path / "go").touch()
        assert [second.wait(each)["exit_code"] for each in (job, waiting)] == [0, 0]
        assert marks.read_text() == "ran\nran\n"


def test_a_job_that_was_noted_and_not_begun_waits_again(tmp_path):
    home = Home(tmp_path / "server")
    archive = home.new_file()
    archive.write_bytes(archive_of({"main.py": "print('ran')"}))
    queue = Queue(home, Limits(), Commands())
    asked = body_of(archive.read_bytes()).partition(b"\n")[0]
    job = queue.submit(read_request(asked), archive)
    queue.close()
    store = Store(home.database)
    assert store.change(job.id, ["queued"], state="running", began=1.0)
    store.close()
    (home.jobs / "0123456789ab").mkdir()  # A job that was never noted.
    queue = Queue(home, Limits(), Commands())
    queue.start()
    deadline = time.monotonic() + 60
    while not (ended := queue.job(job.id)).has_ended:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (ended.state, queue.log(job.id, 0)[0].text) == ("succeeded", "ran\n")
    assert [path.name for path in home.jobs.iterdir()] == [job.id]
    with pytest.raises(HomeError, match="no other server has"):
        Home(tmp_path / "server")
    queue.close()
    home.close()


def test_jobs_of_a_later_release_and_files_that_hold_none_are_refused(tmp_path):
    later = sqlite3.connect(tmp_path / "later")
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(StoreError, match="version 99"):
        Store(tmp_path / "later")
    (tmp_path / "broken").write_text("no database" * 100)
    with pytest.raises(StoreError, match="broken"):
        Store(tmp_path / "broken")
    with pytest.raises(ValueError, match="running=0"):
        Limits(running=0)


def test_spark_settings_and_a_master_make_a_job_run_by_spark_submit(tmp_path):
    folder = JobFolder(tmp_path / "0123456789ab")
    folder.work.mkdir(parents=True)
    plain = JobRequest(entry="a b.py", name="a job", sha256="0" * 64, arguments=("--x", "$HOME"))
    assert Commands().command(plain, folder)[-3:] == ["a b.py", "--x", "$HOME"]
    assert Commands().command(plain, folder)[0] == sys.executable
    assert Commands().environment(plain, folder)["DISTKERAS_PROJECT"] == str(folder.work)
    settled = msgspec.structs.replace(plain, spark_conf={"spark.a": "secret"}, python="/opt/python")
    for commands, request, master in (
        (Commands(), settled, "local[*]"),
        (Commands("spark://host:7077"), plain, "spark://host:7077"),
    ):
        command = commands.command(request, folder)
        assert command[0].endswith("spark-submit")
        assert command[command.index("--master") + 1] == master
        assert command[command.index("--py-files") + 1] == str(folder.archive)
        assert command[-4:] == [launcher.__file__, "a b.py", "--x", "$HOME"]
        assert "secret" not in " ".join(command)
        has_secret = "spark.a=secret" in folder.properties.read_text()
        assert has_secret == (request is settled)
    assert "spark.pyspark.python" not in folder.properties.read_text()  # That of the cluster.
