"""Trains a case by `fit` and by a `SingleTrainer`, from the same start, and says how far they are apart."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from registry import Case, Training

from distkeras import SingleTrainer

STILL_ROWS = 16
SEED = 8
"""Where the process's generators of random numbers are when a training begins."""


@dataclass
class Verdict:
    """What was compared, and what came out.

    Attributes:
        differences: the largest difference by what was compared.
        faults: what is wrong with it, by the same names; a difference within the tolerance is none.
        seconds: by what took them.
        refused: the message of a trainer that does not take the case, as it should not.
    """

    differences: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    refused: str | None = None

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as `name`; an exception in it is a fault of that name, and the next block runs."""
        try:
            with self.timed(name):
                yield
        except Exception as error:
            self.faults[name] = f"{type(error).__name__}: {error}"

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Note the seconds of the block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)

    def compare(self, name: str, ours: Any, theirs: Any, tolerance: float) -> None:
        """Note the difference between two trees of arrays, numbers or variables of the same structure."""
        ours, theirs = leaves(ours), leaves(theirs)
        if [leaf.shape for leaf in ours] != [leaf.shape for leaf in theirs]:
            self.faults[name] = (
                f"{len(ours)} of {shapes(ours)} where fit has {len(theirs)} of {shapes(theirs)}"
            )
            return
        furthest = max((difference(*pair) for pair in zip(ours, theirs, strict=True)), default=0.0)
        self.differences[name] = max(furthest, self.differences.get(name, 0.0))
        if not furthest <= tolerance:
            self.faults[name] = f"{furthest:.3g} off"


def judge(case: Case) -> Verdict:
    """Train `case` both ways, once as it is and once at rate 0, and compare all that is left."""
    verdict = Verdict()
    if case.refused is not None:
        try:
            train(make(case))
        except ValueError as error:
            if case.refused not in str(error):
                raise
            verdict.refused = str(error)
        else:
            verdict.faults["trained"] = "what is said to be refused trains"
        return verdict
    with verdict.part("trained"):
        _check_trained(case, verdict)
    with verdict.part("at rate 0"):
        _check_still(case, verdict)
    return verdict


def make(case: Case, *, still: bool = False) -> Training:
    """Return the training of `case`, always the same, compiled unless the trainer is to."""
    keras.utils.set_random_seed(7)
    training = case.make()
    if still:
        training = _stilled(case, training)
    if not training.to_trainer:
        training.model.compile(**training.settings)
    if training.before:
        fit(replace(training, num_epoch=training.before))
    return training


def fit(training: Training) -> keras.Model:
    """Train by Keras."""
    if not training.model.compiled:
        training.model.compile(**training.settings)
    keras.utils.set_random_seed(SEED)
    # Not the model's own: KerasHub's puts a pipeline before it, of TensorFlow or Grain, for a preprocessor.
    keras.Model.fit(
        training.model,
        training.x,
        training.y,
        sample_weight=training.sample_weight,
        class_weight=training.class_weight,
        batch_size=training.batch_size,
        epochs=training.num_epoch,
        shuffle=False,
        verbose=0,
    )
    return training.model


def train(training: Training) -> keras.Model:
    """Train by one worker."""
    given: dict[str, Any] = dict(training.settings) if training.to_trainer else {}
    if "optimizer" in given:
        given["worker_optimizer"] = given.pop("optimizer")
    trainer = SingleTrainer(
        training.model,
        class_weight=training.class_weight,
        batch_size=training.batch_size,
        num_epoch=training.num_epoch,
        verbose=0,
        **given,
        **training.options,
    )
    weights = () if training.sample_weight is None else (training.sample_weight,)
    keras.utils.set_random_seed(SEED)
    return trainer.train((training.x, training.y, *weights))


def _check_trained(case: Case, verdict: Verdict) -> None:
    reference, given = make(case), make(case)
    before = [keras.ops.convert_to_numpy(weight) for weight in given.model.weights]
    with verdict.timed("fit"):
        theirs = fit(reference)
    # After `fit` with `use_ema` on JAX, weights and averages share buffers: Keras's next call ends both.
    for variable in theirs.trainable_variables:
        variable.assign(keras.ops.convert_to_numpy(variable).copy())
    with verdict.timed("train"):
        ours = train(given)
    verdict.compare("given", given.model.weights, before, 0.0)
    _compare_models(case, verdict, reference, ours, theirs)
    with verdict.part("metrics"):
        metrics = [model.get_metrics_result() for model in (ours, theirs)]
        verdict.compare("metrics", *metrics, case.tolerance)
    verdict.compare("optimizer", ours.optimizer.variables, theirs.optimizer.variables, case.tolerance)
    if verdict.faults:  # Then they go on from different places.
        return
    with verdict.part("fit again"):
        for model in (ours, theirs):
            fit(replace(reference, model=model, num_epoch=1))
        verdict.compare("fit again", ours.weights, theirs.weights, case.tolerance)


def _compare_models(
    case: Case, verdict: Verdict, training: Training, ours: keras.Model, theirs: keras.Model
) -> None:
    flags = [[weight.trainable for weight in model.weights] for model in (ours, theirs)]
    verdict.compare("flags", *flags, 0.0)
    types = [[str(weight.dtype) for weight in model.weights] for model in (ours, theirs)]
    if types[0] != types[1]:
        verdict.faults["dtypes"] = f"{types[0]} where fit has {types[1]}"
    floats, others = zip(*(_by_kind(model.weights) for model in (ours, theirs)), strict=True)
    verdict.compare("weights", *floats, case.tolerance)
    verdict.compare("integers", *others, 0.0)
    verdict.compare("seeds", *map(seeds, (ours, theirs)), 0.0)
    x = keras.tree.map_structure(lambda rows: rows[: training.batch_size], training.x)
    predictions = [keras.Model.predict_on_batch(model, x) for model in (ours, theirs)]
    verdict.compare("predictions", *predictions, case.tolerance)


def _check_still(case: Case, verdict: Verdict) -> None:
    """At rate 0 all is bit for bit as given, but the statistics, which change in `fit` too: as there."""
    reference, given = make(case, still=True), make(case, still=True)
    theirs = fit(reference)
    with verdict.timed("train at rate 0"):
        ours = train(given)
    if [weight.shape for weight in ours.weights] != [weight.shape for weight in theirs.weights]:
        verdict.faults["at rate 0"] = "other weights than those given"
        return
    still: list[tuple[Any, Any]] = []
    moved: list[tuple[Any, Any]] = []
    for our, their, start in zip(ours.weights, theirs.weights, given.model.weights, strict=True):
        in_fit = difference(*leaves([their, start])) > 0
        (moved if in_fit else still).append((our, their))
    verdict.compare("at rate 0", *_unzipped(still), 0.0)
    verdict.compare("statistics at rate 0", *_unzipped(moved), case.tolerance)
    verdict.compare("seeds at rate 0", *map(seeds, (ours, theirs)), 0.0)


def _unzipped(pairs: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def _stilled(case: Case, training: Training) -> Training:
    optimizer = training.settings["optimizer"]
    if case.still is not None:
        optimizer = case.still()
    else:
        optimizer = keras.optimizers.get(optimizer)
        optimizer = type(optimizer).from_config(optimizer.get_config() | {"learning_rate": 0.0})
    settings = {**training.settings, "optimizer": optimizer}
    return replace(training, settings=settings, num_epoch=1, **first_rows(training, STILL_ROWS))


def first_rows(training: Training, count: int) -> dict[str, Any]:
    """Return the data of `training`, its first rows."""
    names = ("x", "y", "sample_weight")
    return {
        name: keras.tree.map_structure(lambda rows: rows[:count], value)
        for name in names
        if (value := getattr(training, name)) is not None
    }


def seeds(model: keras.Model) -> list[keras.Variable]:
    """The variables of `model` that are no weights: the states of its seed generators."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def leaves(tree: Any) -> list[Any]:
    """Return the leaves of `tree` as NumPy arrays."""
    return [np.asarray(keras.ops.convert_to_numpy(leaf)) for leaf in keras.tree.flatten(tree)]


def shapes(arrays: Iterable[Any]) -> str:
    """Return the shapes of `arrays`, the first few of many."""
    found = [array.shape for array in arrays]
    return f"{found[:6]}{'...' if len(found) > 6 else ''}"


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two arrays; infinite where one is NaN, or where no numbers differ."""
    if ours.dtype.kind not in "fiubV" and ours.dtype.kind == theirs.dtype.kind:
        return 0.0 if (ours == theirs).all() else float("inf")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    apart = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, np.abs(ours - theirs))
    return float(np.max(np.nan_to_num(apart, nan=np.inf), initial=0.0))


def _by_kind(weights: list[keras.Variable]) -> tuple[list[keras.Variable], list[keras.Variable]]:
    floats = [weight for weight in weights if keras.backend.is_float_dtype(weight.dtype)]
    return floats, [weight for weight in weights if not keras.backend.is_float_dtype(weight.dtype)]
