"""Where the user's own code is on the stack, for warnings that point at it."""

from __future__ import annotations

import inspect


def levels_to_user() -> int:
    """Return the number of stack levels up to the first line outside this project."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("distkeras."):
        level, frame = level + 1, frame.f_back
    return level
