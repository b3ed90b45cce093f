"""What a run says of its Spark application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.sql.utils import is_remote

from distkeras.cluster.reach import known_executors
from distkeras.cluster.settings import is_local

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def application_of(spark: SparkSession) -> dict[str, Any]:
    """Return the facts of the application, plain JSON. What Spark Connect does not tell is `None`.

    Returns:
        `id`, `name`, `master`, `version`, `ui` (address of Spark's page), `executors` (how many there are
        now; on a local master the driver is one), and `slots` (task slots of all of them).
    """
    found: dict[str, Any] = {
        "id": spark.conf.get("spark.app.id", None),
        "name": spark.conf.get("spark.app.name", None),
        "master": spark.conf.get("spark.master", None),
        "version": spark.version,
        "ui": None,
        "executors": None,
        "slots": None,
    }
    if is_remote():
        return found
    context = spark.sparkContext
    # A local master has none that it could name, and warns of the question.
    executors = 1 if is_local(spark) else len(known_executors(spark))
    # Of the context: a session's settings may say something else.
    known = {"id": context.applicationId, "name": context.appName, "master": context.master}
    known |= {"ui": context.uiWebUrl, "slots": context.defaultParallelism}
    return found | known | {"executors": executors}
