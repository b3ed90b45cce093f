"""The examples run as they stand."""

from __future__ import annotations

import ast
import re
import runpy
from importlib import import_module
from pathlib import Path

import keras
import pandas as pd
import pytest

from distkeras.algorithms import REGISTRY

EXAMPLES = Path(__file__).parents[2] / "examples"


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


def test_files_that_arrive_are_predicted_once_also_when_a_batch_is_repeated(spark, example, tmp_path):
    incoming, target = tmp_path / "incoming", tmp_path / "scores"
    incoming.mkdir()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    stream = example("streaming_files")
    for number in (0, 1):
        (incoming / f"{number}.json").write_text(
            f'{{"id": {number}, "features": [{number}.5]}}\n{{"id": 9}}\nnot JSON\n'
        )
        stream.start(spark, model, str(incoming), str(target), once=True).awaitTermination()
    (target / "_checkpoint" / "commits" / "1").unlink()  # As if it had died after the write.
    (target / "_checkpoint" / "commits" / ".1.crc").unlink()
    stream.start(spark, model, str(incoming), str(target), once=True).awaitTermination()
    rows = spark.read.parquet(str(target)).orderBy("id").collect()
    assert [(row["id"], row["prediction"]) for row in rows] == [(0, [0.5]), (1, [1.5])]


def test_physics_events_are_the_same_whichever_chunks_are_made(example, tmp_path, monkeypatch):
    physics = example("physics_events")
    monkeypatch.setattr(physics, "CHUNK", 300)
    physics.write(tmp_path / "events.csv", 700, seed=3)
    physics.write(tmp_path / "events.parquet", 700, seed=3)
    table = pd.read_csv(tmp_path / "events.csv")
    pd.testing.assert_frame_equal(
        table, pd.read_parquet(tmp_path / "events.parquet"), check_dtype=False, rtol=1e-5
    )
    assert list(table["event"]) == list(range(700))
    alone = physics.chunk(1, 300, 700, seed=3).to_pandas()
    pd.testing.assert_frame_equal(alone, table[300:600].reset_index(drop=True), check_dtype=False, rtol=1e-5)
    with pytest.raises(ValueError, match="rows=0"):
        physics.write(tmp_path / "none.csv", 0)


def test_physics_events_in_several_files_are_those_of_one(example, tmp_path):
    physics = example("physics_events")
    rows = physics.CHUNK + 100
    physics.write_files(tmp_path / "events", rows, files=2, seed=3)
    files = sorted((tmp_path / "events").iterdir())
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(files[1]), physics.chunk(1, 100, rows, seed=3).to_pandas())
    assert len(pd.read_parquet(files[0])) == physics.CHUNK
    with pytest.raises(ValueError, match=r"Expected 1 to 2 files .* files=3"):
        physics.write_files(tmp_path / "other", rows, files=3)


def test_physics_events_have_missing_values_weights_and_a_peak(example):
    physics = example("physics_events")
    table = next(physics.generate(4000)).to_pandas()
    assert len(physics.FEATURES) == 30
    one, none = (table[table["num_jets"] == number] for number in (1, 0))
    assert (one["jet2_pt"] == physics.MISSING).all()
    assert (none[["jet1_pt", "jets_mass"]] == physics.MISSING).all(axis=None)
    for label, expected in physics.EXPECTED.items():
        assert table["weight"][table["label"] == label].sum() == pytest.approx(expected, rel=0.1)
    medians = table[table["mass_collinear"] > 0].groupby("label")["mass_collinear"].median()
    assert medians["s"] > medians["b"] + 15
