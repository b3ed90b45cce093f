"""Whether a center is still finite: a rule may overflow, or divide by 0, on messages that are finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distkeras.center.ledger import Journal
from distkeras.center.messages import Answer, Exchange, Refused
from distkeras.center.sharded import Sharded
from distkeras.center.snapshot import CenterState
from distkeras.events import CenterFailed, UpdateRefused


class Finite:
    """Looks at one center, and remembers when it, or the rule's state, held NaN or infinity.

    Args:
        vector: the center.

    Attributes:
        ruined: what was wrong; `None`: nothing so far.
        on_ruined: called with that, once.
    """

    def __init__(self, vector: Sharded) -> None:
        self.ruined: str | None = None
        self.on_ruined: Callable[[str], None] = lambda reason: None
        self._vector = vector

    def after(self, messages: Sequence[Exchange], journal: Journal) -> list[Answer]:
        """Look at the center that `messages` were applied to; return who is to be told that it is ruined."""
        flaw = self._vector.flaw()
        if flaw is None:
            return []
        reason = f"after a message that was finite {flaw}"
        for message in messages:
            window = message.worker, message.window_epoch, message.sequence - 1
            journal.add(UpdateRefused(*window, reason, journal.clock()))
        self._ruin(reason)
        return [(message.worker, Refused(reason)) for message in messages]

    def check(self, journal: Journal, state: CenterState | None = None) -> str | None:
        """Look at the center, or at a `state` that was copied from it; end the job if it is not finite.

        Returns:
            What is wrong; `None`: nothing.
        """
        flaw = self._vector.flaw() if state is None else self._vector.flaw_in(state.center, state.states)
        if flaw is not None and self.ruined is None:
            journal.add(CenterFailed(f"The training has diverged: {flaw}.", journal.clock()))
            self._ruin(flaw)
        return flaw

    def _ruin(self, reason: str) -> None:
        if self.ruined is None:
            self.ruined = reason
            self.on_ruined(reason)
