"""What every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pyspark.sql import SparkSession
from starting import start_fast
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["PYSPARK_PYTHON"] = sys.executable
start_fast()


class Together(LoadScopeScheduling):
    """Deals the files to the processes of `make test`; what shares something slow stays in one.

    That is the Spark session, and the suites that run once for each backend.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder, _, name = path.removeprefix("tests/").rpartition("/")
        if name in ("test_readme.py", "test_eamsgd.py"):
            return "spark"
        has_session = folder == "spark" and name not in SESSIONS_OF_THEIR_OWN
        return folder if has_session or folder == "worker" else path


SESSIONS_OF_THEIR_OWN = ("test_class_archive.py", "test_connect.py", "test_examples.py", "test_processes.py")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Take the place of xdist's own ways of dealing."""
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, and before the tests on Spark what makes its JVM start fast."""
    items.sort(key=turn)


def turn(item: pytest.Item) -> int:
    """Return when a test's turn is. Each process gets the first two of the groups that are left."""
    name, folder = item.path.name, item.path.parent.name
    if name == "test_class_archive.py":
        return 0
    if folder == "worker":
        return 1
    if folder == "spark":
        return 3 if name in SESSIONS_OF_THEIR_OWN else 2
    return 4


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One Spark session of two slots for the whole run: it takes seconds to start."""
    session = (
        SparkSession.builder.master("local[2]")
        .appName("distkeras-tests")
        .config("spark.ui.port", "0")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
