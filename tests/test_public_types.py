"""What a type checker tells a user: every public name has a type, and a misspelt argument is found."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distkeras import DistributedTrainer, fit, ml
from distkeras.ml import keywords as of_ml
from distkeras.trainers import keywords as of_trainers

ROOT = Path(__file__).parents[1]
PACKAGES = ["distkeras", *(
    f"distkeras.{name}"
    for name in (
        *("algorithms", "doctor", "evaluators", "events", "jobs", "ml", "monitor", "plots", "predictors"),
        *("record", "runs", "simulation", "trainers", "transformers", "utils", "wire.codecs"),
    )
)]  # fmt: skip

ANY_KEYWORDS = {
    "distkeras.algorithms.Memory",  # Names of a dict.
    "distkeras.transformers.ColumnTransformer",  # Abstract, and PySpark's own, which the check leaves out.
}
"""Names that may be called with any keyword."""

USES = """
import keras
import distkeras
from distkeras import ADAG, DOWNPOUR, AveragingTrainer, DistributedTrainer, EnsembleTrainer, algorithms, fit
from distkeras.ml import KerasClassifier, KerasEstimator, KerasModel
from distkeras.simulation import Quadratic, simulate

model: keras.Model = keras.Sequential([keras.layers.Dense(1)])
trainer = DOWNPOUR(model, "adam", "mse", communication_window=5, num_workers=4, label_col="y", batch_size=32)
DistributedTrainer(model, algorithms.ADAG(communication_window=3), server=distkeras.ServerOptions())
AveragingTrainer(model, "sgd", "mse", num_epoch=2)
EnsembleTrainer(model, "sgd", "mse", num_ensembles=2, seed=0)
fit(model, [[1.0]], [[2.0]], epochs=2, num_workers=2, seed=1)
KerasEstimator(model=model, numWorkers=2, algorithm="ADAG")
KerasClassifier(model=model, fromLogits=True)
best: distkeras.TrainingResult | None = trainer.result
losses: dict[str, list[float]] = trainer.get_history().history
simulate(algorithms.ADAG(), Quadratic(start=[1.0, 2.0]), num_workers=2, num_commits=3)

DOWNPOUR(model, "adam", "mse", comunication_window=5)  # error: call-arg
DOWNPOUR(model, "adam", "mse", communication_window="5")  # error: arg-type
ADAG(model, "adam", "mse", num_worker=2)  # error: call-arg
ADAG(model, "adam", "mse", num_workers="2")  # error: arg-type
algorithms.ADAG(window=5)  # error: call-arg
AveragingTrainer(model, "sgd", "mse", epochs=2)  # error: call-arg
EnsembleTrainer(model, "sgd", "mse", data="some")  # error: arg-type
fit(model, [[1.0]], [[2.0]], workers=2)  # error: call-arg
distkeras.Trainr  # error: attr-defined
KerasEstimator(numWorker=2)  # error: call-arg
KerasClassifier(fromLogit=True)  # error: call-arg
KerasModel(model, featureCol="x")  # error: call-arg
wrong: int = trainer.result  # error: assignment
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What mypy says of both files, as lines; it runs once, and with the cache of `make types`."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "uses.py").write_text(USES)
    names = [f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__]
    imports = [f"import {package}" for package in PACKAGES]
    (folder / "names.py").write_text("\n".join(imports + [f"reveal_type({name})" for name in names]))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-pretty"]
    paths = [str(folder / "uses.py"), str(folder / "names.py")]
    done = subprocess.run(
        [*command, "--cache-dir", str(ROOT / ".mypy_cache"), *paths],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines(), names


def test_every_public_name_has_a_type(told):
    lines, names = told
    pattern = re.compile(r'names\.py:(\d+): note: Revealed type is "(.*)"')
    found = [match for match in map(pattern.search, lines) if match]
    types = {names[int(match[1]) - len(PACKAGES) - 1]: match[2] for match in found}
    assert sorted(types) == sorted(set(names))
    assert [name for name, type_ in types.items() if type_ == "Any"] == []
    loose = {name for name, type_ in types.items() if re.search(r"\*\*\w+: Any", type_)}
    assert loose == ANY_KEYWORDS


def test_a_type_checker_finds_what_is_wrong_in_a_users_file_and_nothing_else(told):
    expected = [
        (number, line.partition("# error: ")[2])
        for number, line in enumerate(USES.splitlines(), 1)
        if "# error: " in line
    ]
    errors = [re.search(r"uses\.py:(\d+): error: .*\[([\w-]+)\]$", line) for line in told[0]]
    assert [(int(error[1]), error[2]) for error in errors if error] == expected
    assert not [line for line in told[0] if ": error: " in line and "uses.py" not in line]


def test_the_stubs_are_those_of_the_registry():
    spec = importlib.util.spec_from_file_location("stubs", ROOT / "scripts" / "stubs.py")
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    old = [path.name for path, text in stubs.STUBS.items() if path.read_text() != text()]
    assert old == [], "Run `make stubs`, and commit what it writes."


def keywords_of(function):
    """Return the annotations of a function's arguments by keyword alone, by name."""
    return {
        parameter.name: parameter.annotation
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def fields_of(typed):
    return {name: each.__forward_arg__ for name, each in typed.__annotations__.items()}


def test_the_typed_keywords_are_the_arguments_that_they_stand_for():
    arguments = keywords_of(DistributedTrainer.__init__)
    assert fields_of(of_trainers.TrainerOptions) == arguments
    own = inspect.signature(fit).parameters
    refused = {"metrics", "loss_weights", "num_epoch", "input_shape"}
    assert set(fields_of(of_trainers.FurtherOptions)) == set(arguments) - set(own) - refused
    params = keywords_of(ml.KerasEstimator.__init__)
    assert fields_of(of_ml.EstimatorParams) == params
    assert fields_of(of_ml.StageParams) == {name: kind for name, kind in params.items() if name != "model"}
    classification = fields_of(of_ml.ClassificationParams)
    assert classification == fields_of(of_ml.StageParams) | keywords_of(ml.KerasClassifier.__init__)
