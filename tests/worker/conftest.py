"""Fixtures of the suites that run once for each backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def fresh_process() -> Iterator[None]:
    """No replica is kept, and the seed is set."""
    import keras

    from distkeras.worker import cached_replica

    cached_replica._cache.clear()
    keras.utils.set_random_seed(7)
    yield
    cached_replica._cache.clear()
