"""The user's options for how rows become minibatches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distkeras.worker.padding import Padding, PadTo, padding_of


@dataclass(frozen=True)
class Feeding:
    """How rows become minibatches.

    Args:
        preprocess: `preprocess(columns)` or `preprocess(columns, rng)` makes each minibatch in the worker.
        pad_to: the length to which rows of different lengths are padded.
        drop_remainder: skip the last minibatch of a worker's epoch if it is not full.
        not_finite: what follows numbers that are NaN, infinite, or too large for the model's type: an error
            before the first minibatch, or a warning, and the model gets them.

    Raises:
        TypeError: `preprocess` is not a function of one argument, or of two of which the second is `rng`; or
            `drop_remainder` is not a bool.
        ValueError: `pad_to` is not a padding, or is given together with `preprocess`; or
            `not_finite` is neither word.
    """

    preprocess: Callable[..., Any] | None = None
    pad_to: PadTo | None = None
    drop_remainder: bool = False
    not_finite: Literal["raise", "warn"] = "raise"

    def __post_init__(self) -> None:
        if self.preprocess is not None:
            _check_function(self.preprocess)
        if self.pad_to is not None and self.preprocess is not None:
            raise ValueError(
                "Expected `preprocess` or `pad_to`, not both: the output of `preprocess` is not padded. Pad "
                f"rows there: distkeras.Padding(...).stack(rows). Received: pad_to={self.pad_to!r}"
            )
        for given in self._given():
            padding_of(given)
        if not isinstance(self.drop_remainder, bool):
            raise TypeError(
                f"`drop_remainder` must be True or False. Received: drop_remainder={self.drop_remainder!r}"
            )

        if self.not_finite not in ("raise", "warn"):
            raise ValueError(
                f'`not_finite` must be "raise" or "warn". Received: not_finite={self.not_finite!r}'
            )

    def padding(self, column: str) -> Padding | None:
        """Return how the rows of a column are padded if they need it; `None` for no padding."""
        if isinstance(self.pad_to, Mapping):
            return padding_of(self.pad_to[column]) if column in self.pad_to else None
        return None if self.pad_to is None else padding_of(self.pad_to)

    @property
    def masks(self) -> set[str]:
        """Names of inputs that get a padding mask instead of a column."""
        return {mask for given in self._given() if (mask := padding_of(given).mask) is not None}

    def _given(self) -> list[Any]:
        if isinstance(self.pad_to, Mapping):
            return list(self.pad_to.values())
        return [] if self.pad_to is None else [self.pad_to]


def _check_function(function: Any) -> None:
    """Raise TypeError unless `function` can be called with columns, or with columns and `rng`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # Not a function, or a C function without a signature.
        parameters = []
    needed = [part for part in parameters if part.default is part.empty and part.kind is not part.VAR_KEYWORD]
    fits = callable(function) and len(parameters) >= 1 and len(needed) <= 2
    if not fits or (len(needed) == 2 and needed[1].name != "rng"):
        raise TypeError(
            "`preprocess` must be a function `preprocess(columns)` or `preprocess(columns, rng)`. "
            f"Received: preprocess={function!r}"
        )
