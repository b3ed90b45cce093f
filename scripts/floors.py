#!/usr/bin/env python
"""Prints the oldest versions that pyproject.toml allows, as constraints: `make floors` tests with them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("jax", "tls", "dashboard")
"""Those that `make floors` installs: a backend, and what the tests that it runs import."""


def floors(project: dict[str, object]) -> list[str]:
    """Return a line `name==version` for each requirement of the package and of EXTRAS.

    Args:
        project: the table `project` of pyproject.toml.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    requirements = [*project["dependencies"], *(each for extra in EXTRAS for each in optional[extra])]  # type: ignore[misc]
    return [_floor(requirement) for requirement in requirements]


def _floor(requirement: str) -> str:
    match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\w.]+)", requirement)
    if match is None:
        raise ValueError(f"Expected a lower bound, such as keras>=3.11. Received: {requirement!r}")
    return f"{match[1]}=={match[2]}"


if __name__ == "__main__":
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
    sys.stdout.write("\n".join(floors(tomllib.loads(text)["project"])) + "\n")
