"""`/metrics` of the page's server: the state of the running trainings, for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from importlib.util import find_spec

from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.monitor.gauges import Gauges
from distkeras.monitor.prometheus import exposition
from distkeras.runs.rollup_reader import RollupReader

MISSING = "Prometheus needs a package beside the page: pip install 'distkeras[prometheus]'"


class Exported:
    """Adds up the rollups of the running trainings, each time somebody asks. Others are forgotten.

    The label of a run is its name in the table of runs, or its address where two have one name.

    Args:
        catalogue: the runs.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[RollupReader, Gauges]] = {}

    @staticmethod
    def is_possible() -> bool:
        """Return whether the package of Prometheus is installed."""
        return find_spec("prometheus_client") is not None

    def text(self) -> bytes:
        """Return the numbers, as Prometheus reads them."""
        rows = [row for row in self._catalogue.runs()["runs"] if row.get("status") == "running"]
        names = Counter(row["name"] for row in rows)
        with self._lock:
            known, self._runs = self._runs, {}
            for row in rows:
                folder = self._catalogue.folder(row["id"])
                if folder is None:
                    continue
                label = row["name"] if names[row["name"]] == 1 else row["id"]
                target = (row["rows"] or 0) * (row["epochs"] or 0)
                reader, gauges = known.get(row["id"]) or (RollupReader(folder), Gauges(label, 0, target))
                for entry in reader.new():
                    gauges.add(entry)
                self._runs[row["id"]] = reader, gauges
            return exposition([gauges for _, gauges in self._runs.values()])
