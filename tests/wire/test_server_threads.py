"""No thread of the server ends by an exception unseen: it goes on, or the job ends with a message."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from serving import serving

from distkeras.algorithms import Algorithm
from distkeras.center.answers import Refused
from distkeras.center.requests import Exchange, Join, Poll
from distkeras.events import WorkerFailed
from distkeras.wire.client import Client


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()], ids=repr)
def test_a_connection_for_which_there_is_no_thread_does_not_keep_out_the_next(monkeypatch, caplog, error):
    start, refused = threading.Thread.start, []

    def fail_at_first(thread):
        if thread.name.endswith("connection") and len(refused) < 3:
            refused.append(thread)
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_at_first)
    with serving() as (_, _, address), Client(address, patience=20.0) as client:
        assert client.call(Join(0)).sequence == 0
    assert len(refused) == 3
    assert "Could not accept a connection" in caplog.text


def test_an_unforeseen_error_in_a_connection_is_logged_and_the_worker_connects_again(monkeypatch, caplog):
    failures = [MemoryError("no room for the buffer")]
    with serving() as (server, _, address), Client(address, patience=20.0) as client:
        answer = server._answer

        def fail_once(*args):
            if failures:
                raise failures.pop()
            return answer(*args)

        monkeypatch.setattr(server, "_answer", fail_once)
        with caplog.at_level(logging.ERROR):
            assert client.call(Join(0)).sequence == 0
    assert "no room for the buffer" in caplog.text


@dataclass(frozen=True)
class Broken(Algorithm):
    synchronous: ClassVar[bool] = True

    def apply(self, center, message, commit, state):
        raise ZeroDivisionError("a bug of the rule")


def test_a_rule_that_fails_in_a_round_without_a_lost_worker_ends_the_job_and_nobody_waits():
    with (
        serving(Broken(), heartbeat=0.4, without_lost=True) as (_, _, address),
        Client(address) as first,
        Client(address) as lost,
    ):
        lost.call(Join(1))
        first.call(Join(0))
        # It waits for the other, which is silent.
        reply = first.call(Exchange(0, 1, 1, 1, 0, 1, np.ones(4, np.float32)))
        assert isinstance(reply, Refused)
        assert "a bug of the rule" in reply.reason
        events = first.call(Poll()).events
        (failed,) = [event for event in events if isinstance(event, WorkerFailed)]
        assert "the silence of worker 1" in failed.error
        assert "ZeroDivisionError: a bug of the rule" in failed.error
        # Silence is watched on: worker 0 says no more, and is missed in its turn.
        first.close()
        deadline = time.monotonic() + 20
        while not any(type(event).__name__ == "WorkerLost" and event.worker == 0 for event in events):
            assert time.monotonic() < deadline
            time.sleep(0.05)
            events = lost.call(Poll()).events


def test_the_process_ends_with_a_thread_of_the_server_but_not_with_one_of_the_rule():
    code = """
import threading
from distkeras.wire.serve import end_on_error
threading.excepthook = end_on_error
def fail():
    raise LookupError("gone")
for name in ("theirs", "distkeras-silence"):
    thread = threading.Thread(target=fail, name=name)
    thread.start()
    thread.join()
    print("after", name, flush=True)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == "after theirs\n"
    assert run.stderr.count("LookupError: gone") == 2
