"""Fixtures of the tests of clusters: masters, workers, Connect servers, and hosts with a firewall between.

Every test has a hard limit of time: `LIMIT` seconds, or those of `@pytest.mark.limit(seconds)`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from connect_server import ConnectServer
from namespaces import Namespaces, why_not
from standalone import Standalone
from starting import without_tensorflow
from submitting import Submitted, submitted

LIMIT = 240


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit(seconds): what the test may take; more fails it")
    config.addinivalue_line("markers", "slow: run by `make clusters` alone")


@pytest.fixture(autouse=True)
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails."""
    marker = request.node.get_closest_marker("limit")
    with limited(marker.args[0] if marker else LIMIT):
        yield


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise an error in the main thread if the block takes longer."""

    def fail(*_: object) -> None:
        pytest.fail(f"The test has not ended within {seconds:.0f} s.")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def _no_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No process of these tests needs TensorFlow, which takes seconds to import."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in without_tensorflow(tmp_path_factory.mktemp("hidden")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A master and two workers without settings of their own, for all tests of a file."""
    with Standalone(tmp_path_factory.mktemp("standalone")) as cluster:
        yield cluster


@pytest.fixture
def start_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Standalone]]:
    """Starts a cluster for one test, with the arguments of `Standalone` after the folder."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Standalone(tmp_path_factory.mktemp("own"), **options))


@pytest.fixture
def connect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ConnectServer]]:
    """Starts a Spark Connect server for one test, with the arguments of `ConnectServer` after the folder."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            ConnectServer(tmp_path_factory.mktemp("connect"), *arguments, **options)
        )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespaces]:
    """Hosts with a router between, for all tests of a file; a test asks for `namespaces`."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Namespaces(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def namespaces(network: Namespaces) -> Iterator[Namespaces]:
    """The hosts of `network`, where the test may close and cut: all is undone at its end."""
    yield network
    network.undo()


@pytest.fixture(scope="module")
def far_standalone(network: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A master and two workers on the hosts `master`, `executor-a` and `executor-b`; drivers on `driver`."""
    executors = (network["executor-a"], network["executor-b"])
    folder = tmp_path_factory.mktemp("far")
    with Standalone(folder, master_on=network["master"], workers_on=executors) as cluster:
        yield cluster


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Submitted]]:
    """Starts a script on a Spark, and goes on meanwhile; ends it after the test.

    Takes what `submitting.submitted` takes, without the folder.
    """
    with ExitStack() as stack:

        def run(script: Path, *arguments: object, **options: Any) -> Submitted:
            folder = tmp_path_factory.mktemp(Path(script).stem)
            script_on_spark = submitted(script, *arguments, folder=folder, **options)
            stack.enter_context(script_on_spark.program)
            return script_on_spark

        yield run


@pytest.fixture
def submit(start: Callable[..., Submitted]) -> Callable[..., str]:
    """Runs a script to its end and returns what it printed; takes what `start` takes, and `limit` seconds."""
    return lambda *arguments, limit=200.0, **options: start(*arguments, **options).succeeded(limit)
