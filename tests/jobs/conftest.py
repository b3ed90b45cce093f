"""Projects to submit, and the folders of a user who has no other jobs."""

from __future__ import annotations

import pytest

from distkeras.jobs import Submission, pack


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """State and configuration of the tests' own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def submission(tmp_path):
    """Return a function that packs a project with one script."""

    def make(script="print('hello')", *arguments, **options):
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "entry.py").write_text(script)
        return Submission("entry.py", arguments, pack(folder), options.pop("name", "first job"), **options)

    return make
