"""`distkeras evaluate`: loss and metrics of a saved model on rows."""

from __future__ import annotations

from typing import Any

import click

from distkeras.command.answers import Answer, answers
from distkeras.command.saved_model import features_of, model_and_data, opened


@click.command()
@model_and_data
@click.option("--label", default="label", show_default=True, help="Column of the labels.")
@answers
def evaluate(**options: Any) -> Answer:
    """Print loss and metrics of a saved model on rows.

    MODEL is a .keras file or a run, whose best model is taken. DATA are files that Spark reads.
    """
    with opened(options) as (model, rows):
        from distkeras.trainers import evaluate as evaluated

        logs = evaluated(
            model,
            rows,
            batch_size=options["batch_size"],
            verbose=0,
            return_dict=True,
            num_workers=options["workers"],
            features_col=features_of(options),
            label_col=options["label"],
        )
    values = {name: float(value) for name, value in logs.items()}
    return Answer(values, "\n".join(f"{name}: {value:.6g}" for name, value in values.items()))
