"""A process that evaluates weights over rows in its memory: `python -m distkeras.worker.side_evaluation`.

The parent process writes pickled objects to one pipe and reads pickled answers from another; nobody else can
write to them. The process ends when the parent closes its pipe, or dies.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from distkeras.worker.compilable import compilable
from distkeras.worker.environment import prepare_process

if TYPE_CHECKING:
    import keras
    import numpy.typing as npt
    import pyarrow as pa

    from distkeras.algorithms import Vector
    from distkeras.model.spec import ModelSpec
    from distkeras.worker.columns import Columns
    from distkeras.worker.minibatch import Minibatch

NICE = 10
"""Priority: the training on the same machine comes first."""


@dataclass(frozen=True)
class Setup:
    """What a process needs before it can open a `Subject`.

    Attributes:
        backend: Keras backend.
        threads: cores that the process may use.
    """

    backend: str
    threads: int


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        model: architecture, weights and compile settings.
        columns: how rows become the model's inputs and labels.
        table: the rows.
        batch_size: rows per minibatch.
        steps: minibatches to evaluate; `None` for all.
    """

    model: ModelSpec
    columns: Columns
    table: pa.Table
    batch_size: int
    steps: int | None = None


@dataclass(frozen=True)
class Question:
    """Weights to evaluate.

    Attributes:
        center: the weights in the model's layout, shape (size,).
        variables: further variables of the model, by path.
    """

    center: Vector
    variables: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    """The result of an evaluation.

    Attributes:
        logs: loss and metrics by name, as `keras.Model.evaluate` returns them in a dict.
        error: traceback of the exception that ended the evaluation, if any.
        batches: the logs after each minibatch; those after the last are `logs`.
    """

    logs: dict[str, Any]
    error: str | None = None
    batches: Sequence[dict[str, Any]] = ()


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Evaluate until the parent closes its pipe."""
    setup: Setup = pickle.load(questions)
    prepare_process(setup.backend, setup.threads)
    try:
        subject: Subject = pickle.load(questions).open()
        evaluator, error = _Evaluator(subject), None
        evaluator.warm_up()
    except Exception:
        evaluator, error = None, traceback.format_exc()
    while True:
        try:
            question = pickle.load(questions)
        except EOFError:
            return
        answer = Answer({}, error) if evaluator is None else evaluator.answer(question)
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


class _Evaluator:
    def __init__(self, subject: Subject) -> None:
        from distkeras.model.spec import deserialize_model

        self._layout = subject.model.layout
        self._model = deserialize_model(subject.model)
        self._minibatches = minibatches_of(subject)

    def warm_up(self) -> None:
        """Compile the step for each shape, so that the first answer takes no longer than the others."""
        evaluated(self._model, [*self._minibatches[:1], *self._minibatches[1:][-1:]])

    def answer(self, question: Question) -> Answer:
        from distkeras.model.variables import tree_of
        from distkeras.model.weights import set_vector

        try:
            cells = tree_of(self._model).variables
            for path, value in question.variables.items():
                cells[path].assign(value)
            set_vector(self._model, question.center, self._layout)
            batches = evaluated(self._model, self._minibatches)
            return Answer(batches[-1] if batches else {}, batches=batches)
        except Exception:
            return Answer({}, traceback.format_exc())


def minibatches_of(subject: Subject) -> list[Minibatch]:
    """Return the minibatches to evaluate."""
    from distkeras.worker.feed import Feed

    batches = iter(subject.table.to_batches())
    size = subject.batch_size
    with Feed(batches, subject.columns, batch_size=size, partition=0, seed=None, num_epoch=1) as feed:
        return list(itertools.islice(feed.epoch(0), subject.steps))


def evaluated(model: keras.Model, minibatches: Sequence[Minibatch]) -> list[dict[str, Any]]:
    """Return what `keras.Model.evaluate` gives up to and with each of these minibatches.

    That is numbers, or arrays of them, by name.
    """
    import keras

    from distkeras.worker.metric_states import testing

    found = []
    with testing(model), _without_resets(model):
        for minibatch in minibatches:
            batch = compilable(model, (minibatch.x, minibatch.y, minibatch.sample_weight))
            logs = model.test_on_batch(*batch, return_dict=True)
            found.append(
                {
                    name: value if isinstance(value, float) else keras.ops.convert_to_numpy(value)
                    for name, value in logs.items()
                }
            )
    return found


@contextmanager
def _without_resets(model: keras.Model) -> Iterator[None]:
    """Empty the metrics of `model`, then let them add up: newer Keras resets them for each minibatch."""
    from distkeras.worker.metric_states import empty_metrics, lasting_in

    empty_metrics(model, lasting_in(model))
    model.reset_metrics = lambda: None
    try:
        yield
    finally:
        del model.reset_metrics


def main() -> None:
    """Serve over the pipes whose numbers are the arguments."""
    reading, writing = (int(number) for number in sys.argv[1:3])
    os.nice(NICE)
    with open(reading, "rb") as questions, open(writing, "wb") as answers:
        serve(questions, answers)


if __name__ == "__main__":
    # The pickled classes belong to the module of this name, not to `__main__`.
    from distkeras.worker import side_evaluation

    side_evaluation.main()
