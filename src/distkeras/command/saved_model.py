"""What `evaluate` and `predict` share: a saved model, rows at a path, a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from distkeras.command.flags import Entry

if TYPE_CHECKING:
    import keras
    from pyspark.sql import DataFrame

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("model"),
    click.argument("data"),
    click.option(
        "--format",
        "form",
        type=click.Choice(["parquet", "csv", "json", "orc"]),
        help="Format of the rows. Default: by their ending.",
    ),
    click.option("--data-option", type=Entry(), multiple=True, help="Option of Spark's reader."),
    click.option("--feature", multiple=True, help="Column of the model's input. Default: features."),
    click.option("--batch-size", type=click.IntRange(1), help="Rows of a minibatch."),
    click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Spark tasks."),
    click.option("--backend", type=click.Choice(["jax", "tensorflow", "torch"]), help="Backend of Keras."),
    click.option("--master", help="Address of the master. Default: local."),
    click.option("--remote", help="Address of a Spark Connect server."),
    click.option("--conf", type=Entry(plain=True), multiple=True, help="Setting of Spark."),
)


def model_and_data(function: Function) -> Function:
    """Give a command the arguments of a saved model and of rows."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextmanager
def opened(options: dict[str, Any]) -> Iterator[tuple[keras.Model, DataFrame]]:
    """Yield the model and the rows of a command's options, while a Spark session lives."""
    from distkeras.command.working import prepare, read, session

    prepare(options["backend"], Path.cwd())
    found = (options["master"], options["remote"], dict(options["conf"]))
    with session("distkeras", options["workers"], *found) as spark:
        model = load(options["model"])
        yield model, read(spark, options["data"], options["form"], dict(options["data_option"]), Path.cwd())


def load(address: str) -> keras.Model:
    """Return the model of a `.keras` file, or of a run: its best checkpoint, else what it has returned."""
    from distkeras.runs import load_model, load_run

    if address.endswith(".keras"):
        return load_model(address)
    run = load_run(address)
    return run.model("final" if run.checkpoints().best is None else "best")


def features_of(options: dict[str, Any]) -> Any:
    """Return the columns of the model's input, as trainers take them."""
    given = options["feature"] or ("features",)
    return given[0] if len(given) == 1 else list(given)
