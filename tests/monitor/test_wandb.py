"""The monitor for W&B in the documentation works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from events_of import facts, windows

from distkeras.events import ServerRestored

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


@pytest.fixture
def calls(monkeypatch):
    """The calls of wandb, by a module that takes what wandb takes and records it."""
    made = []

    class Run:
        def define_metric(self, name, *, step_metric):
            made.append(("define_metric", name, step_metric))

        def log(self, data):
            assert all(isinstance(value, int | float) for value in data.values())
            made.append(("log", data))

        def finish(self, exit_code):
            made.append(("finish", exit_code))

    def init(*, project, name, config):
        made.append(("init", SimpleNamespace(project=project, name=name, config=config)))
        return Run()

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made


@pytest.mark.parametrize(("reason", "code"), [("finished", 0), ("error", 1)])
def test_the_documented_monitor_logs_the_curves_of_the_center(calls, reason, code):
    section = PAGE.read_text().partition("### W&B")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```py\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert sum(bool(line.strip()) for line in block.partition("class ")[2].splitlines()) <= 16
    namespace = {}
    exec(compile(block, PAGE, "exec"), namespace)
    monitor = namespace["WandB"]()
    monitor.begin(facts())
    monitor.take(windows(0, 10))
    monitor.take([ServerRestored([2, 2], [False, False], 40, 4, 1_000_003.0), *windows(4, 8)])
    monitor.end({"reason": reason})
    kinds = [call[0] for call in calls]
    assert kinds == ["init", "define_metric", *["log"] * 4, "finish"]
    assert calls[0][1].config["num_epoch"] == 3
    assert [call[1]["rows"] for call in calls if call[0] == "log"] == [40, 80, 100, 80]
    assert calls[2][1]["loss"] == pytest.approx(sum(1 / (1 + number) for number in range(4)) / 4)
    assert calls[-1] == ("finish", code)
