"""A running job as the conductor of one model sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distkeras.worker.final_state import FinalState
from distkeras.worker.local_state import LocalState

if TYPE_CHECKING:
    from distkeras.algorithms import Vector
    from distkeras.center.requests import Kind
    from distkeras.cluster.watching import Watching


class Control:
    """Gives the orders of one model to its workers.

    Args:
        watching: the running job.
        member: number of the model in an ensemble; `None` for the only one.
    """

    def __init__(self, watching: Watching, member: int | None = None) -> None:
        self._watching = watching
        self._member = member

    def order(self, **changes: Any) -> None:
        """Change the orders in force for the workers of the model."""
        self._watching.order(member=self._member, **changes)

    def keep(self, samples: int) -> None:
        """Ask for a copy of the center as it will be with `samples` rows."""
        self._watching.keep(samples)

    def pull(self, kept: int = 0) -> Vector:
        """Return the center, or its copy for `kept` rows, in memory of the caller's own."""
        return self._watching.pull(self._member or 0, kept)

    def write(self, center: Vector) -> None:
        """Put `center` in place of the center while all workers wait."""
        self._watching.write(center, self._member or 0)

    def report(self, worker: int, kind: Kind, tag: int) -> bytes | None:
        """Return what `worker` has reported; `None` if the center has it no longer."""
        return self._watching.fetch(worker, kind, tag)

    def state_of(self, worker: int, tag: int) -> FinalState | None:
        """Return the local state that `worker` has reported with its commit `tag`, if there is one."""
        data = self.report(worker, "state", tag)
        if data is None:
            return None
        state = LocalState.of(data)
        return FinalState(None, state.variables, state.optimizer)
