"""Jobs on Kubernetes: the objects that are made, and a `kubectl` that keeps them in a folder."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from distkeras.jobs import JobError, Profile, ProfileError, unpack
from distkeras.jobs.engines import engine_of
from distkeras.jobs.engines.kubernetes import manifest, yaml_of

PROFILE = Profile(
    engine="kubernetes",
    image="registry/distkeras:1",
    namespace="ml",
    context="prod",
    service_account="spark",
    executors=3,
    conf={"spark.a": "1"},
    environment={"KERAS_BACKEND": "jax"},
)
GOLDEN = Path(__file__).with_name("spark_application.yaml")

KUBECTL = """#!{python} -IS
import json, pathlib, sys
store = pathlib.Path({store!r})
arguments = sys.argv[1:]
with open(store / "calls", "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
verb, rest = arguments[4], arguments[5:]
path = store / f"{{rest[1] if len(rest) > 1 else ''}}.json"
if verb == "apply":
    sys.path.append({packages!r})
    import yaml
    for each in yaml.safe_load_all(sys.stdin):
        if each["kind"] == "SparkApplication":
            each["metadata"] |= {{"uid": "u-1", "creationTimestamp": "2026-01-01T12:00:00Z"}}
            (store / f"{{each['metadata']['name']}}.json").write_text(json.dumps(each))
elif verb == "get" and rest[1] == "-l":
    print(json.dumps({{"items": [json.loads(each.read_text()) for each in sorted(store.glob("*.json"))]}}))
elif verb == "logs":
    print("line one\\nline two")
elif verb == "patch":
    pass
elif not path.exists():
    sys.exit(f'Error from server (NotFound): sparkapplications "{{rest[1]}}" not found')
elif verb == "get":
    print(path.read_text())
elif verb == "delete":
    path.unlink()
"""


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A `kubectl` on the PATH; returns its folder."""
    store, program = tmp_path / "store", tmp_path / "bin" / "kubectl"
    store.mkdir()
    packages = str(Path(yaml.__file__).parents[1])
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable, store=str(store), packages=packages))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return store


def test_the_objects_of_a_job_are_as_the_operator_wants_them(submission, tmp_path):
    sent = submission("pass", "--epochs", "5", name="MNIST: one", spark_conf={"spark.b": "x: y"})
    text = manifest("distkeras-mnist-one-abc", sent, PROFILE)
    project, application = yaml.safe_load_all(text)
    for name in ("launcher.py", "project.zip"):
        assert project["binaryData"].pop(name)
    for each in (project, application):
        each["metadata"]["labels"]["distkeras/sha256"] = "HASH"
    application["spec"]["sparkVersion"] = "VERSION"
    assert [project, application] == [*yaml.safe_load_all(GOLDEN.read_text())]


def test_the_project_in_the_objects_is_the_one_that_was_packed(submission, tmp_path):
    sent = submission("print(1)")
    project, _ = yaml.safe_load_all(manifest("name", sent, PROFILE))
    (tmp_path / "again.zip").write_bytes(base64.b64decode(project["binaryData"]["project.zip"]))
    unpack(tmp_path / "again.zip", tmp_path / "again")
    assert (tmp_path / "again" / "entry.py").read_text() == "print(1)"


def test_any_value_is_written_as_yaml_that_reads_back():
    value = {
        "a.b": ["x: y", "- z", "", "yes", "1e3", "ä\n#"],
        "n": {"empty": {}, "none": [], "true": True, "number": 1.5, "null": None},
        "lists": [[1, 2], [{"a": 1, "b": [2]}]],
        "~": "no key of ours",
    }
    assert yaml.safe_load(yaml_of(value)) == value


def test_a_job_is_submitted_watched_and_deleted_by_kubectl(kubectl, submission):
    engine = engine_of(PROFILE)
    job = engine.submit(submission(name="MNIST: one"))
    assert job.startswith("distkeras-mnist-one-")
    calls = [json.loads(line) for line in (kubectl / "calls").read_text().splitlines()]
    assert calls[0] == ["--context", "prod", "--namespace", "ml", "apply", "--server-side", "-f", "-"]
    owner = json.loads(calls[-1][-1])["metadata"]["ownerReferences"][0]
    assert (owner["name"], owner["uid"]) == (job, "u-1")
    assert engine.status(job).state == "queued"
    with pytest.raises(JobError, match="driver has begun"):
        next(engine.logs(job, follow=False))

    found = json.loads((kubectl / f"{job}.json").read_text())
    for told, state in (("COMPLETED", "succeeded"), ("RUNNING", "running")):
        found["status"] = {
            "applicationState": {"state": told, "errorMessage": "why"},
            "driverInfo": {"podName": f"{job}-driver"},
            "sparkApplicationId": "spark-1",
            "lastSubmissionAttemptTime": "2026-01-01T12:00:05Z",
            "terminationTime": None,
        }
        (kubectl / f"{job}.json").write_text(json.dumps(found))
        status = engine.status(job)
        assert (status.state, status.application, status.detail) == (state, "spark-1", "why")
        assert (status.began - status.submitted, status.ended) == (5, None)
    assert "".join(engine.logs(job, follow=True)) == "line one\nline two\n"
    assert [each.id for each in engine.jobs()] == [job]
    engine.stop(job)
    with pytest.raises(JobError, match="NotFound"):
        engine.status(job)


def test_what_does_not_fit_a_config_map_is_refused_before_anything_is_made(kubectl, submission):
    sent = submission()
    large = replace(sent, pack=replace(sent.pack, num_bytes=2_000_000))
    with pytest.raises(JobError, match=r"2,000,000 bytes"):
        engine_of(PROFILE).submit(large)
    assert not list(kubectl.iterdir())


def test_an_image_is_needed():
    with pytest.raises(ProfileError, match="image"):
        engine_of(Profile(engine="kubernetes"))
