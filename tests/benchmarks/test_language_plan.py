"""The plan of `benchmarks/language.py`: its text, its runs, and what a file keeps."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from characters.cases import ALONE, METHODS, TOGETHER, Case, Outcome, Plan
from characters.shown import draw, table, time_to
from characters.text import CHARACTERS, CONTEXT, HELD_OUT, MODULES, NUM_TOKENS, facts, rows, tokens_of

PLAN = Plan(methods=(ALONE, "DiLoCo", "DyLU"), rates=(0.1, 0.2), tuning_tokens=100, tokens=1000, seeds=2)


def outcome(case, perplexity):
    curve = [(0.0, 0, 0, 100.0), (10.0, case.tokens // 2, 500, 10.0), (20.0, case.tokens, 1000, perplexity)]
    return Outcome(case, perplexity, curve, 0.5)


def tuned(best):
    return [outcome(case, 5.0 if case.rate == best[case.method] else math.inf) for case in PLAN.tuning()]


def test_every_character_is_a_token_and_targets_are_the_next_tokens():
    assert tokens_of(" ~\n\té").tolist() == [0, 94, NUM_TOKENS - 2, NUM_TOKENS - 1, NUM_TOKENS - 1]
    (inputs, targets), (held_out, _) = rows()
    assert inputs.shape == targets.shape == (len(MODULES) * ((CHARACTERS - HELD_OUT - 2) // CONTEXT), CONTEXT)
    assert held_out.shape == (len(MODULES) * HELD_OUT // CONTEXT, CONTEXT)
    np.testing.assert_array_equal(inputs[0, 1:], targets[0, :-1])
    assert inputs.min() >= 0
    assert inputs.max() < NUM_TOKENS
    assert facts()["characters"] == len(MODULES) * CHARACTERS


def test_each_method_is_run_at_its_own_best_rate():
    best = {ALONE: 0.1, "DiLoCo": 0.2, "DyLU": 0.1}
    cases = list(PLAN.chosen(tuned(best)))
    assert {case.method: case.rate for case in cases} == best
    assert [case for case in cases if case.machines != "gamma"] == [
        Case("DiLoCo", 0.2, 1000, "heterogeneous"),
        Case("DyLU", 0.1, 1000, "heterogeneous"),
    ]
    assert sum(case.seed == 1 for case in cases) == 3
    assert len(set(cases)) == len(cases) == 8


def test_methods_exchange_the_same_weights_equally_often():
    for name, method in METHODS.items():
        assert method.algorithm().communication_window == 10
        assert (method.num_workers == 1) == (name in (ALONE, TOGETHER))


def test_a_run_that_diverged_is_kept_and_is_never_the_best():
    case = PLAN.tuning().__next__()
    row = json.loads(json.dumps(asdict(replace(outcome(case, 5.0), perplexity=None))))
    assert Outcome.read(row).perplexity == math.inf
    assert PLAN.best_rates([outcome(case, math.inf), outcome(replace(case, rate=0.2), 9.0)]) == {ALONE: 0.2}


def test_table_and_figure_show_what_there_is(tmp_path):
    outcomes = tuned({ALONE: 0.1, "DiLoCo": 0.2, "DyLU": 0.1})
    assert not draw(outcomes, PLAN, tmp_path / "none.png")
    outcomes += [outcome(case, 5.0) for case in PLAN.chosen(outcomes)]
    assert "| DiLoCo | 0.2 | 2 | 5.00 |" in table(outcomes, PLAN)
    assert time_to(outcomes[-1], 10.0) == 10.0
    assert 10.0 < time_to(outcomes[-1], 7.0) < 20.0
    assert time_to(outcomes[-1], 4.0) is None
    assert draw(outcomes, PLAN, tmp_path / "some.png")
