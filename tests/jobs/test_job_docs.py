"""The TOML of the pages about the command and about jobs is what the programs read."""

from __future__ import annotations

import re
from pathlib import Path

from distkeras.command import COMMANDS
from distkeras.jobs import read_config, read_job

DOCS = Path(__file__).parents[2] / "docs"


def toml_of(page):
    return re.findall(r"^```toml\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_job_file_of_the_docs_is_one(tmp_path):
    (text,) = toml_of("command.md")
    (tmp_path / "job.toml").write_text(text)
    assert read_job(tmp_path / "job.toml").train.options == {"num_parameter_servers": 2}


def test_the_profiles_of_the_docs_are_what_the_configuration_takes(tmp_path):
    (text,) = toml_of("jobs.md")
    (tmp_path / "config.toml").write_text(text)
    config = read_config(tmp_path / "config.toml")
    assert {profile.engine for profile in config.profiles.values()} == {
        "spark-submit",
        "kubernetes",
        "kyuubi",
        "server",
        "connect",
    }


def test_every_command_is_in_the_docs():
    told = (DOCS / "command.md").read_text()
    assert [name for name in COMMANDS if f"`{name}`" not in told and f"distkeras {name}" not in told] == []
