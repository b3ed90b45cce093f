"""Prometheus: the state of trainings as `/metrics`, by the driver or by the page of a run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from distkeras.monitor.gauges import Gauges
from distkeras.monitor.monitors import Monitor, Shown, TrainingFacts
from distkeras.runs.rollup import Epoch, Rollup

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

PORT = 9464
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `exposition` returns."""


class Prometheus(Monitor):
    """Serves the state of the training to Prometheus, at `http://HOST:PORT/metrics` until it ends.

    Labels are the run and the worker; docs/monitoring.md lists the names. `grafana.json` beside this module
    is a board for Grafana.

    Args:
        port: port on this machine; 0 for any that is free, which `address` tells.
        host: address to listen on. Default: this machine alone can connect; "0.0.0.0" for every one.

    Attributes:
        address: where it can be read; "" while nothing is served.

    Raises:
        ImportError: prometheus-client is not installed.
        ValueError: `port` is no port.

    Example:
        ```python
        trainer.train(df, monitor=Prometheus(port=9464, host="0.0.0.0"))
        ```
    """

    def __init__(self, port: int = PORT, host: str = "127.0.0.1") -> None:
        if find_spec("prometheus_client") is None:
            raise ImportError("Expected the package prometheus-client: pip install 'distkeras[prometheus]'")
        if type(port) is not int or not 0 <= port < 2**16:
            raise ValueError(f"`port` must be an integer from 0 to 65535. Received: port={port!r}")
        self._port, self._host = port, host
        self.address = ""

    def begin(self, training: TrainingFacts) -> None:
        """Open the port."""
        from prometheus_client import CollectorRegistry, start_http_server

        self._lock = threading.Lock()
        self._rollup, self._gauges = Rollup(), Gauges(training.name, training.behind, training.target)
        registry = CollectorRegistry()
        registry.register(_collector(self._lock, [self._gauges]))
        self._server, self._thread = start_http_server(self._port, self._host, registry)
        self.address = f"http://{self._host}:{self._server.server_port}/metrics"

    def take(self, events: Sequence[Shown]) -> None:
        """Take what is complete."""
        with self._lock:
            for event in events:
                for rolled in [event] if isinstance(event, Epoch) else self._rollup.add(event):
                    self._gauges.add(rolled)

    def end(self, result: Mapping[str, Any]) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.address = ""


def exposition(gauges: Iterable[Gauges]) -> bytes:
    """Return `/metrics` of several runs, as text of `CONTENT_TYPE`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_collector(threading.Lock(), list(gauges)))
    return generate_latest(registry)


def _collector(lock: threading.Lock, gauges: Sequence[Gauges]) -> Collector:
    """Return what Prometheus's own client asks for the present values."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}

    class Present(Collector):
        def collect(self) -> Iterable[Any]:
            families: dict[str, Any] = {}
            with lock:
                for each in gauges:
                    for value in each.values():
                        labels = ["run"] if value.worker is None else ["run", "worker"]
                        if value.name not in families:
                            families[value.name] = kinds[value.kind](value.name, value.about, labels=labels)
                        texts = [each.run] if value.worker is None else [each.run, value.worker]
                        families[value.name].add_metric(texts, value.value)
                staleness = HistogramMetricFamily(
                    "distkeras_staleness",
                    "Updates of the center between a pull and a commit.",
                    labels=["run"],
                )
                for each in gauges:
                    staleness.add_metric([each.run], each.staleness_buckets(), sum_value=None)
            return [*families.values(), staleness]

    return Present()
