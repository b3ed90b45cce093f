"""What every test of connections and servers uses."""

from __future__ import annotations

import pytest

from distkeras.wire import status


@pytest.fixture(autouse=True)
def no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no server tell how it does: a slow machine would find that among the events a test expects."""
    monkeypatch.setattr(status, "SECONDS", 3600.0)
