"""Means of metrics over the rows of an epoch so far, as Keras shows them to callbacks after each batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class RunningMeans:
    """Means of the windows' metrics, weighted by rows."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def begin_epoch(self, lasting: Collection[str]) -> None:
        """Begin anew, but for metrics that count over all epochs."""
        self._sums = {name: total for name, total in self._sums.items() if name in lasting}
        self._rows = {name: rows for name, rows in self._rows.items() if name in lasting}

    def add(self, metrics: Mapping[str, float], rows: int) -> None:
        """Add the metrics of a window of `rows` rows."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * rows
            self._rows[name] = self._rows.get(name, 0) + rows

    def logs(self) -> dict[str, float]:
        """Return the means so far, by name."""
        return {name: total / max(1, self._rows[name]) for name, total in self._sums.items()}
