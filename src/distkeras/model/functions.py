"""What the code of a function refers to."""

from __future__ import annotations

import types


def names_in(code: types.CodeType) -> set[str]:
    """Return the names that a function, and functions inside it, look up in their module or in objects."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {*code.co_names}.union(*(names_in(part) for part in inner))


def is_filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value: it has none if its name is bound later."""
    try:
        cell.cell_contents  # noqa: B018 (reading an empty cell raises)
    except ValueError:
        return False
    return True
