"""What a job file names, made: the session, the model, the rows, the trainer. Imports Keras and PySpark."""

from __future__ import annotations

import dataclasses
import glob
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distkeras.jobs.job_file import DataSource, JobFile, JobFileError

if TYPE_CHECKING:
    import keras
    from pyspark.sql import SparkSession

    from distkeras.algorithms import Algorithm
    from distkeras.trainers import DistributedTrainer

_ENDINGS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".orc": "orc"}
_DEFAULTS: Mapping[str, dict[str, Any]] = {"csv": {"header": True, "inferSchema": True}}
"""Options of Spark's readers that job files need not give."""


def prepare(backend: str | None, folder: Path) -> None:
    """Choose Keras's backend, before Keras is imported, and let modules of the project be imported."""
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def placed(folder: Path, path: str) -> str:
    """Return a path of a job file: a relative one is relative to the folder of the file."""
    return path if "://" in path else str(folder / path)


def run_of(job: JobFile, folder: Path) -> str | None:
    """Return the address of a job's run; `{time}` in it becomes the time, one run for each training."""
    if job.output.run is None:
        return None
    return placed(folder, job.output.run.replace("{time}", time.strftime("%Y%m%d-%H%M%S")))


def function_of(name: str) -> Any:
    """Return the function `module:function`.

    Raises:
        JobFileError: there is no such module or function.
    """
    module, _, path = name.partition(":")
    try:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(module)
    except ModuleNotFoundError:
        raise JobFileError(
            f"Expected a module beside the job file, or an installed one. Received: {module!r} of {name!r}"
        ) from None
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        if not hasattr(found, part):
            raise JobFileError(f"Expected a function of {module!r}. Received: {name!r}")
        found = getattr(found, part)
    return found


@contextmanager
def session(
    name: str, cores: int, master: str | None, remote: str | None, conf: Mapping[str, str]
) -> Iterator[SparkSession]:
    """Yield a Spark session, and stop it unless it was there before.

    It is that of `spark-submit` or of SPARK_REMOTE, if one of these has started this process; else the one
    that the arguments name; else a local one.
    """
    from distkeras.cluster.session import present_session

    was_there = present_session() is not None
    made = _made(name, cores, master, remote, conf)
    try:
        yield made
    finally:
        if not was_there:
            made.stop()


def _made(
    name: str, cores: int, master: str | None, remote: str | None, conf: Mapping[str, str]
) -> SparkSession:
    from pyspark.sql import SparkSession

    from distkeras.cluster.session import local_session

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # Set by spark-submit: it has the master.
    if not (submitted or master or remote or "SPARK_REMOTE" in os.environ):
        return local_session(cores, **conf)
    builder = SparkSession.builder.appName(name)
    if remote:
        builder = builder.remote(remote)
    elif master and not submitted:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable if master.startswith("local") else "python3")
        builder = builder.master(master).config("spark.ui.showConsoleProgress", "false")
    for key, value in conf.items():
        builder = builder.config(key, value)
    made: SparkSession = builder.getOrCreate()
    return made


def session_of(job: JobFile) -> AbstractContextManager[SparkSession]:
    """Return the Spark session of a job, for a `with` block."""
    spark = job.spark
    return session(job.name or "distkeras", job.train.workers, spark.master, spark.remote, spark.conf)


def model_of(job: JobFile, folder: Path) -> keras.Model:
    """Return the model of a job."""
    import keras

    from distkeras.runs import load_model

    if job.train.seed is not None:
        keras.utils.set_random_seed(job.train.seed)
    if job.model.file is not None:
        return load_model(placed(folder, job.model.file))
    model = function_of(str(job.model.function))(**job.model.arguments)
    if not isinstance(model, keras.Model):
        raise JobFileError(
            f"Expected a Keras model from {job.model.function!r}. Received: {type(model).__name__}"
        )
    return model


def rows_of(source: DataSource, spark: SparkSession, folder: Path) -> Any:
    """Return the rows of a source, in a form that trainers take."""
    if source.function is not None:
        return function_of(source.function)(spark, **source.arguments)
    return read(spark, str(source.path), source.format, source.options, folder)


def read(spark: SparkSession, path: str, form: str | None, options: Mapping[str, Any], folder: Path) -> Any:
    """Return a DataFrame of files that Spark reads.

    Raises:
        JobFileError: a relative path names no file, or its ending no format.
    """
    if "://" not in path and not os.path.isabs(path):
        path = str((folder / path).absolute())
    if "://" not in path and (found := sorted(glob.glob(path))):
        form = form or _format_of(found[0])
        path = f"file://{path}"  # Not of the cluster's own filesystem.
    elif "://" not in path and Path(path).is_relative_to(folder):
        raise JobFileError(f"Expected files to read. Received: {path}, where there is none")
    form = form or _ENDINGS.get(Path(path.rstrip("/")).suffix, "parquet")
    from distkeras.cluster.description import described

    with described(spark, f"looks at {path}"):  # The types of a CSV's columns are found by a job.
        return spark.read.format(form).options(**{**_DEFAULTS.get(form, {}), **options}).load(path)


def _format_of(path: str) -> str:
    """Return the format of a local file or of a folder with files."""
    files = [path] if os.path.isfile(path) else glob.glob(f"{glob.escape(path)}/*")
    endings = {Path(name).suffix for name in files} & set(_ENDINGS)
    own = Path(path).suffix
    if own in _ENDINGS:
        return _ENDINGS[own]
    if len(endings) != 1:
        raise JobFileError(
            f"Expected `format`: the names of the files do not tell it. Received: {path}: {sorted(endings)}"
        )
    return _ENDINGS[endings.pop()]


def rule_of(name: str, arguments: Mapping[str, Any]) -> Algorithm:
    """Return a rule by its name, with its arguments.

    Raises:
        JobFileError: it has no such argument.
        ValueError: there is no such rule, or a value is out of range.
    """
    from distkeras import algorithms

    rule = type(algorithms.get(name))
    known = [field.name for field in dataclasses.fields(rule)]
    if unknown := sorted(set(arguments) - set(known)):
        raise JobFileError(f"Expected arguments of {rule.__name__}: {', '.join(known)}. Received: {unknown}")
    return rule(**arguments)


def trainer_of(job: JobFile, model: keras.Model) -> DistributedTrainer:
    """Return the trainer of a job.

    Raises:
        ValueError, TypeError: a name or an argument is not as it must be.
    """
    import keras

    from distkeras.trainers import DistributedTrainer

    options = job.train
    optimizer: Any = options.optimizer
    if options.learning_rate is not None:
        config = {"class_name": optimizer, "config": {"learning_rate": options.learning_rate}}
        optimizer = keras.optimizers.get(config)
    features: Any = job.data.features[0] if len(job.data.features) == 1 else job.data.features
    return DistributedTrainer(
        model,
        rule_of(job.rule.name, job.rule.arguments),
        optimizer,
        options.loss,
        metrics=options.metrics or None,
        num_workers=options.workers,
        batch_size=options.batch_size,
        num_epoch=options.epochs,
        features_col=features,
        label_col=job.data.label,
        sample_weight_col=job.data.sample_weight,
        seed=options.seed,
        **options.options,
    )


def trained(job: JobFile, folder: Path, spark: SparkSession) -> tuple[DistributedTrainer, keras.Model]:
    """Train as a job says; return the trainer, which has the history and the result, and the model."""
    from distkeras.lifecycle import StopWhen

    model = model_of(job, folder)
    trainer = trainer_of(job, model)
    validation = job.validation
    has_rows = validation.path is not None or validation.function is not None
    resume: Any = {"yes": True, "no": False, "auto": "auto"}[job.train.resume]
    stop: Any = job.train.stop
    result = trainer.train(
        rows_of(job.data, spark, folder),
        job.train.shuffle,
        resume,
        validation_data=rows_of(validation, spark, folder) if has_rows else None,
        validation_split=validation.split,
        stop=StopWhen(**stop) if stop else None,
        run=run_of(job, folder),
    )
    return trainer, result
