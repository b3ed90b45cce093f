"""Prometheus scrapes the state of a training, and the board for Grafana asks for nothing else."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

import pytest
from events_of import START, TIMING, ended, facts, windows
from prometheus_client.parser import text_string_to_metric_families

from distkeras.events import (
    EventsDropped,
    ServerRestored,
    ServerStatus,
    SnapshotWritten,
    WorkerAbout,
    WorkerJoined,
    WorkerLost,
)
from distkeras.monitor import Prometheus
from distkeras.monitor.gauges import Gauges
from distkeras.monitor.prometheus import exposition
from distkeras.runs.rollup import Epoch, Rollup


def status(server):
    return ServerStatus(
        server, 10**6, 1.5, 3, 20, 0.1, 0.01, 0.02 + server, 5, 6, 3.0 + server, 4.0, START + 4
    )


EVENTS = [
    *(WorkerJoined(worker, 0, 0, 0, START, WorkerAbout()) for worker in range(2)),
    *windows(0, 16),
    status(0),
    status(1),
    SnapshotWritten(1000, 0.5, 16, START + 5),
    EventsDropped(7, START + 5.1),
    WorkerLost(1, 30.0, START + 5.2),
    Epoch(0, {"loss": 0.5, "val_loss": 0.25}, 160, 4.0, START + 5.3),
    ServerRestored([4, 4], [False, False], 80, 8, START + 6),
    *windows(8, 10, start=START + 10),
    ended(1, 100, START + 12.5),
    *windows(10, 12, start=START + 10),
]


def parsed(text):
    """Return every sample by (name, worker)."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert set(sample.labels) <= {"run", "worker", "le"}
            assert sample.labels["run"] == "run-7"
            key = sample.name, sample.labels.get("worker", sample.labels.get("le"))
            assert key not in found
            found[key] = sample.value
    return found


def test_a_scrape_of_the_driver_has_the_sums_of_the_events_and_the_same_as_that_of_the_page():
    monitor = Prometheus(port=0)
    monitor.begin(facts(behind=1000, target=2200))
    monitor.take(EVENTS)
    monitor.take(windows(12, 13, start=START + 20))  # The second before is complete.
    with urlopen(monitor.address) as answer:
        text = answer.read().decode()
    monitor.end({"reason": "finished"})
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{monitor._server.server_port}/metrics")
    found = parsed(text)
    assert found["distkeras_center_rows", None] == 1000 + 80 + 40
    assert found["distkeras_target_rows", None] == 2200
    assert found["distkeras_worker_rows_total", "0"] == 100  # Eighty, and what was trained again.
    assert found["distkeras_worker_exchange_seconds_total", "1"] == pytest.approx(10 * TIMING.exchanging)
    assert found["distkeras_worker_sent_bytes_total", "1"] == 10 * TIMING.bytes_out
    assert (found["distkeras_worker_state", "0"], found["distkeras_worker_state", "1"]) == (1, 2)
    assert found["distkeras_metric_loss", None] == pytest.approx(sum(1 / (1 + n) for n in range(10, 12)) / 2)
    assert found["distkeras_validation_loss", None] == 0.25
    assert found["distkeras_center_epochs", None] == 2
    assert found["distkeras_rows_per_second", None] == 40.0
    assert found["distkeras_server_memory_bytes", None] == 2 * 10**6
    assert found["distkeras_server_apply_p99_seconds", None] == 1.02
    assert found["distkeras_center_norm", None] == 5.0
    assert found["distkeras_snapshots_total", None] == found["distkeras_server_restores_total", None] == 1
    assert found["distkeras_dropped_events_total", None] == 7
    staleness = [window.staleness for window in windows(0, 16) + windows(8, 12)]
    for bound in (0, 1, 3):
        assert found["distkeras_staleness_bucket", str(float(bound))] == sum(s <= bound for s in staleness)

    rollup, gauges = Rollup(), Gauges("run-7", 1000, 2200)
    for event in [*EVENTS, *windows(12, 13, start=START + 20)]:
        for rolled in [event] if isinstance(event, Epoch) else rollup.add(event):
            gauges.add(rolled)
    assert parsed(exposition([gauges]).decode()) == found


def test_the_board_for_grafana_asks_for_names_that_are_exported():
    rollup, gauges = Rollup(), Gauges("run-7", 0, 2200)
    for event in [*EVENTS, *windows(12, 13, start=START + 20)]:
        for rolled in [event] if isinstance(event, Epoch) else rollup.add(event):
            gauges.add(rolled)
    exported = {name for name, _ in parsed(exposition([gauges]).decode())}
    board = json.loads(files("distkeras.monitor").joinpath("grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [
        variable["definition"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]
    names = {name for query in queries for name in re.findall(r"distkeras_\w+", query)}
    assert len(board["panels"]) >= 8
    assert len(names) >= 15
    assert names <= exported
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    table = page.partition("### Prometheus")[2].partition("\n### ")[0]
    assert {*re.findall(r"`(distkeras_\w+)`", table)} == exported - {
        "distkeras_metric_accuracy",
        "distkeras_staleness_count",
    }
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_a_port_must_be_one_and_one_that_is_taken_is_an_error_of_the_monitor():
    for port in (-1, 2**16, "80", True):
        with pytest.raises(ValueError, match="`port` must be an integer"):
            Prometheus(port)
    first = Prometheus(port=0)
    first.begin(facts())
    second = Prometheus(port=first._server.server_port)
    with pytest.raises(OSError, match="in use"):
        second.begin(facts())
    first.end({})
