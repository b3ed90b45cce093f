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
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "clusters").glob("*.md")),
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
    ("name", "at_least"),
    [
        ("README.md", 5),
        ("docs/algorithms.md", 1),
        ("docs/data.md", 2),
        ("docs/fit.md", 3),
        ("docs/models.md", 1),
        ("docs/monitoring.md", 1),
        ("docs/runs.md", 3),
        ("docs/server_placement.md", 1),
        ("docs/simulator.md", 5),
    ],
)
def test_python_blocks_run_as_they_stand(spark, monkeypatch, name, at_least):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # and put it back when a block has set it
    blocks = python_blocks(ROOT / name)
    assert len(blocks) >= at_least
    namespace = {"__name__": "__main__"}  # classes of a block travel by value, as from a notebook
    for block in blocks:
        exec(compile(block, ROOT / name, "exec"), namespace)


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
