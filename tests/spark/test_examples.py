"""The examples run as they stand."""

from __future__ import annotations

import ast
import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

from distkeras.algorithms import REGISTRY

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


@pytest.fixture
def example(monkeypatch):
    """Imports an example by name; its scripts take the session that is there."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module


def test_a_rule_of_ones_own_runs_in_the_simulator_and_on_spark(spark, capsys):
    runpy.run_path(str(EXAMPLES / "custom_optimizer.py"), run_name="__main__")
    printed = capsys.readouterr().out
    first, last = (float(loss) for loss in re.search(r"loss ([\d.]+) -> ([\d.]+)", printed).groups())
    assert last < first / 20
    before, after = (float(a) for a in re.search(r"accuracy ([\d.]+) -> ([\d.]+)", printed).groups())
    assert after > 0.85 > before


def test_the_rule_of_ones_own_has_at_most_twenty_lines():
    tree = ast.parse((EXAMPLES / "custom_optimizer.py").read_text())
    (rule,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert rule.name == "Consensus"
    assert rule.end_lineno - rule.lineno + 2 <= 20  # with its decorator


def test_mnist_goes_from_a_csv_file_to_an_accuracy(spark, example, tmp_path):
    accuracy = example("mnist_workflow").run(spark, tmp_path, rows=400, epochs=3, workers=2)
    assert accuracy > 0.25  # By chance: 0.1.


def test_a_person_stops_looks_changes_the_rate_and_goes_on(spark, example, capsys):
    del spark  # The active session.
    losses = example("stop_look_go_on").run(rows=800, epochs=4, workers=1)
    assert "Stopped." in capsys.readouterr().out
    assert len(losses) == 4
    assert min(losses[2:]) < losses[1]


def test_the_notebook_runs_cell_by_cell(spark, capsys):
    del spark
    text = (NOTEBOOKS / "stop_look_go_on.py").read_text()
    cells = [cell for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:] if cell.startswith("\n")]
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), namespace)
    before, after = re.search(r"validation: ([\d.]+) -> ([\d.]+)", capsys.readouterr().out).groups()
    assert namespace["history"].epoch[-1] == 5
    assert float(after) < float(before)


def test_a_table_is_learned_by_trainers_of_every_kind(spark, example):
    scores = example("tabular_workflow").run(spark, 1000, 3, ["EnsembleTrainer", "EAMSGD"])
    assert list(scores) == ["EnsembleTrainer", "EAMSGD"]
    assert min(scores.values()) > 0.7


def test_the_tabular_workflow_knows_every_trainer(example):
    names = example("tabular_workflow").TRAINERS
    rules = {name for name in REGISTRY if name not in ("Averaging", "Sequential")}
    assert set(names) == {"SingleTrainer", "AveragingTrainer", "EnsembleTrainer"} | rules


def test_optuna_searches_two_trainings_at_a_time(spark, example):
    search = example("search")
    study = search.search(search.read(spark, 400), trials=2)
    assert len(study.trials) == 2
    assert study.best_value == max(trial.value for trial in study.trials)
