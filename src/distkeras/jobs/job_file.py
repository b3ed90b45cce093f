"""A job file: a training as `distkeras train` runs it, in TOML.

Every field has a flag of the command: `[train] batch_size` is `--batch-size`, `[data] path` is `--data-path`.
The names and the help of the flags are the fields' own, so that neither can be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class JobFileError(ValueError):
    """A job file is not as it must be. The message names the place."""


Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Rate = Annotated[float, Meta(gt=0)]


def _told(description: str) -> Meta:
    return Meta(description=description)


class ModelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the model comes from: a function of the project, or a file."""

    function: Annotated[str | None, _told("Function that returns the Keras model: `module:function`.")] = None
    file: Annotated[str | None, _told("A .keras file, in place of a function.")] = None
    arguments: Annotated[dict[str, Any], _told("Keyword argument of the function.")] = {}


class DataSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rows come from: a path that Spark reads, or a function of the project."""

    path: Annotated[str | None, _told("Files that Spark reads.")] = None
    format: Annotated[
        Literal["parquet", "csv", "json", "orc"] | None,
        _told("Format of files. Default: by their ending."),
    ] = None
    options: Annotated[dict[str, Any], _told("Option of Spark's reader, such as `sep=';'`.")] = {}
    function: Annotated[
        str | None, _told("Function that takes the Spark session and returns the rows: `module:function`.")
    ] = None
    arguments: Annotated[dict[str, Any], _told("Keyword argument of the function.")] = {}


class TrainingData(DataSource, frozen=True, forbid_unknown_fields=True):
    """The rows to train on, and the names of their columns."""

    features: Annotated[
        list[str], _told("Column of the model's input; several are concatenated in order.")
    ] = msgspec.field(default_factory=lambda: ["features"])
    label: Annotated[str, _told("Column of the labels.")] = "label"
    sample_weight: Annotated[str | None, _told("Column of the weights of the rows.")] = None


class ValidationData(DataSource, frozen=True, forbid_unknown_fields=True):
    """The rows to validate on at the ends of epochs; none by default."""

    split: Annotated[
        Share, _told("Part of the training rows to validate on, in place of a path or function.")
    ] = 0.0


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The distributed optimizer."""

    name: Annotated[str, _told("Name of the rule, such as ADAG, DOWNPOUR, LocalSGD.")] = "ADAG"
    arguments: Annotated[dict[str, Any], _told("Argument of the rule: `communication_window=5`.")] = {}


class TrainOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to train."""

    workers: Annotated[Count, _told("Workers; each is a Spark task.")] = 2
    epochs: Annotated[Count, _told("Passes over the rows.")] = 1
    batch_size: Annotated[Count | None, _told("Rows in a minibatch of one worker. Default: 32.")] = None
    optimizer: Annotated[
        str | None, _told("Optimizer in the workers, by name. Default: that of the compiled model.")
    ] = None
    learning_rate: Annotated[Rate | None, _told("Learning rate of `optimizer`.")] = None
    loss: Annotated[str | None, _told("Loss, by name. Default: that of the compiled model.")] = None
    metrics: Annotated[list[str], _told("Metric, by name.")] = []
    shuffle: Annotated[bool, _told("Visit the rows in a new order every epoch.")] = True
    seed: Annotated[int | None, _told("Seed of the order of the rows and of new weights.")] = None
    resume: Annotated[
        Literal["auto", "yes", "no"],
        _told('Resume the run: "auto" if there is one, "yes" or fail, "no" for a new one.'),
    ] = "no"
    stop: Annotated[
        dict[str, float], _told("End the training at a target, such as `val_accuracy=0.98` or `minutes=30`.")
    ] = {}
    options: Annotated[
        dict[str, Any], _told("Further argument of `distkeras.DistributedTrainer`, such as `overlap=true`.")
    ] = {}


class SparkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Spark session, where the job is not submitted to one."""

    master: Annotated[str | None, _told("Address of the master. Default: local, one core a worker.")] = None
    remote: Annotated[str | None, _told("Address of a Spark Connect server, such as sc://host:15002.")] = None
    conf: Annotated[dict[str, str], _told("Setting of Spark, such as `spark.executor.memory=2g`.")] = {}


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the training leaves behind."""

    model: Annotated[str | None, _told("Where the trained model goes: a .keras file.")] = None
    run: Annotated[str | None, _told("Folder of the run; `{time}` in it becomes the time.")] = None


class JobFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A training.

    Attributes:
        name: name of the job, for people.
        backend: Keras's backend; default: what Keras is configured with.
        model: where the model comes from.
        data: where the rows come from.
        validation: the rows to validate on.
        rule: the distributed optimizer.
        train: how to train.
        spark: the Spark session.
        output: what the training leaves behind.
    """

    name: Annotated[str | None, _told("Name of the job, for people.")] = None
    backend: Annotated[
        Literal["jax", "tensorflow", "torch"] | None,
        _told("Backend of Keras. Default: what Keras is configured with."),
    ] = None
    model: ModelSource = ModelSource()
    data: TrainingData = TrainingData()
    validation: ValidationData = ValidationData()
    rule: Rule = Rule()
    train: TrainOptions = TrainOptions()
    spark: SparkOptions = SparkOptions()
    output: Output = Output()

    def check(self) -> None:
        """Raise JobFileError if what belongs together is not together."""
        _one_of("model", function=self.model.function, file=self.model.file)
        _one_of("data", path=self.data.path, function=self.data.function)
        if self.validation.path or self.validation.function:
            _one_of("validation", path=self.validation.path, function=self.validation.function)
            if self.validation.split:
                raise JobFileError("Expected rows or a `split` in [validation], not both.")
        for place, function in (("model", self.model.function), ("data", self.data.function)):
            if function is not None and not all(function.partition(":")):
                raise JobFileError(
                    f"Expected `module:function` in [{place}]. Received: function={function!r}"
                )
        if self.train.learning_rate is not None and self.train.optimizer is None:
            raise JobFileError("Expected `optimizer` with `learning_rate` in [train]. Received: no optimizer")
        if self.train.resume != "no" and self.output.run is None:
            raise JobFileError("Expected `run` in [output], to resume it. Received: resume without a run")
        if self.spark.master and self.spark.remote:
            raise JobFileError("Expected `master` or `remote` in [spark], not both.")


def _one_of(place: str, **given: str | None) -> None:
    if sum(value is not None for value in given.values()) != 1:
        names = " or ".join(f"`{name}`" for name in given)
        raise JobFileError(f"Expected either {names} in [{place}]. Received: {given}")


def read_job(path: Path | None, flags: Mapping[str, Any] | None = None) -> JobFile:
    """Return a job: what the file says, and over it what flags say.

    Args:
        path: the file; `None` for flags alone.
        flags: fields and tables of fields, as in the file. Entries of tables such as the rule's arguments are
            added to those of the file.

    Raises:
        JobFileError: there is no such file, it is no TOML, a name or a type in it is wrong, or something is
            missing. The message names the place.
    """
    try:
        told = {} if path is None else msgspec.toml.decode(path.read_bytes())
        job = msgspec.convert(merged(told, flags or {}), JobFile)
    except OSError as error:
        raise JobFileError(f"Expected a job file; `distkeras init` writes one. Received: {error}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise JobFileError(f"{path or 'flags'}: {error}") from error
    job.check()
    return job


def merged(told: Any, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return `told` with `flags` over it; tables are merged, everything else is replaced."""
    if not isinstance(told, dict):
        return dict(flags)
    both = dict(told)
    for name, value in flags.items():
        both[name] = merged(told.get(name), value) if isinstance(value, Mapping) else value
    return both
