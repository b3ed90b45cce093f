"""Batches of Kyuubi, against a server that speaks its REST interface."""

from __future__ import annotations

import base64
import email
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from distkeras.jobs import JobError, Profile, unpack
from distkeras.jobs.engines import engine_of
from distkeras.jobs.engines import kyuubi as module


class Batches(BaseHTTPRequestHandler):
    """The batches of Kyuubi 1.10: a form with JSON and files makes one; its state moves on as it is asked."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        form = email.message_from_bytes(
            b"Content-Type: %s\r\n\r\n%s" % (self.headers["Content-Type"].encode(), body)
        )
        parts = {part.get_param("name", header="Content-Disposition"): part for part in form.get_payload()}
        request = json.loads(parts["batchRequest"].get_payload(decode=True))
        assert parts["batchRequest"].get_content_type() == "application/json"
        wanted = {name for names in request["extraResourcesMap"].values() for name in names.split(",")}
        assert wanted == {part.get_filename() for part in parts.values()} - {None, "launcher.py"}
        self.server.files = {name: part.get_payload(decode=True) for name, part in parts.items()}
        self.server.request = request
        batch = {"id": request["conf"]["kyuubi.batch.id"], "name": request["name"], "state": "PENDING"}
        batch |= {"createTime": 1_767_000_000_000, "endTime": 0, "appStartTime": 0, "appId": None}
        self.server.batches[batch["id"]] = batch
        self.answer(batch)

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: value[0] for name, value in parse_qs(url.query).items()}
        name = url.path.removeprefix("/api/v1/batches").strip("/")
        if name.endswith("/localLog"):
            at = int(query["from"])
            lines = self.server.log[at : at + int(query["size"])]
            return self.answer({"logRowSet": lines, "rowCount": len(lines)})
        if not name:
            return self.answer({"from": 0, "total": 1, "batches": [*self.server.batches.values()]})
        if self.server.states and name in self.server.batches:
            self.server.batches[name] |= self.server.states.pop(0)
        return self.answer(self.server.batches.get(name))

    def do_DELETE(self):
        name = self.path.rpartition("/")[2]
        self.server.batches[name]["state"] = "CANCELED"
        self.answer({"success": True, "msg": ""})

    def answer(self, document):
        if self.headers["Authorization"] != self.server.expected:
            return self.send(401, {"message": "Unauthorized"})
        return self.send(404 if document is None else 200, document or {"message": "Invalid batchId"})

    def send(self, code, document):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A Kyuubi on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Batches)
    server.batches, server.states, server.log, server.expected = {}, [], [], "Bearer word"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def profile(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("word")
    token.chmod(0o600)
    url = f"http://127.0.0.1:{server.server_port}"
    return {
        "engine": "kyuubi",
        "url": url,
        "token_file": str(token),
        "master": "yarn",
        "deploy_mode": "cluster",
    }


def test_a_project_becomes_a_batch_with_everything_it_needs(server, profile, submission, tmp_path):
    sent = submission("print(1)", "--epochs", "5", spark_conf={"spark.a": "1"}, environment={"A": "b"})
    job = engine_of(Profile(**profile)).submit(sent)
    request = server.request
    assert request["batchType"] == "PYSPARK"
    assert request["args"] == ["entry.py", "--epochs", "5"]
    conf = {
        "spark.master": "yarn",
        "spark.submit.deployMode": "cluster",
        "spark.a": "1",
        "kyuubi.batch.id": job,
    }
    assert conf.items() <= request["conf"].items()
    assert request["conf"]["spark.yarn.appMasterEnv.A"] == "b"
    (tmp_path / "sent.zip").write_bytes(server.files["project.zip"])
    unpack(tmp_path / "sent.zip", tmp_path / "there")
    assert (tmp_path / "there" / "entry.py").read_text() == "print(1)"
    assert b"def find_project" in server.files["resourceFile"]


def test_the_state_and_the_log_of_a_batch_are_followed_to_its_end(server, profile, submission, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.01)
    monkeypatch.setattr(module, "LINES", 2)
    engine = engine_of(Profile(**profile))
    job = engine.submit(submission())
    assert engine.status(job).state == "queued"
    server.log = ["one", "two", "three"]
    server.states = [
        {"state": "RUNNING", "appId": "application_1_1", "appStartTime": 1_767_000_001_000},
        {"state": "RUNNING"},
        {"state": "FINISHED", "endTime": 1_767_000_009_000, "appState": "FINISHED"},
    ]
    assert "".join(engine.logs(job, follow=True)) == "one\ntwo\nthree\n"
    status = engine.status(job)
    assert (status.state, status.application) == ("succeeded", "application_1_1")
    assert (status.began - status.submitted, status.ended - status.began) == (1, 8)
    assert [each.id for each in engine.jobs()] == [job]


def test_a_batch_whose_application_failed_has_failed(server, profile, submission):
    engine = engine_of(Profile(**profile))
    job = engine.submit(submission())
    server.states = [{"state": "FINISHED", "appState": "FAILED", "appDiagnostic": "out of memory"}]
    assert (engine.status(job).state, engine.status(job).detail) == ("failed", "out of memory")


def test_a_batch_is_stopped_and_an_unknown_one_is_an_error(server, profile, submission):
    engine = engine_of(Profile(**profile))
    job = engine.submit(submission())
    engine.stop(job)
    assert engine.status(job).state == "stopped"
    with pytest.raises(JobError, match="404"):
        engine.status("00000000-0000-0000-0000-000000000000")


def test_a_user_with_a_password_is_known_by_it_and_a_wrong_one_is_refused(server, profile, submission):
    server.expected = f"Basic {base64.b64encode(b'ann:word').decode()}"
    engine_of(Profile(**profile, user="ann")).submit(submission())
    with pytest.raises(JobError, match="401") as caught:
        engine_of(Profile(**profile)).jobs()
    assert "word" not in str(caught.value)


def test_a_server_that_is_not_there_is_an_error(profile):
    with pytest.raises(JobError, match=r"Expected an answer of http://127\.0\.0\.1:1\."):
        engine_of(Profile(**profile | {"url": "http://127.0.0.1:1"})).jobs()
