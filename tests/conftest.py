"""What every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["PYSPARK_PYTHON"] = sys.executable


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to the processes of `make test`: what shares something slow goes to one."""
    for item in items:
        group = item.path.parent.name if item.path.parent.name == "worker" else item.path.stem
        item.add_marker(pytest.mark.xdist_group("spark" if _shares_spark(item) else group))
    items.sort(key=lambda item: not _shares_spark(item))  # They take longest.


def _shares_spark(item: pytest.Item) -> bool:
    return "spark" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One Spark session of two slots for the whole run: it takes seconds to start."""
    session = (
        SparkSession.builder.master("local[2]")
        .appName("distkeras-tests")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        # The JVM lives for seconds: compiling its code well costs more than it saves.
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
