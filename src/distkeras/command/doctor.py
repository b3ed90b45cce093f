"""`distkeras doctor`: what stands in the way of trainings on a cluster, in the order to fix it."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from distkeras.doctor.diagnosis import Diagnosis, Finding

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from distkeras.doctor.wanted import Wanted

START_SECONDS = 90.0
"""Seconds in which Spark must start; it tries for a minute by itself to reach a standalone master."""


@click.command()
@click.option("--master", help="Address of the master, such as spark://host:7077. Default: local[2].")
@click.option("--remote", help="Address of a Spark Connect server, such as sc://host:15002.")
@click.option("--backend", help="Keras backend. Default: KERAS_BACKEND, or what Keras is configured with.")
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1), help="Workers of a training."
)
@click.option("--host", help="Name or address of this machine that executors reach; for --remote.")
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="A .keras file, for its memory.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds to wait for the executors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def doctor(
    master: str | None,
    remote: str | None,
    backend: str | None,
    workers: int,
    host: str | None,
    model: str | None,
    limit: float,
    as_json: bool,
) -> None:
    """Check Java, Spark, Python, packages, network, clocks, disk, memory and GPUs for a training.

    Errors come first. The exit code is 1 if there is an error, otherwise 0.
    """
    if master and remote:
        raise click.UsageError("Give --master or --remote, not both.")
    given = {"backend": backend or configured_backend(), "workers": workers, "host": host, "model": model}
    diagnosis = Diagnosis(tuple(examined(master, remote, limit, **given)))
    click.echo(json.dumps(diagnosis.to_dict(), indent=2) if as_json else str(diagnosis))
    sys.stdout.flush()
    # A thread in which Spark may still try to start would hold this process.
    os._exit(0 if diagnosis.ok else 1)


def configured_backend() -> str:
    """Return the backend that Keras would take, without importing it."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    path = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
    try:
        with open(path) as file:
            return str(json.load(file).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"


def examined(master: str | None, remote: str | None, limit: float, **given: Any) -> list[Finding]:
    """Return the findings of all checks; those that need Spark only where it can start."""
    from distkeras.doctor.driver import check_address, check_java, check_packages, check_python

    address = remote or master or "local[2]"
    found = [check_python(), *check_packages(given["backend"]), check_address(address)]
    if not remote:
        found.append(check_java())
    if any(finding.level == "error" for finding in found):
        return found
    # Before Spark starts its Python workers, and before Keras is imported.
    os.environ["KERAS_BACKEND"] = given["backend"]
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable if address.startswith("local") else "python3")
    session, finding = started(address, remote is not None, limit=min(limit, START_SECONDS))
    if session is None:
        return [*found, finding]
    from distkeras.doctor.checkup import examine

    try:
        return [*found, finding, *examine(session, wanted_by(**given), limit)]
    finally:
        session.stop()


def started(address: str, is_remote: bool, limit: float) -> tuple[SparkSession | None, Finding]:
    """Start Spark, and say how that went; give up after `limit` seconds."""
    from pyspark.sql import SparkSession

    sessions: list[SparkSession] = []
    errors: list[Exception] = []

    def start() -> None:
        builder = SparkSession.builder.appName("distkeras doctor")
        if is_remote:
            builder = builder.remote(address)
        else:
            builder = builder.master(address).config("spark.ui.enabled", "false")
            builder = builder.config("spark.log.level", "ERROR")
            builder = builder.config("spark.ui.showConsoleProgress", "false")
        try:
            session = builder.getOrCreate()
            session.range(1).count() if is_remote else session.conf.get("spark.app.id")
            sessions.append(session)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join(limit)
    if sessions:
        return sessions[0], Finding("ok", "Spark", f"{sessions[0].version} at {address}")
    if errors:
        said = next(iter(str(errors[0]).strip().splitlines()), type(errors[0]).__name__)
        mend = "See the log above; the version of PySpark here must be that of the cluster."
        return None, Finding("error", "Spark", f"Spark does not start at {address}: {said}.", mend)
    what = f"Expected Spark to start at {address} within {limit:.0f} s. Received: no answer."
    mend = "Check the address of the master, and that the master can reach this machine (spark.driver.host)."
    return None, Finding("error", "Spark", what, mend)


def wanted_by(backend: str, workers: int, host: str | None, model: str | None) -> Wanted:
    """Return what a training with these options wants; for a model, by an asynchronous trainer."""
    from distkeras.cluster.options import ServerOptions
    from distkeras.doctor.wanted import Wanted

    options = ServerOptions(host=host)
    if model is None:
        return Wanted(backend, workers, options=options)
    import keras

    from distkeras.trainers import ADAG
    from distkeras.trainers.checking import wanted_by as wanted_by_trainer

    loaded = keras.saving.load_model(model)
    if not loaded.compiled:
        loaded.compile("sgd", "mse")
    return wanted_by_trainer(ADAG(loaded, num_workers=workers, server=options), None)
