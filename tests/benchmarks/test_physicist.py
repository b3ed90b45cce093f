"""The pieces of the benchmark of millions of events."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def physicist(monkeypatch):
    for folder in ("benchmarks", "examples"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import physicist

    return physicist


@pytest.fixture
def sides(physicist):
    import physicist_sides

    return physicist_sides


@pytest.fixture
def events(tmp_path):
    """A small table, and another one of the same kind."""
    import physics_events

    for seed, name in enumerate(("sample", "test")):
        (tmp_path / name).mkdir()
        physics_events.write(tmp_path / name / "part-00000.parquet", rows=3000, seed=seed)
    return tmp_path


def test_the_score_is_the_mean_of_the_classes_weighted_by_their_shares(sides):
    labels = np.array([0, 0, 0, 1])
    assert sides.f1(labels, labels) == 1.0
    # Background: precision 3/4, recall 1, F1 6/7. Signal: nothing is found, F1 0.
    assert sides.f1(labels, np.zeros(4, int)) == pytest.approx(3 / 4 * 6 / 7)


def test_the_events_can_be_learned_and_no_single_cut_separates_them(sides, events):
    options = argparse.Namespace(sample=events / "sample", test=events / "test")
    background, cut = sides.cut(options)
    assert 0.5 < background["F1"] < 0.56
    assert background["F1"] + 0.1 < cut["F1"] < 0.8
    x, y = sides.read(events / "sample")
    model = sides.network(*sides.scales(events / "sample"))
    model.fit(x, y, batch_size=64, epochs=1, verbose=0)
    assert sides.judged(model, events / "test") > cut["F1"]


def test_what_an_event_does_not_have_does_not_move_the_network(sides, events):
    mean, variance = sides.scales(events / "sample")
    assert min(mean) > -10  # -999 is not among the averaged.
    x, _ = sides.read(events / "sample")
    row = np.array([mean], np.float32)
    gone = row.copy()
    gone[0, sides.FEATURES.index("jet2_pt")] = -999.0
    model = sides.network(mean, variance)
    np.testing.assert_allclose(model.predict(gone, verbose=0), model.predict(row, verbose=0), atol=1e-5)
    assert (x[:, sides.FEATURES.index("jet2_pt")] == -999.0).mean() > 0.4


def test_rates_begin_with_the_first_commit(sides):
    assert sides.steady([(12.0, 100), (10.0, 700), (14.0, 100)]) == pytest.approx(50.0)


def test_files_have_equal_numbers_of_rows(physicist):
    assert physicist.whole(14_900_000, 2) == 114 * 2 * 65536
    assert physicist.whole(1, 4) == 4 * 65536


def test_memory_is_that_of_all_processes_since_it_was_last_asked(physicist):
    script = "import time; held = bytearray(b'1' * 120_000_000); print('holds', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}], timeout=60)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    try:
        with physicist.PeakMemory(process.pid) as memory:
            assert process.stdout.readline() == b"holds\n"
            memory.look()
            assert memory.take()["python, MB"] > 120
            assert memory.take() == {} or memory.take().keys() <= {"python, MB"}
    finally:
        import psutil

        for each in [*psutil.Process(process.pid).children(), process]:
            each.kill()
        process.wait()


def test_ratios_are_to_the_median_of_the_neighbors(physicist):
    part = {"rows": 1000, "took": 20.0, "rows/s": 80.0, "jvm, MB": 900, "python, MB": 1500}
    sides = {
        "distkeras": [{"whole": part, "sample": part | {"jvm, MB": 600}}],
        "fit": [{"sample": {"rows/s": 50.0}}, {"sample": {"rows/s": 30.0}}],
        "bound": [{"sample": {"rows/s": 100.0}}],
    }
    found = physicist.ratios(sides)
    assert found["distkeras / fit, rows/s"] == 2.0
    assert found["distkeras / fit, rows/s of the whole training"] == 1.25
    assert found["distkeras / bare steps, rows/s"] == 0.8
    assert found["memory of the whole table / of the sample, jvm"] == 1.5
    json.dumps(found)
