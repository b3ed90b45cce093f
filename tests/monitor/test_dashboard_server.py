"""Who may ask the page's server for what, and what it answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from synthetic_runs import Synthetic, begin, perform, steps, write_run

from distkeras.command import main
from distkeras.monitor.dashboard import about
from distkeras.monitor.dashboard.app import STATIC, Page
from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.monitor.dashboard.viewer import ViewerOptions, link
from distkeras.runs import Run
from distkeras.runs.control_files import ControlFiles
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.web.guard import Access

TOKEN = {"X-Distkeras-Token": "secret"}
WRITE = {**TOKEN, "X-Distkeras": "page"}
SMALL = Synthetic(workers=2, windows=60, seconds=20, epochs=2, faults=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a finished run, a running one below, and what is no run of this release."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "done", Synthetic(**{**vars_of(SMALL), "ends": True}))
    running = write_run(folder / "deep" / "er" / "running", SMALL)
    (folder / "later").mkdir()
    (folder / "later" / "run.json").write_text('{"format": 99, "settings": {}}')
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text('{"format": 1, "sett')
    (folder / "something else").mkdir()
    yield folder
    running.close()


def vars_of(made):
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


def client_of(*addresses, token="secret", host="127.0.0.1", names=(), base="http://127.0.0.1:8765"):
    app = Page(Catalogue([str(address) for address in addresses])).app(Access(token, host, names))
    return TestClient(app, base_url=base)


def test_data_needs_the_token_and_the_page_itself_does_not(runs):
    client = client_of(runs)
    for path in ("api/runs", f"api/run?id={runs}/done", f"api/stream?id={runs}/done"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"X-Distkeras-Token": "wrong"}).status_code == 401
    assert client.get("/").status_code == 200
    assert client.get("static/app.js").status_code == 200
    assert client.get("api/runs", headers=TOKEN).status_code == 200
    assert client_of(runs, token=None).get("api/runs").status_code == 200


def test_prometheus_reads_the_running_trainings_with_the_token(runs):
    client = client_of(runs)
    assert client.get("metrics").status_code == 401
    answer = client.get("metrics", headers={"Authorization": "Bearer secret"})
    assert answer.headers["content-type"].startswith("text/plain")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    rows = [line for line in lines if line.startswith("distkeras_worker_rows_total{")]
    assert sum(float(line.split()[-1]) for line in rows) == SMALL.windows * SMALL.rows
    assert all('run="deep/er/running"' in line for line in rows)  # The other one has ended.
    assert client.get("metrics", headers=TOKEN).text == answer.text


def test_a_foreign_name_is_refused_since_it_may_be_another_sites(runs):
    client = client_of(runs, token=None)
    for name in ("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.5", ""):
        assert client.get("api/runs", headers={"Host": name}).status_code == 400
    for name in ("localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST"):
        assert client.get("api/runs", headers={"Host": name}).status_code == 200
    behind = client_of(runs, names=["hub.example"])
    assert behind.get("api/runs", headers={**TOKEN, "Host": "hub.example"}).status_code == 200
    open_to_all = client_of(runs, host="0.0.0.0")
    assert open_to_all.get("api/runs", headers={**TOKEN, "Host": "10.0.0.5:8765"}).status_code == 200
    assert open_to_all.get("api/runs", headers={**TOKEN, "Host": "evil.example"}).status_code == 400


def test_no_request_changes_anything_without_its_header(runs):
    client, run = client_of(runs), f"{runs}/deep/er/running"
    path = f"api/request?what=stop&id={quote(run)}"
    control = ControlFiles(Folder(*find_filesystem(run)))
    for headers in ({}, TOKEN, {"X-Distkeras": "page"}, {**TOKEN, "X-Distkeras": "form"}):
        assert client.post(path, headers=headers).status_code in (401, 403)
    assert client.post(path, headers={**WRITE, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get(path, headers=WRITE).status_code == 405
    assert control.asked() == []
    assert client.post(f"api/request?what=delete&id={quote(run)}", headers=WRITE).status_code == 404
    assert client.post(path, headers=WRITE).json() == {"asked": "stop"}
    assert control.asked() == ["stop"]
    assert control.by("stop") == "a button of the page"
    assert client.get(f"api/run?id={quote(run)}", headers=TOKEN).json()["asked"] == ["stop"]
    control.remove("stop")


def test_only_runs_below_the_given_addresses_can_be_asked_for(runs):
    client = client_of(runs / "deep")
    for name in (f"{runs}/done", f"{runs}/deep/../done", "/etc", "", "deep/er/running"):
        assert client.get("api/run", params={"id": name}, headers=TOKEN).status_code == 404
    assert client.get(f"api/run?id={runs}/deep/er/running", headers=TOKEN).status_code == 200
    for path in ("static/../app.py", "static/%2e%2e/app.py", "api/nothing"):
        assert client.get(path, headers=TOKEN).status_code == 404


def test_every_answer_forbids_what_the_page_does_not_need(runs):
    client = client_of(runs)
    for path in ("/", "static/app.js", "api/runs", "static/none.js"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_the_pages_files_ask_for_nothing_outside_and_work_below_any_prefix():
    own = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert {path.name for path in own} >= {"index.html", "app.js", "uplot.js", "base.css"}
    for path in own:
        text = path.read_text()
        addresses = re.findall(r"""(?:src|href|import|from|fetch\(|url\()\s*=?\s*["'`(]+([^"'`)]+)""", text)
        assert [each for each in addresses if each.startswith(("/", "http"))] == [], path
        assert not re.search(r"\beval\(|new Function\(|innerHTML|document\.write", text), path
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", html)
    assert "MIT License" in (STATIC / "vendor" / "uplot.LICENSE").read_text()


@pytest.mark.parametrize(("trainer", "rule"), [("DistributedTrainer", "ADAG"), ("AveragingTrainer",) * 2])
def test_a_run_is_named_after_its_rule_where_its_trainer_takes_any(trainer, rule):
    outline = about._outline({"algorithm": {"name": "ADAG"}}, [{"facts": {"trainer": trainer}}])
    assert outline["rule"] == rule


def test_the_table_of_runs_has_each_run_and_says_what_is_wrong_with_others(runs):
    found = client_of(runs).get("api/runs", headers=TOKEN).json()
    rows = {row["name"]: row for row in found["runs"]}
    assert set(rows) == {"done", "deep/er/running", "later", "torn"}
    assert (rows["done"]["status"], rows["done"]["done"], rows["done"]["rule"]) == ("finished", 2, "ADAG")
    assert rows["deep/er/running"]["status"] == "running"
    assert "later release" in rows["later"]["error"]
    assert "cannot be read" in rows["torn"]["error"]
    assert found["searched"] == [{"address": str(runs), "trouble": None}]


def test_a_folder_without_runs_or_none_at_all_says_so(runs, tmp_path):
    client = client_of(tmp_path, tmp_path / "none", runs / "done")
    found = client.get("api/runs", headers=TOKEN).json()
    troubles = [place["trouble"] for place in found["searched"]]
    assert "no run.json" in troubles[0]
    assert "no such folder" in troubles[1]
    assert [row["name"] for row in found["runs"]] == ["done"]


def test_broken_lines_are_left_out_and_told(tmp_path):
    write_run(tmp_path / "run", Synthetic(**{**vars_of(SMALL), "ends": True}))
    (file,) = (tmp_path / "run" / "rollups").iterdir()
    lines = file.read_bytes().split(b"\n")
    lines[5:5] = [b'["Second", {"start": 1', b"\x00\xff"]
    file.write_bytes(b"\n".join(lines))
    answer = client_of(tmp_path).get(f"api/run?id={tmp_path}/run", headers=TOKEN).json()
    assert answer["broken"] == 2
    assert "2 broken lines" in answer["about"]["trouble"]
    assert answer["head"]["windows"] == SMALL.windows


def test_other_machines_need_a_token():
    with pytest.raises(ValueError, match="Expected a token"):
        ViewerOptions(("runs",), host="0.0.0.0", token="").access()
    with pytest.raises(ValueError, match="Expected a token"):
        ViewerOptions(("runs",), names=("*",), token="").access()
    first, second = ViewerOptions(("runs",)), ViewerOptions(("runs",))
    assert len(first.token) >= 20
    assert first.token != second.token
    assert first.token not in repr(first)
    assert link("::1", 1, "t", "s3://a/b c") == "http://[::1]:1/#run=s3%3A%2F%2Fa%2Fb%20c&token=t"


class Child:
    """A viewer as a training starts it."""

    def __init__(self, *addresses):
        command = [sys.executable, "-m", "distkeras.monitor.dashboard.viewer"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.say({"addresses": [str(address) for address in addresses], "port": 0, "token": "secret"})
        self.port = json.loads(self.process.stdout.readline())["port"]

    def say(self, what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def open(self, path, **headers):
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", headers={**TOKEN, **headers})
        return urllib.request.urlopen(asked, timeout=20)


@pytest.fixture
def child(tmp_path):
    viewer = Child(tmp_path)
    yield viewer
    viewer.process.kill()
    viewer.process.wait()
    viewer.process.stdout.close()


def next_event(stream):
    """Return the id and the data of the next server-sent event."""
    fields = {}
    while line := stream.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields["id"], json.loads(fields["data"])


def test_a_stream_tells_what_is_new_and_goes_on_after_its_last_event(child, tmp_path):
    run = Run.open(str(tmp_path / "run"))
    begin(run, SMALL)
    todo = list(steps(SMALL))
    for step in todo[:40]:
        perform(run, step)
    path = f"api/stream?id={tmp_path}/run"
    with child.open(path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        cursor, first = next_event(stream)
        assert first["reset"]
        for step in todo[40:60]:
            perform(run, step)
        later, second = next_event(stream)
    assert not second["reset"]
    assert second["head"]["samples"] > first["head"]["samples"]
    assert second["from"] == len(first["columns"]["rate"]) - 1
    with child.open(path, **{"Last-Event-ID": later}) as stream:  # The connection was lost.
        for step in todo[60:]:
            perform(run, step)
        _, third = next_event(stream)
    assert not third["reset"]
    assert third["from"] >= second["from"]
    assert cursor != later
    run.close()


def test_the_viewer_shows_further_runs_and_ends_with_the_process_that_started_it(child, tmp_path):
    other = tmp_path.parent / f"{tmp_path.name}-other"
    write_run(other, SMALL).close()
    child.say({"add": str(other)})
    deadline = time.monotonic() + 20
    while str(other) not in (names := [row["id"] for row in json.load(child.open("api/runs"))["runs"]]):
        assert time.monotonic() < deadline, names
        time.sleep(0.05)
    child.process.stdin.close()
    assert child.process.wait(20) == 0


def test_the_command_says_where_the_page_is_and_what_is_wrong(tmp_path):
    from click.testing import CliRunner

    wrong = CliRunner().invoke(main, ["dashboard", str(tmp_path), "--host", "0.0.0.0", "--no-token"])
    assert wrong.exit_code == 1
    assert "Expected a token" in wrong.output
    wrong = CliRunner().invoke(main, ["dashboard", "nosuch://runs"])
    assert wrong.exit_code == 1
    assert "fsspec" in wrong.output
    command = [sys.executable, "-m", "distkeras", "dashboard", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert "There is no run here" in process.stderr.readline()
        port = re.search(r"http://127\.0\.0\.1:(\d+)/#token=\S{20,}", said)[1]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/runs", timeout=20)
    finally:
        process.kill()
        process.communicate()
