"""The process of the simulated parameter server: its center, record, snapshots and events."""

from __future__ import annotations

from collections.abc import Callable

from distkeras.center import Center, Fragmented, restore_snapshot, take_snapshot
from distkeras.center.answers import Polled
from distkeras.center.requests import Poll
from distkeras.events import Event
from distkeras.record import Recorded


class Server:
    """Holds the center, which a restart replaces with one of the last snapshot.

    Args:
        make_center: makes the first center, and that of a restarted server before it is restored.
        record: file for every request, in order; `None` for no record.

    Attributes:
        center: the center.
        handle: handles a request, and records it.
        look: closes a round whose grace is over, and records that.
        on_event: receives every event of the center; `None` for nobody.
    """

    def __init__(self, make_center: Callable[[], Center | Fragmented], record: str | None) -> None:
        self.on_event: Callable[[Event], None] | None = None
        self._make_center, self._record = make_center, record
        self._is_read = True
        self._recorded: Recorded | None = None
        self._seen = 0
        self._begin(make_center())
        self.take_snapshot()

    def take_snapshot(self) -> None:
        """Keep the center as it is, for a restart."""
        self._snapshot = take_snapshot(self.center, {})

    def restart(self) -> None:
        """Continue with a new center from the last snapshot."""
        self.read_events()
        center = self._make_center()
        restore_snapshot(center, self._snapshot, self._seen)
        self._begin(center, restart=True)
        self.take_snapshot()  # The center now owns the old one's arrays.

    def read_events(self) -> None:
        """Read the center's events, so that it drops them."""
        more, on_event = True, self.on_event
        while more:
            [(_, polled)] = self.handle(Poll(self._seen))
            if not isinstance(polled, Polled):
                raise TypeError(f"Expected Polled. Received: {polled!r}")
            self._seen, more = polled.next, False
            if on_event is not None:
                more = bool(polled.events)
                for event in polled.events:
                    on_event(event)

    def mute(self) -> None:
        """Make no events of windows, if nobody receives events and there is no record."""
        self._is_read = self.on_event is not None or self._record is not None
        self.center.event_log.windows = self._is_read

    def close(self) -> None:
        """Read the last events, and end the record, if there is one."""
        self.read_events()
        self._end_record()

    def _begin(self, center: Center | Fragmented, restart: bool = False) -> None:
        self.center, self.handle, self.look = center, center.handle, center.look
        center.event_log.windows = self._is_read
        if self._record is not None:
            self._end_record()
            self._recorded = Recorded(center, self._record, restart=restart)
            self.handle, self.look = self._recorded.handle, self._recorded.look

    def _end_record(self) -> None:
        if self._recorded is not None:
            self._recorded.close()
