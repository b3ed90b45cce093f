"""The progress bar: what it says before, during and after a training, in a terminal, a notebook or a file."""

from __future__ import annotations

import os
import pty
import re
import sys
import time
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from distkeras.events import (
    EpochEnded,
    ServerRestored,
    Window,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)
from distkeras.monitor import screens
from distkeras.monitor.progress import ProgressBar, checked_verbose
from distkeras.monitor.progress_line import lines_of, seconds_text
from distkeras.monitor.progress_state import Aim, Progress

NOW = 0.0


class Clock:
    """Time that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def window(worker, iteration, loss=1.0, samples=10, **metrics):
    return Window(worker, 0, iteration, 1, samples, {"loss": loss, **metrics}, 0, NOW)


def restored(samples, commits):
    return ServerRestored(commits, [False] * len(commits), samples, sum(commits), NOW)


def epoch_ended(epoch, member=0):
    return EpochEnded(epoch, 0, 0, 0, 0, b"", 0, 0.0, member, True, NOW)


def aim(rows=100, num_epoch=4, members=1, **further):
    return Aim((lambda epoch: rows * (epoch + 1),) * members, num_epoch, **further)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return Progress(clock)


def text(progress, width=200, **options):
    return "\n".join(lines_of("ADAG, 2 workers", progress, width, **options))


def test_it_says_what_is_waited_for_and_for_how_long(progress, clock):
    progress.waits("counts and checks the rows")
    clock.now += 3
    progress.waits("counts and checks the rows")
    assert text(progress) == "ADAG, 2 workers  counts and checks the rows, 3 s"
    progress.begin(aim(workers=4))
    progress.waits("starts the workers")
    clock.now += 65
    assert text(progress).endswith("starts the workers, 1:05")
    progress.lack_slots(2)
    assert text(progress).endswith("waits for workers: 2 without a task slot, 2 starting, 1:05")
    progress.lack_slots(0)
    progress.take(WorkerPhase(0, "importing", NOW))
    progress.take(WorkerPhase(1, "importing", NOW))
    progress.take(WorkerJoined(2, 0, 0, 0, NOW))
    assert "1 starting, 2 importing Keras, 1 compiling" in text(progress)


def test_epoch_share_speed_means_and_time_left_are_those_of_the_events(progress, clock):
    progress.begin(aim(workers=2))
    for iteration, loss in enumerate((4.0, 2.0, 6.0)):
        progress.take(window(iteration % 2, iteration // 2, loss, samples=20, accuracy=0.5))
        clock.now += 1
    # 20 of the 60 rows came at the begin of these 3 seconds.
    assert text(progress).split("  ")[0:2] == ["ADAG, 2 workers", "epoch 1/4"]
    assert " 15%  13 rows/s  loss 4.0000  accuracy 0.5000  26 s left" in text(progress)
    progress.take(window(0, 2, 4.0, samples=40))
    progress.take(epoch_ended(0))
    progress.epoch({"loss": 4.0, "val_loss": 0.25, "val_accuracy": 0.75})
    assert "epoch 2/4" in text(progress)
    progress.take(window(1, 1, 1.0))  # The means of an epoch begin with its first window.
    assert "loss 1.0000  val_loss 0.2500  val_accuracy 0.7500" in text(progress)
    assert progress.models[0].rows == 110


def test_what_does_not_fit_is_left_out_and_the_rest_stays_in_one_line(progress, clock):
    progress.begin(aim(workers=2))
    for iteration in range(4):
        progress.take(window(iteration % 2, iteration // 2, accuracy=0.5))
        clock.now += 1
    progress.epoch({"val_loss": 0.25})
    widths = range(12, 140)
    lines = {width: lines_of("ADAG, 2 workers", progress, width) for width in widths}
    assert all(len(lines[width]) == 1 and len(lines[width][0]) <= width for width in widths)
    assert "loss" in lines[79][0]
    assert "left" in lines[79][0]
    assert "━" in lines[79][0]
    assert "accuracy" not in lines[60][0]
    assert lines[139][0].endswith("left")


def test_a_restored_server_takes_rows_and_epochs_back(progress, clock):
    progress.begin(aim(num_epoch=2))
    for iteration in range(12):
        progress.take(window(0, iteration))
        clock.now += 1
    assert "epoch 2/2" in text(progress)
    progress.take(restored(80, [8]))
    assert progress.models[0].rows == 80
    assert "epoch 1/2" in text(progress)
    assert " 40%" in text(progress)
    for iteration in range(8, 20):
        progress.take(window(0, iteration))
    assert "epoch 2/2" in text(progress)
    assert text(progress).endswith("completes the model")
    assert text(progress, ended=True).endswith("in 12 s")


def test_a_resumed_training_counts_from_where_it_goes_on(progress, clock):
    progress.begin(aim(num_epoch=3, first=2))  # After two epochs, from a checkpoint.
    progress.take(window(0, 0))
    assert "epoch 3/5" in text(progress)
    progress = Progress(clock)
    progress.begin(aim(num_epoch=5))  # From a snapshot of the third epoch.
    progress.take(restored(230, [23]))
    progress.take(window(0, 23))
    assert "epoch 3/5" in text(progress)
    assert " 48%" in text(progress)


def test_each_member_of_an_ensemble_has_a_line(progress, clock):
    progress.begin(aim(num_epoch=2, members=2, workers=2))
    for iteration in range(10):
        progress.take(window(0, iteration, 3.0))
        clock.now += 1
    progress.take(window(1, 0, 2.0))
    progress.epoch({"val_loss": 0.5}, member=1)
    first, second = lines_of("EnsembleTrainer, 2 members", progress, 200)
    assert first.startswith("member 0  epoch 1/2")
    assert " 50%" in first
    assert "rows/s" in first
    assert "left" in first
    assert second.startswith("member 1  epoch 1/2")
    assert "loss 2.0000  val_loss 0.5000" in second
    assert "rows/s" not in second  # The first line has it for all.
    (together,) = lines_of("EnsembleTrainer, 2 members", progress, 200, most=1)
    assert "EnsembleTrainer, 2 members  epoch 1/2" in together
    assert " 28%" in together
    progress.take(restored(60, [5, 1]))
    assert [model.rows for model in progress.models] == [50, 10]


def test_it_says_which_workers_are_missing_and_that_nothing_comes(progress, clock):
    progress.begin(aim(workers=2))
    progress.take(window(0, 0))
    progress.take(WorkerLost(1, 3.0, NOW))
    assert "1 lost" in text(progress)
    clock.now += 20
    assert "1 lost, no window for 20 s" in text(progress)
    progress.take(WorkerLeft(0, NOW))
    progress.take(WorkerLeft(1, NOW))
    assert progress.missing() == ""


def test_durations_are_short():
    assert [seconds_text(each) for each in (0.4, 59.6, 61, 3600, 7322)] == [
        "0 s",
        "1:00",
        "1:01",
        "1:00:00",
        "2:02:02",
    ]


@pytest.mark.parametrize("verbose", [3, -1, "yes", None])
def test_verbose_is_one_of_four(verbose):
    with pytest.raises(ValueError, match=r'`verbose` must be 0, 1, 2 or "auto". Received: verbose='):
        checked_verbose(verbose)


def run(bar, clock=None):
    """Let a bar follow two epochs of 20 rows."""
    with bar:
        bar.waits("counts and checks the rows")
        time.sleep(0.3)
        bar.begin(aim(rows=20, num_epoch=2))
        for iteration in range(4):
            bar(window(0, iteration, loss=0.5 + iteration))
            if clock is not None:
                clock.now += 1
            if iteration % 2:
                bar(epoch_ended(iteration // 2))
        time.sleep(0.3)


def test_in_a_file_it_prints_a_line_an_epoch_only_if_asked_to(capsys, clock):
    run(ProgressBar("ADAG", "auto"))
    run(ProgressBar("ADAG", 0))
    assert capsys.readouterr() == ("", "")
    for verbose in (1, 2):
        run(ProgressBar("ADAG", verbose, clock=clock), clock)
        assert capsys.readouterr() == (
            "epoch 1/2  2 s  10 rows/s  loss 1.0000\nepoch 2/2  2 s  10 rows/s  loss 3.0000\n",
            "",
        )


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def terminal(monkeypatch):
    """A real pseudo-terminal as standard error; yield the function that reads what came there."""
    own, theirs = pty.openpty()
    os.set_blocking(own, False)
    with monkeypatch.context() as patch, os.fdopen(theirs, "w", buffering=1) as stream:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("COLUMNS", "90")
        patch.setenv("TERM", "xterm")

        def read():
            found = b""
            while True:
                try:
                    found += os.read(own, 65536)
                except BlockingIOError:
                    return found.decode()

        yield read
    os.close(own)


def test_in_a_terminal_it_draws_one_line_again_and_again(monkeypatch, capsys):
    with terminal(monkeypatch) as read:
        own = sys.stderr
        with ProgressBar("DOWNPOUR", "auto") as other:  # Two trainings at once.
            other.waits("starts the parameter server")
            run(ProgressBar("ADAG", "auto"))
            print("printed meanwhile", file=sys.stderr)
        raw = read()
        assert sys.stderr is own
    shown = ESCAPE.sub("", raw)
    assert "ADAG  counts and checks the rows, 0 s" in shown
    assert "DOWNPOUR  starts the parameter server, 0 s" in shown
    assert "ADAG  epoch 2/2" in shown
    assert "100%" in shown
    assert "printed meanwhile" in shown
    assert capsys.readouterr().out == ""
    assert "\x1b[2K" in raw  # It erases the line, and draws it again.
    assert raw.rstrip().endswith("\x1b[?25h")  # The cursor is back.


def test_in_fit_it_ends_with_the_first_window_without_a_trace(monkeypatch):
    with terminal(monkeypatch) as read:
        run(ProgressBar("ADAG", "auto", only_waits=True))
        shown = ESCAPE.sub("", read())
    assert "ADAG  counts and checks the rows, 0 s" in shown
    assert "epoch" not in shown


def test_in_a_notebook_one_display_is_updated(monkeypatch):
    """IPython's own display needs a kernel: here its two methods are recorded."""
    made, updated = [], []

    class Handle:
        def update(self, bundle, *, raw):
            assert raw
            updated.append(bundle)

    def display(bundle, *, raw, display_id):
        assert raw
        assert display_id is True
        made.append(bundle)
        return Handle()

    module = ModuleType("IPython.display")
    module.display = display
    ipython, shell = ModuleType("IPython"), SimpleNamespace()
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(screens, "NOTEBOOK_SECONDS", 0.05)
    run(ProgressBar("ADAG <1>", "auto"))
    assert made == []  # IPython runs, but in no notebook.
    shell.kernel = object()
    run(ProgressBar("ADAG <1>", "auto"))
    assert len(made) == 1
    assert made[0]["text/plain"] == "ADAG <1>  begins, 0 s"
    assert "ADAG &lt;1&gt;  counts and checks the rows" in updated[0]["text/html"]
    assert "epoch 2/2" in updated[-1]["text/plain"]
    assert "100%" in updated[-1]["text/plain"]
