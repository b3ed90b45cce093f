"""What the documents say works: their Python blocks run, and their links lead somewhere."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from distkeras.algorithms import REGISTRY

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "notebooks" not in path.parts),
    ROOT / "benchmarks" / "README.md",
]

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]*`|<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def python_blocks(path):
    """Return each block, after as many empty lines as come before it: errors name the document's line."""
    text = path.read_text()
    return [
        "\n" * text.count("\n", 0, match.start(1)) + match.group(1) for match in PYTHON_BLOCK.finditer(text)
    ]


def links(path):
    """Return where the document's links lead within the repository."""
    targets = LINK.findall(CODE.sub("", path.read_text()))
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_python_blocks_run_as_they_stand(spark, monkeypatch, tmp_path, path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # and put it back when a block has set it
    monkeypatch.chdir(tmp_path)  # for the files that a block saves
    namespace = {"__name__": "__main__"}  # classes of a block travel by value, as from a notebook
    settings = spark.conf.getAll
    try:
        for block in python_blocks(path):
            exec(compile(block, path, "exec"), namespace)
    finally:  # The session is that of all tests.
        for name, value in spark.conf.getAll.items():
            if name not in settings:
                spark.conf.unset(name)
            elif value != settings[name]:
                spark.conf.set(name, settings[name])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_fragments_which_need_names_of_the_readers_own_are_python(path):
    for fragment in re.findall(r"^```py\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(fragment)


def test_pages_for_beginners_have_blocks_that_run():
    """A page whose blocks are all fragments, ```py, would pass without running anything."""
    with_blocks = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS if python_blocks(path)}
    beginners = {
        "README.md",
        "docs/start/tour.md",
        "docs/fit.md",
        "docs/own_optimizer.md",
        "docs/training.md",
    }
    assert beginners | {"docs/migration_elephas.md", "docs/migration_horovod.md"} <= with_blocks


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(path):
    missing = [target for target in links(path) if not (path.parent / target).exists()]
    assert missing == []


def test_the_application_for_the_spark_operator_is_yaml_with_the_fields_that_it_needs():
    (block,) = YAML_BLOCK.findall((ROOT / "docs" / "clusters" / "kubernetes.md").read_text())
    application = yaml.safe_load(block)
    assert application["apiVersion"] == "sparkoperator.k8s.io/v1beta2"
    assert application["kind"] == "SparkApplication"
    specification = application["spec"]
    assert {"type", "mode", "image", "sparkVersion", "mainApplicationFile", "driver", "executor"} <= {
        *specification
    }
    assert isinstance(specification["sparkVersion"], str)  # 4.1 would be a number.
    assert isinstance(specification["pythonVersion"], str)


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "Sequential"])
def test_every_rule_is_documented_with_its_defaults(name):
    text = (ROOT / "docs" / "algorithms.md").read_text()
    (section,) = re.findall(rf"^### {name}\b.*?(?=^##)", text, re.MULTILINE | re.DOTALL)
    defaults = section.partition("- Defaults:")[2].partition("\n- ")[0]
    stated = dict(re.findall(r"`(\w+)=([^`]+)`", defaults))
    assert {field: ast.literal_eval(value) for field, value in stated.items()} == asdict(REGISTRY[name]())
