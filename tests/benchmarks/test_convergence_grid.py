"""The grid of `benchmarks/convergence.py`: its runs, the points that are chosen, and what a file keeps."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from grid.cases import LEAST_WINDOWS, QUICK, TARGET, Case, Grid, Outcome, settings_of
from grid.figures import curves, rates, speed, staleness, time_to
from grid.kept import begin_file
from grid.running import read, run_all
from grid.tables import all_tables

from distkeras.algorithms import REGISTRY


def outcome(case, accuracy):
    curve = [
        (0.0, 0, 0, 0.1),
        (10.0, case.samples // 2, 500, accuracy - 0.01),
        (20.0, case.samples, 1000, accuracy),
    ]
    return Outcome(case, accuracy, False, [1, 2], curve, 0.5)


def made(grid, accuracy_of):
    """Return the outcomes of all stages."""
    outcomes = [outcome(case, accuracy_of(case)) for case in grid.tuning()]
    outcomes += [outcome(case, accuracy_of(case)) for case in grid.chosen(outcomes)]
    return outcomes + [outcome(case, accuracy_of(case)) for case in grid.target()]


def test_every_rule_meets_every_point_of_one_grid():
    grid = Grid()
    cases = list(grid.tuning())
    assert len(set(cases)) == len(cases)
    assert set(grid.rules) == set(REGISTRY) - {"Sequential", "GPA"}
    for rule in grid.rules:
        for count in grid.tuned:
            shapes = [
                (batch_size, window)
                for batch_size in grid.batch_sizes
                for window in grid.windows
                if window >= LEAST_WINDOWS.get(rule, 1)
                and count * batch_size * window * grid.min_windows <= grid.tuning_samples
            ]
            assert len(shapes) >= (1 if rule in LEAST_WINDOWS else 3)
            met = {case.point for case in cases if (case.rule, case.num_workers) == (rule, count)}
            assert met == {(rate, *shape) for rate in grid.rates for shape in shapes}
    for case in cases:
        rows = case.num_commits * case.window * case.batch_size
        rows *= case.num_workers if REGISTRY[case.rule].synchronous else 1
        assert rows >= case.samples


def test_the_best_point_of_each_rule_is_run_with_all_seeds_under_all_conditions():
    grid = replace(QUICK, seeds=3, workers=(8, 4, 2))
    best = {"DOWNPOUR": (0.1, 8, 1), "DelayedNesterov": (0.3, 8, 1), "LocalSGD": (0.3, 8, 5)}
    outcomes = made(grid, lambda case: 0.9 if case.point == best[case.rule] else 0.5)
    chosen = [
        each.case for each in outcomes if each.case.samples == grid.samples and each.case.num_workers > 1
    ]
    assert {case.rule: case.point for case in chosen} == best
    assert len(chosen) == 3 * 3 * (3 + 1 + 1)  # Rules, seeds, and workers under each of the conditions.
    assert {(case.step_time, case.partition) for case in chosen} == {
        ("gamma", "rows"),
        ("heterogeneous", "rows"),
        ("heterogeneous", "labels"),
    }


def test_long_runs_are_of_one_worker_and_of_an_asynchronous_rule():
    outcomes = made(
        QUICK, lambda case: {"DOWNPOUR": 0.8, "DelayedNesterov": 0.9, "LocalSGD": 0.95}[case.rule]
    )
    long = {
        each.case.rule
        for each in outcomes
        if each.case.samples == QUICK.target_samples and each.case.num_workers > 1
    }
    assert long == {TARGET}
    tables = all_tables(outcomes, QUICK)
    assert "| LocalSGD (rounds) | - | 95.0 | 95.0 |" in tables
    assert "| DelayedNesterov | 8 | heterogeneous | 90.00 | 90.00 | 20 |" in tables
    assert time_to(outcomes[:1], 0.79) == 10.0 * 8 / 32  # A batch of 8 takes a quarter of one of 32.
    assert time_to(outcomes[:1], 0.81) is None


def test_a_file_that_was_cut_off_loses_one_run_and_goes_on(tmp_path):
    path, cases = tmp_path / "runs.jsonl", list(QUICK.tuning())[:3]
    begin_file(path, {"grid": settings_of(QUICK)})
    assert json.loads(path.read_text())["grid"]["rates"] == [0.1, 0.3]
    with path.open("a") as file:
        for case in cases:
            file.write(json.dumps(asdict(outcome(case, 0.9))) + "\n")
    assert [each.case for each in read(path)] == cases
    path.write_text(path.read_text()[:-20])
    assert [each.case for each in read(path)] == cases[:2]
    begin_file(path, {"grid": settings_of(QUICK)})
    assert path.read_text().endswith("\n")
    assert [each.case for each in read(path)] == cases[:2]
    assert run_all(cases[:2], QUICK, jobs=1, path=path, deadline=0.0)  # Nothing is left to run.


def test_figures_are_made_of_what_there_is():
    outcomes = made(QUICK, lambda case: 0.9)
    tuned = [each for each in outcomes if each.case.samples == QUICK.tuning_samples]
    assert all(figure(outcomes, QUICK) is not None for figure in (curves, speed, rates, staleness))
    assert [figure(tuned, QUICK) is not None for figure in (curves, speed, rates, staleness)] == [
        False,
        False,
        True,
        False,
    ]


def test_a_case_is_the_same_after_it_was_written():
    case = Case("DiLoCo", 5, 8, 0.3, 64, 1000, "heterogeneous", "labels", 2)
    written = json.loads(json.dumps(asdict(outcome(case, 0.95))))
    assert Outcome.read(written) == outcome(case, 0.95)
