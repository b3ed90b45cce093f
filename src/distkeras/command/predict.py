"""`distkeras predict`: rows with the predictions of a saved model."""

from __future__ import annotations

from typing import Any

import click

from distkeras.command.answers import Answer, answers
from distkeras.command.saved_model import features_of, model_and_data, opened


@click.command()
@model_and_data
@click.option("--output", required=True, help="Folder for the rows, as Parquet, with the predictions.")
@click.option("--column", default="prediction", show_default=True, help="Name of the new column.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@answers
def predict(**options: Any) -> Answer:
    """Write the rows with the predictions of a saved model.

    MODEL is a .keras file or a run, whose best model is taken. DATA are files that Spark reads.
    """
    with opened(options) as (model, rows):
        from distkeras.cluster.description import described
        from distkeras.predictors import ModelPredictor

        predictor = ModelPredictor(
            model, features_of(options), options["column"], batch_size=options["batch_size"]
        )
        predicted = predictor.predict(rows)
        mode = "overwrite" if options["overwrite"] else "errorifexists"
        with described(rows.sparkSession, "writes the predictions"):
            predicted.write.mode(mode).parquet(options["output"])
    document = {"output": options["output"], "columns": predicted.columns}
    return Answer(document, f"Wrote {options['output']}: {', '.join(predicted.columns)}")
