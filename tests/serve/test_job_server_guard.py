"""Who may ask a job server for what, and what it does not take, however it is made."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_servers import TYPE, archive_of, body_of
from starlette.testclient import TestClient

from distkeras.command.serve import serve
from distkeras.jobs.server.app import STATIC, JobServer
from distkeras.jobs.server.commands import Commands
from distkeras.jobs.server.home import Home
from distkeras.jobs.server.limits import Limits
from distkeras.jobs.server.queue import Queue
from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.web.guard import Access

TOKEN = {"X-Distkeras-Token": "secret"}
WRITE = {**TOKEN, "X-Distkeras": "command", "Content-Type": TYPE}
LIMITS = Limits(queued=10_000, upload_bytes=20_000, unpacked_bytes=100_000)


class Served:
    """A job server whose queue starts nothing."""

    def __init__(self, folder):
        self.home = Home(folder)
        self.queue = Queue(self.home, LIMITS, Commands())
        app = JobServer(self.home, self.queue, LIMITS, Catalogue(())).app(Access("secret"))
        self.client = TestClient(app, base_url="http://127.0.0.1:8766", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    started = Served(tmp_path_factory.mktemp("around") / "server")
    with started.client:  # One event loop for all requests.
        yield started
    started.queue.close()
    started.home.close()


def test_everything_needs_the_token_but_the_pages_own_files(served):
    client = served.client
    body = body_of(archive_of({"main.py": ""}))
    assert client.post("/api/jobs", content=body, headers=WRITE).status_code == 201
    (job,) = client.get("/api/jobs", headers=TOKEN).json()["jobs"]
    paths = (
        "api/jobs",
        f"api/jobs/{job['id']}",
        f"api/jobs/{job['id']}/logs",
        "runs/api/runs",
        "runs/metrics",
    )
    for path in (*paths, f"api/jobs/{job['id']}/logs/stream"):
        for headers in ({}, {"X-Distkeras-Token": "wrong"}, {"Cookie": "x-distkeras-token=secret"}):
            assert client.get(path, headers=headers).status_code == 401, path
        assert client.get(path, headers={**TOKEN, "Host": "evil.example"}).status_code == 400
    for path in ("", "static/jobs.js", "runs/", "runs/static/frame.js"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("static/../app.py", "static/%2e%2e/app.py", "api/jobs/none", "api/jobs/%2e%2e/logs"):
        assert client.get(path, headers=TOKEN).status_code == 404, path
    assert client.get(f"api/jobs/{job['id']}/logs?cursor=-1", headers=TOKEN).status_code == 400


def test_no_request_changes_anything_without_its_header(served):
    client, body = served.client, body_of(archive_of({"main.py": ""}))
    before = client.get("/api/jobs", headers=TOKEN).json()
    one = before["jobs"][0]["id"]
    for path in ("/api/jobs", f"/api/jobs/{one}/stop", "/runs/api/request?what=stop&id=x"):
        for missing in ("X-Distkeras-Token", "X-Distkeras"):
            headers = {name: value for name, value in WRITE.items() if name != missing}
            assert client.post(path, content=body, headers=headers).status_code in (401, 403)
        crossing = {**WRITE, "Sec-Fetch-Site": "cross-site"}
        assert client.post(path, content=body, headers=crossing).status_code == 403
        assert client.put(path, content=body, headers=WRITE).status_code == 405
    assert client.get(f"/api/jobs/{one}/stop", headers=WRITE).status_code == 405
    assert client.get("/api/jobs", headers=TOKEN).json() == before


def test_an_upload_that_is_too_large_leaves_nothing(served):
    answer = served.client.post("/api/jobs", content=body_of(bytes(20_001)), headers=WRITE)
    assert (answer.status_code, "at most 20,000 bytes" in answer.json()["error"]) == (413, True)
    assert served.client.post("/api/jobs", content=b"x" * 270_000, headers=WRITE).status_code == 413
    told = {**WRITE, "Content-Length": "999999999"}
    assert served.client.post("/api/jobs", content=b"", headers=told).status_code == 413
    assert list(served.home.incoming.iterdir()) == []


def nasty_zips(served):
    """Yield names of archives that must be refused, with their bytes."""
    canary = served.home.path.parent / "evil"
    for name in ("../evil", "/evil", str(canary), "a/../../evil", "a\\..\\evil", "main.py/evil", "", "."):
        made = archive_of({"main.py": "", "PLACEHOLDER": "x"})
        yield f"name {name!r}", renamed(made, "PLACEHOLDER", name)
    yield "twice", renamed(archive_of({"main.py": "", "main.PY": "x"}), "main.PY", "main.py")
    yield "bomb", archive_of({"main.py": "", "zeros": "0" * 1_000_000})
    yield "many", archive_of({f"{number}": "" for number in range(200)} | {"main.py": ""})[:-30]
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            archive.writestr("main.py", "")
            info = zipfile.ZipInfo("link")
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16
            archive.writestr(info, str(canary))
        yield f"kind {kind}", written.getvalue()
    yield (
        "a size that is not true",
        archive_of({"main.py": "x" * 500}).replace((500).to_bytes(4, "little"), (4).to_bytes(4, "little")),
    )


def renamed(archive, old, new):
    """Return an archive in which a file has another name, which `zipfile` itself would not write."""
    written, marker = io.BytesIO(), b"Z" * max(1, len(new.encode()))
    with zipfile.ZipFile(io.BytesIO(archive)) as read, zipfile.ZipFile(written, "w") as made:
        for info in read.infolist():
            made.writestr(marker.decode() if info.filename == old else info.filename, read.read(info))
    made = written.getvalue()
    if new:
        return made.replace(marker, new.encode())
    # The name in the directory gets the length 0, its letter becomes a comment... of length 1.
    place = made.rindex(b"PK\x01\x02")
    directory = bytearray(made[place:])
    directory[28:30], directory[32:34] = b"\0\0", b"\x01\0"
    return made[:place] + bytes(directory)


def around(served):
    """Return what lies beside the jobs."""
    top = served.home.path.parent
    return sorted(str(path) for path in top.rglob("*") if served.home.jobs not in path.parents)


def test_archives_that_lead_outside_or_grow_too_large_are_refused_whole(served):
    before, jobs = around(served), sorted(served.home.jobs.iterdir())
    for what, archive in nasty_zips(served):
        answer = served.client.post("/api/jobs", content=body_of(archive), headers=WRITE)
        assert answer.status_code == 400, (what, answer.text)
        assert sorted(served.home.jobs.iterdir()) == jobs
    assert around(served) == before


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["entry", "name", "sha256", "arguments", "spark_conf", "environment", "python", "workes"]
    ),
    VALUES
    | st.lists(st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
    max_size=3,
)
SOUND = archive_of({"main.py": "print(1)", "data/ü.txt": "x" * 300})


@st.composite
def damaged(draw):
    """Return a sound archive with some bytes changed, removed or added."""
    made = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 6))):
        place, value = draw(st.integers(0, len(made) - 1)), draw(st.binary(max_size=4))
        made[place : place + draw(st.integers(0, 4))] = value
    return bytes(made)


BODIES = st.one_of(
    st.binary(max_size=200),
    FIELDS.map(lambda changed: body_of(SOUND, **changed)),
    damaged().map(body_of),
    st.text(max_size=100).map(lambda text: text.encode() + b"\n" + SOUND),
)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(body=BODIES)
def test_whatever_is_sent_is_refused_or_stays_in_the_folder_of_its_job(served, body):
    before, known = around(served), set(served.home.jobs.iterdir())
    answer = served.client.post("/api/jobs", content=body, headers=WRITE)
    assert answer.status_code == 201 or 400 <= answer.status_code < 500, answer.text
    new = {served.home.jobs / answer.json()["id"]} if answer.status_code == 201 else set()
    assert set(served.home.jobs.iterdir()) - known == new
    assert around(served) == before


def test_a_line_of_json_that_is_nested_without_end_is_refused(served):
    body = b'{"arguments":' + b"[" * 100_000 + b"\n"
    assert served.client.post("/api/jobs", content=body, headers=WRITE).status_code == 400


@FEW
@given(
    path=st.text(max_size=12), query=st.text(max_size=8), place=st.sampled_from(["", "/logs", "/logs/stream"])
)
def test_whatever_is_asked_for_is_refused(served, path, query, place):
    asked = served.client.get(
        f"/api/jobs/x{quote(path, safe='')}{place}", params={"cursor": query, "tail": path}, headers=TOKEN
    )
    assert 400 <= asked.status_code < 500, asked.text


def test_other_machines_are_served_with_encryption_alone_and_the_token_is_private(tmp_path):
    def said(*options):
        result = CliRunner().invoke(serve, ["--folder", str(tmp_path / "server"), "--port", "0", *options])
        assert result.exit_code in (1, 2)
        return result.output

    for host in ("0.0.0.0", "::", "10.0.0.5", "machine.example"):
        assert "--certificate FILE --key FILE" in said("--host", host)
    file = tmp_path / "file"
    file.write_text("no certificate")
    assert "Give both" in said("--host", "0.0.0.0", "--certificate", str(file))
    assert "running=0" in said("--running", "0")
    assert not (tmp_path / "server").exists()
    file.chmod(0o644)
    assert "chmod 600" in said("--token-file", str(file))
    assert stat.S_IMODE((tmp_path / "server").stat().st_mode) == 0o700
    assert "Error" in said("--certificate", str(file), "--key", str(file))
    assert stat.S_IMODE((tmp_path / "server" / "token").stat().st_mode) == 0o600
    (tmp_path / "server").chmod(0o750)  # It may be a shared folder.
    assert "chmod 700" in said()
    assert len((tmp_path / "server" / "token").read_text().strip()) >= 40


def test_the_pages_files_ask_for_nothing_outside_and_work_below_any_prefix():
    files = [path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".html")]
    assert {path.name for path in files} == {"index.html", "jobs.js", "job.js", "jobs.css"}
    for path in files:
        text = path.read_text()
        addresses = re.findall(r"""(?:src|href|import|from|fetch\(|url\()\s*=?\s*["'`(]+([^"'`)]+)""", text)
        assert [each for each in addresses if each.startswith(("/", "http"))] == [], path
        assert not re.search(r"\beval\(|new Function\(|innerHTML|document\.write", text), path
    assert not re.search(
        r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", (STATIC / "index.html").read_text()
    )
