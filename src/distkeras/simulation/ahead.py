"""Steps by a gradient ahead of the weights: Nesterov momentum and primal averaging."""

from __future__ import annotations

from typing import NamedTuple


class Ahead(NamedTuple):
    """The steps of both are one, with the weights `x`, a velocity `v` and what the inner optimizer does, `s`:

        y = x + ahead v;  d = s(y) + carried v;  x <- x + moved d;  v <- kept d

    Primal averaging has `v = z - x`. A worker's velocity is lost with its process, and begins at 0.

    Attributes:
        ahead: part of the velocity in the point where the gradient is computed.
        carried: part of the old velocity in the step.
        moved: part of the step by which the weights move.
        kept: part of the step that becomes the velocity.
    """

    ahead: float
    carried: float
    moved: float
    kept: float

    @classmethod
    def of(cls, momentum: float, averaging: tuple[float, float] | None) -> Ahead | None:
        """Return the step of primal averaging (`mu_x, mu_y`) or of Nesterov momentum; `None` for neither."""
        if averaging is not None:
            mu_x, mu_y = averaging
            return cls(1 - mu_y, 1.0, 1 - mu_x, mu_x)
        return cls(momentum, momentum, 1.0, 1.0) if momentum else None
