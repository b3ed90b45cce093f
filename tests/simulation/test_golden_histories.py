"""One run of every rule, number by number: what changes a history changes this file.

`python tests/simulation/test_golden_histories.py` writes it anew: do so only for a change of mathematics that
is meant, and say why in the commit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distkeras.algorithms import REGISTRY
from distkeras.simulation import Exponential, Failures, Network, Quadratic, simulate

GOLDEN = Path(__file__).with_name("golden_histories.json")


def history(rule):
    """Four workers of exponential step times, a slow network, lost replies and crashes: 40 commits."""
    result = simulate(
        rule(communication_window=3),
        Quadratic(curvature=(0.5, 1.0), noise=0.1, start=1.0),
        num_workers=4,
        num_commits=40,
        learning_rate=0.1,
        step_time=Exponential(1.0),
        network=Network(latency=0.2, service=0.05),
        failures=Failures(crash=0.02, lost_reply=0.05),
        seed=11,
    )
    return {
        "workers": result.workers.tolist(),
        "staleness": result.staleness.tolist(),
        "times": [float(time) for time in result.times],
        "losses": [float(loss) for loss in result.losses],
        "center": [float(weight) for weight in result.center],
    }


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_run_is_what_it_was(name):
    expected, found = json.loads(GOLDEN.read_text())[name], history(REGISTRY[name])
    assert found["workers"] == expected["workers"]
    assert found["staleness"] == expected["staleness"]
    for field in ("times", "losses", "center"):
        assert found[field] == pytest.approx(expected[field], rel=1e-4, abs=1e-7), field


if __name__ == "__main__":
    histories = {name: history(rule) for name, rule in REGISTRY.items()}
    GOLDEN.write_text(json.dumps(histories, separators=(",", ":")).replace('},"', '},\n"') + "\n")
