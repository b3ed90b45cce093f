"""The story of a training: every event in words, the last thousand, and the last twenty with an error."""

from __future__ import annotations

import copy
import logging
import pickle
import time
import typing
from types import SimpleNamespace

import numpy as np
import pytest
from fsspec import AbstractFileSystem, register_implementation

from distkeras import events
from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.cluster.job import Job
from distkeras.cluster.narration import Progress, describe
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import find_interrupted
from distkeras.cluster.slots import NotEnoughSlots
from distkeras.cluster.story import Story
from distkeras.events import (
    CenterFailed,
    CenterKept,
    EpochEnded,
    EventsDropped,
    RecordFailed,
    Reported,
    RoundClosed,
    RoundOpened,
    ServerRestored,
    ServerStatus,
    SnapshotFailed,
    SnapshotWritten,
    UpdateRefused,
    Window,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)
from distkeras.wire.store import SnapshotOptions

LAST = Window(1, 2, 40, 5, 80, {}, 0, 7.0)
TOLD = [
    (
        WorkerJoined(0, 0, 0, 0, 7.0),
        "INFO",
        "Worker 0 joined: it trains from epoch 0, minibatch 0, window 0.",
    ),
    (
        WorkerJoined(1, 3, 2, 15, 7.0),
        "INFO",
        "Worker 1 joined, attempt 3: it trains from epoch 2, minibatch 15, window 41.",
    ),
    (WorkerLeft(1, 7.0), "INFO", "Worker 1 has ended after window 40, epoch 2."),
    (
        WorkerLost(1, 31.2, 7.0),
        "WARNING",
        "Worker 1 sent no heartbeat for 31 s after window 40, epoch 2.",
    ),
    (WorkerBack(0, 7.0), "WARNING", "Worker 0 is back."),
    (WorkerPhase(0, "compiling", 7.0), "DEBUG", "Worker 0 is compiling."),
    (
        WorkerFailed(1, "Traceback ...\n  a line\nKeyError: 'x'\nA note.\n", 7.0),
        "ERROR",
        "Worker 1 failed after window 40, epoch 2: KeyError: 'x'",
    ),
    (
        EpochEnded(2, 300, 9, 9, 12, b"", 3, 0.5, 0, True, 7.0),
        "INFO",
        "Epoch 2 has ended with 300 rows: 3 windows, 12 minibatches.",
    ),
    (
        EpochEnded(2, 250, 9, 9, 8, b"", 2, 0.5, 1, False, 7.0),
        "INFO",
        "A part of epoch 2 of member 1 has ended with 250 rows: 2 windows, 8 minibatches.",
    ),
    (Reported(1, "state", 9, 971, 7.0), "DEBUG", "Worker 1 has sent its local state: 971 bytes."),
    (Reported(1, "evaluation", 300, 64, 7.0), "DEBUG", "Worker 1 has sent its evaluation: 64 bytes."),
    (RoundOpened(12, 1, 4, 7.0), "INFO", "Round 12 opened by worker 1: 4 messages complete it."),
    (
        RoundClosed(12, [0, 1], 3, [2], 7.0),
        "INFO",
        "Round 12 closed with 2 of 3 workers (workers 0, 1), without worker 2, lost.",
    ),
    (
        RoundClosed(12, list(range(11)), 11, [], 7.0),
        "INFO",
        "Round 12 closed with 11 of 11 workers (workers 0, 1, 2, 3, 4, 5, 6, 7 and 3 more).",
    ),
    (
        SnapshotWritten(4_200_000, 0.312, 120, 7.0),
        "INFO",
        "A snapshot was written after 120 updates: 4.2 MB in 0.31 s.",
    ),
    (SnapshotFailed("disk full", 7.0), "WARNING", "A snapshot could not be written: disk full"),
    (
        RecordFailed("disk full", 7.0),
        "WARNING",
        "The record could not be written, and ends here: disk full",
    ),
    (
        ServerRestored([3, 4], [True, False], 70, 7, 7.0),
        "INFO",
        "The parameter server resumes from a snapshot of 7 updates: 7 windows, 1 of 2 workers have ended.",
    ),
    (
        CenterKept(640, 12, 11, 7.0),
        "DEBUG",
        "The server keeps a copy of the center at 640 rows, after commit 12.",
    ),
    (
        EventsDropped(3, 7.0),
        "WARNING",
        "3 events are missing from the history: they were read too late.",
    ),
    (CenterFailed("why", 7.0), "ERROR", "The parameter server cannot continue: why"),
    (UpdateRefused(1, 2, 41, "NaN", 7.0), "WARNING", "Window 41 of worker 1, epoch 2, was refused: NaN"),
]


@pytest.mark.parametrize(("event", "level", "text"), TOLD, ids=lambda each: type(each).__name__)
def test_every_event_is_told_in_a_sentence(event, level, text):
    assert describe(event, {1: Progress(41, 2)}) == (getattr(logging, level), text)


def test_no_kind_of_event_has_no_words():
    assert {type(event) for event, _, _ in TOLD} == set(typing.get_args(events.Event)) - {
        Window,
        ServerStatus,
    }


def test_the_last_thousand_are_kept_and_each_is_logged_once(caplog):
    story = Story()
    with caplog.at_level(logging.INFO, "distkeras"):
        for number in range(1003):
            story.take(LAST)
            story.tell(f"number {number}")
        story.take(WorkerLeft(1, 9.0))
    assert [each.text for each in story.transitions()][:2] == ["number 4", "number 5"]
    last = story.transitions()[-1]
    assert (last.timestamp, last.event) == (9.0, WorkerLeft(1, 9.0))
    assert len(story.transitions()) == 1000
    assert len(caplog.records) == 1004
    assert caplog.records[-1].name == "distkeras.events"


def test_windows_that_a_restored_server_lacks_are_trained_again():
    story = Story()
    story.take(LAST)
    story.take(ServerRestored([0, 40], [False, False], 0, 40, 7.0))
    story.take(WorkerJoined(1, 0, 2, 10, 7.0))
    story.take(WorkerLeft(1, 7.0))
    assert [each.text for each in story.transitions()[1:]] == [
        "Worker 1 joined: it trains from epoch 2, minibatch 10, window 40.",
        "Worker 1 has ended after window 39.",
    ]


def test_an_error_brings_the_last_twenty_once_and_no_secret():
    story = Story(["pa55word"])
    error = RuntimeError("what happened")
    story.add_to(error)
    assert not hasattr(error, "__notes__")
    for number in range(30):
        story.tell(f"number {number} with pa55word at s3://me:it@bucket")
    story.take(WorkerLeft(0, time.time() - 60))
    story.add_to(error)
    story.add_to(error)
    (note,) = error.__notes__
    lines = note.splitlines()
    assert len(lines) == 1 + 20
    assert lines[1].endswith("number 11 with *** at s3://***@bucket")
    assert 59 < float(lines[-1].split()[0]) < 61
    assert "pa55word" not in str(story.transitions())


class RefusingFileSystem(AbstractFileSystem):
    protocol = "refusing"

    def makedirs(self, path, exist_ok=False):
        raise PermissionError(f"403: no write access for {path} by pa55word")


def test_an_error_of_the_address_for_snapshots_does_not_repeat_its_password():
    register_implementation("refusing", RefusingFileSystem, clobber=True)
    options = ServerOptions(snapshots=SnapshotOptions("refusing://me:pa55word@host/run"))
    with pytest.raises(OSError, match=r"PermissionError: 403: no write access for \*\*\*@host/run by \*\*\*"):
        find_interrupted(options, resume=True)
    assert "pa55word" not in repr(options)


def test_a_story_may_be_copied_while_it_goes_on():
    story = Story(["pa55word"])
    story.tell("before")
    for copied in (copy.deepcopy(story), pickle.loads(pickle.dumps(story))):
        copied.tell("after pa55word")
        assert [each.text for each in copied.transitions()] == ["before", "after ***"]
    assert len(story.transitions()) == 1


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (KeyboardInterrupt(), "WARNING", "The job is cancelled: KeyboardInterrupt."),
        (NotEnoughSlots("too few"), "ERROR", "The job ends with an error: NotEnoughSlots."),
    ],
    ids=["cancelled", "error"],
)
def test_a_job_tells_how_it_ended_and_its_error_brings_that(error, level, text, monkeypatch, caplog):
    def end(*_):
        raise error

    monkeypatch.setattr(Job, "_train", end)
    task = SimpleNamespace(center=CenterConfig(DOWNPOUR(), 3), num_epoch=2)
    job = Job(task, None, None, np.zeros(5, np.float32), "jax", resume=7)
    with caplog.at_level(logging.INFO, "distkeras"), pytest.raises(type(error)) as told:
        job.run(lambda event: None)
    (note,) = told.value.__notes__
    assert "The job resumes from its last snapshot: DOWNPOUR(communication_window=5), workers: 3" in note
    assert note.endswith(text)
    assert (caplog.records[-1].levelname, caplog.records[-1].getMessage()) == (level, text)
