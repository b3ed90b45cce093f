"""What the package and the repository tell the world: links, versions, citation, images, workflows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import distkeras

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BACKENDS = {"jax", "jax-gpu", "tensorflow", "tensorflow-gpu", "torch"}


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_that_of_the_installed_package():
    assert distkeras.__version__ == importlib.metadata.version("distkeras")


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@host.example:team/distkeras.git\n", "https://host.example/team/distkeras"),
        ("https://host.example/team/distkeras", "https://host.example/team/distkeras"),
        ("https://somebody:secret@host.example/team/distkeras.git", "https://host.example/team/distkeras"),
        ("ssh://git@host.example:2222/team/distkeras/", "https://host.example/team/distkeras"),
        ("/srv/git/distkeras.git", None),
        ("file:///srv/git/distkeras.git", None),
        ("../distkeras", None),
        ("https://host.example/", None),
    ],
)
def test_the_address_of_the_repository_is_that_of_its_web_page_and_has_no_secret(remote, address):
    assert script("package_facts").web_address(remote) == address


def test_links_of_the_readme_are_absolute_in_the_package_and_lead_to_files_that_exist():
    text, address = (ROOT / "README.md").read_text(), "https://host.example/team/distkeras"
    link = re.compile(r"\]\(([^)\s]+)\)")
    relative = {target for target in link.findall(text) if not re.match(r"https?:|#", target)}
    missing = [target for target in relative if not (ROOT / target.partition("#")[0]).exists()]
    assert missing == []
    made = link.findall(script("package_facts").absolute(text, address, "v1.2.3"))
    assert [target for target in made if not re.match(r"https?:|#", target)] == []
    whole = {target.replace("/raw/", "/blob/") for target in made}
    assert {f"{address}/blob/v1.2.3/{target}" for target in relative} <= whole


def test_pictures_code_and_links_of_pictures_are_told_apart():
    absolute = script("package_facts").absolute
    text = "![a](figures/a.png) [b](docs/b.md#c) [![d](d.svg)](LICENSE) [e](#f) [g](https://h.example)"
    assert absolute(text, "https://x") == (
        "![a](https://x/raw/HEAD/figures/a.png) [b](https://x/blob/HEAD/docs/b.md#c) "
        "[![d](https://x/raw/HEAD/d.svg)](https://x/blob/HEAD/LICENSE) [e](#f) [g](https://h.example)"
    )
    code = "```python\nfirst[0](second)\n```"
    assert absolute(code, "https://x") == code


def test_extras_pin_nothing_that_a_user_has_and_all_brings_no_backend():
    extras = PROJECT["optional-dependencies"]
    for name, requirements in extras.items():
        if name != "dev":
            assert not [each for each in requirements if re.search(r"[=<~]=?\d", each.replace(">=", ""))]
    (everything,) = extras["all"]
    named = set(re.search(r"\[(.*)\]", everything)[1].split(","))
    assert named == set(extras) - BACKENDS - {"all", "dev"}


def test_every_requirement_has_an_oldest_version_which_make_floors_tests():
    floors = script("floors").floors(PROJECT)
    assert {"keras==3.12", "pyspark==4.1", "jax==0.6.2"} <= set(floors)
    assert {line.partition("==")[0] for line in floors} >= {
        re.match(r"[\w.-]+", each)[0] for each in PROJECT["dependencies"]
    }


def test_the_conda_recipe_requires_what_the_package_requires():
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text())
    run = [
        each.replace(" ", "").replace("msgspec-python", "msgspec") for each in recipe["requirements"]["run"]
    ]
    others = {"python>=${{python_min}}", "openjdk>=17"}
    assert set(run) - others == set(PROJECT["dependencies"])
    assert recipe["about"]["license_file"] == PROJECT["license-files"]
    assert [(ROOT / path).exists() for path in recipe["about"]["license_file"]] == [True, True]


def test_the_citation_has_what_its_schema_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert set(citation) >= {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"]
    assert all("name" in author or "family-names" in author for author in citation["authors"])
    assert (citation["type"], citation["license"]) == ("software", PROJECT["license"])


def workflows():
    return {
        path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")
    }


def test_workflows_may_only_read_but_for_the_one_that_publishes_a_tag():
    found = workflows()
    assert set(found) == {"tests", "release"}
    for workflow in found.values():
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            assert job["runs-on"] == "ubuntu-latest"
            assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    writing = {
        name: job["permissions"] for name, job in found["release"]["jobs"].items() if "permissions" in job
    }
    assert writing == {"publish": {"id-token": "write"}}
    assert list(found["release"][True]) == ["push"]  # YAML 1.1 reads `on` as true.
    assert list(found["release"][True]["push"]) == ["tags"]


def test_the_classifiers_are_the_versions_of_python_that_a_workflow_tests():
    tested = workflows()["tests"]["jobs"]["versions"]["strategy"]["matrix"]["python-version"]
    named = [each.split(" :: ")[-1] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    assert named == tested


def test_issue_templates_are_forms():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem != "config":
            assert set(form) >= {"name", "description", "body"}
            assert all({"type", "id", "attributes"} <= set(part) for part in form["body"])


def test_the_image_runs_as_a_user_and_gets_the_files_that_it_copies():
    folder = ROOT / "docker"
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"ARG", "FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in steps} <= known
    assert [rest for name, rest in steps if name == "USER"][-1] not in ("root", "0")
    sources = {
        each for name, rest in steps if name == "COPY" for each in rest.split()[:-1] if "--" not in each
    }
    ignored, *let_in = (folder / "Dockerfile.dockerignore").read_text().split()
    assert ignored == "*"
    assert {each.removeprefix("!") for each in let_in} == sources == {"dist/*.whl", "docker/job.py"}
    assert (ROOT / "docker/job.py").exists()


def test_the_cluster_of_compose_starts_in_order_and_is_open_to_this_machine_alone():
    compose = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"master", "worker", "job", "page"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for service in services.values():
        assert service["build"] == {"context": "..", "dockerfile": "docker/Dockerfile"}
        assert set(service.get("depends_on", ())) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", ())} <= set(compose["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "DISTKERAS_DASHBOARD_TOKEN" in services["page"]["environment"]


@pytest.fixture
def repository(tmp_path):
    """A repository with the script of a release, and a section of the changelog for 1.2.3."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "release", tmp_path / "scripts")
    (tmp_path / "scripts" / "package").write_text("#!/bin/sh\necho built $DISTKERAS_REF\n")
    (tmp_path / "scripts" / "package").chmod(0o755)
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.4] - unreleased\n\n## [1.2.3] - 2026-01-02\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return tmp_path


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def released(folder, version):
    environment = {name: value for name, value in os.environ.items() if name != "DISTKERAS_REPOSITORY"}
    command = [str(folder / "scripts" / "release"), version]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_release_is_refused_unless_all_is_ready_and_then_says_which_tag_to_push(repository):
    assert "Expected a version" in released(repository, "1.2").stderr
    for version in ("1.2.4", "1.2.5"):
        assert f"Expected the section '## [{version}] - YYYY-MM-DD'" in released(repository, version).stderr
    (repository / "new").touch()
    assert "Received: ?? new" in released(repository, "1.2.3").stderr
    (repository / "new").unlink()
    assert "DISTKERAS_REPOSITORY. Received: ''" in released(repository, "1.2.3").stderr
    git(repository, "remote", "add", "origin", "/srv/git/distkeras.git")
    assert "Received: '/srv/git/distkeras.git'" in released(repository, "1.2.3").stderr
    git(repository, "remote", "set-url", "origin", "git@host.example:team/distkeras.git")
    done = released(repository, "1.2.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "built v1.2.3" in done.stdout
    assert "git push origin v1.2.3" in done.stdout
    git(repository, "tag", "v1.2.3")
    assert "of which there is a tag already" in released(repository, "1.2.3").stderr
