"""The engines: one module each, with a function `engine(profile)`, imported when a profile names it."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from distkeras.jobs.engine import Engine
from distkeras.jobs.profiles import Profile

__all__ = ["engine_of"]


def engine_of(profile: Profile) -> Engine:
    """Return the engine of a profile.

    Raises:
        ProfileError: the profile lacks something that its engine needs.
    """
    module = import_module(f"{__name__}.{profile.engine.replace('-', '_')}")
    return cast(Engine, module.engine(profile))
