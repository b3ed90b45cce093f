"""Client and server over real sockets: exactly once over cuts, closed to strangers, nobody left waiting."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
from serving import TOKEN, commit, serving

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Exchanged, Joined, Rejoin
from distkeras.center.requests import DRIVER, Join, Leave, Poll, Pull
from distkeras.cluster.process import Process
from distkeras.cluster.server import ServerProcess, ServerSetup, launched
from distkeras.events import Window, WorkerFailed
from distkeras.wire import frames, shared_memory
from distkeras.wire.client import Client, JobStopped, Replaced, ServerAddress, ServerLost
from distkeras.wire.connection import Connection
from distkeras.wire.handshake import GREETING, NONCE_BYTES, SESSION_BYTES, AuthenticationError
from distkeras.wire.server import Server


@pytest.fixture(autouse=True, params=["tcp", "shared memory"] if shared_memory.AVAILABLE else ["tcp"])
def transport(request, monkeypatch):
    """Every test of this file runs over every transport."""
    monkeypatch.setattr("serving.TRANSPORT", request.param)
    return request.param


@dataclass(frozen=True)
class Mean(Algorithm):
    """c <- c + mean(d), a synchronous rule."""

    synchronous = True

    def apply(self, center, message, commit, state):
        center += message
        return center


@dataclass(frozen=True)
class Broken(Algorithm):
    def apply(self, center, message, commit, state):
        raise KeyError("no such thing")


def test_commits_of_two_workers_add_up():
    with serving() as (_, center, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        second.call(Join(1))
        first.call(commit(0, 1))
        reply = second.call(commit(1, 1, 2.0))
        assert reply.reply.tolist() == [3.0] * 4
        assert reply.staleness == 1
        assert center.num_updates == 2


def test_a_commit_whose_reply_was_lost_is_resent_and_counts_once():
    with serving() as (_, center, address), Client(address) as client:
        client.call(Join(0))
        client._connection.send(commit(0, 1))
        while center.num_updates == 0:
            time.sleep(0.01)
        client.close()  # The reply is on the wire; the worker never sees it.
        reply = client.call(commit(0, 1))
        assert reply.restart
        assert reply.reply.tolist() == [1.0] * 4
        assert center.num_updates == 1


def test_a_connection_cut_in_the_middle_of_a_commit_applies_nothing():
    with serving(size=1000) as (_, center, address):
        with Client(address) as client:
            client.call(Join(0))
            head, vector = frames.encode(commit(0, 1, size=1000))
            frame = head if client._connection.shared is not None else head + vector.tobytes()
            client._connection.stream.sock.sendall(frame[:-1])
            client.close()
            assert client.call(Pull()).center.tolist() == [0.0] * 1000
            assert client.call(commit(0, 1, size=1000)).reply.tolist() == [1.0] * 1000
        assert center.num_updates == 1


def test_a_cut_connection_is_opened_again_and_the_log_says_so_at_both_ends(caplog):
    caplog.set_level(logging.INFO, "distkeras")
    with serving() as (_, center, address), Client(address) as client:
        client.call(Join(0))
        client._connection.stream.sock.shutdown(socket.SHUT_RDWR)
        assert client.call(commit(0, 1)).reply.tolist() == [1.0] * 4
        assert center.num_updates == 1
    at_client = [record.getMessage() for record in caplog.records if record.name == "distkeras.wire.client"]
    assert [text.split(":", 2)[0] for text in at_client] == ["The connection to 127.0.0.1"] * 2
    assert "of worker 0 is lost; reconnecting: " in at_client[0]
    assert at_client[1].endswith("of worker 0 is restored.")
    assert "Worker 0 is connected again." in caplog.text


def test_exchanges_are_in_the_log_at_debug_alone(caplog):
    for level, expected in ((logging.INFO, 0), (logging.DEBUG, 1)):
        caplog.clear()
        caplog.set_level(level, "distkeras")
        with serving() as (_, _, address), Client(address) as client:
            client.call(Join(0))
            client.call(commit(0, 1))
            client.call(Leave(0))  # When it is answered, the exchange before it has been told of.
        told = [text for record in caplog.records if "Exchange of worker" in (text := record.getMessage())]
        assert len(told) == expected
    assert "Exchange of worker 0: sequence 1, epoch 0, Exchanged, staleness 0, 16 bytes, " in told[0]


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_check():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        pytest.raises(ServerLost, match=r"could not be reached.*Check that the executors"),
        Client(ServerAddress("127.0.0.1", port, TOKEN, 4), patience=0.2) as client,
    ):
        client.call(Join(0))


def test_a_client_with_the_wrong_token_gets_nothing():
    with serving() as (_, center, address):
        stranger = ServerAddress(address.host, address.port, b"s" * 32, address.size)
        with pytest.raises(ServerLost), Client(stranger, patience=0.0) as client:
            client.call(commit(0, 1))
        assert center.num_updates == 0


def test_a_server_with_the_wrong_token_is_not_believed():
    with socket.create_server(("127.0.0.1", 0)) as impostor:

        def pretend():
            sock, _ = impostor.accept()
            with sock:
                sock.sendall(GREETING + bytes(32))
                sock.recv(NONCE_BYTES + SESSION_BYTES + 32, socket.MSG_WAITALL)
                sock.sendall(bytes(32))

        thread = threading.Thread(target=pretend)
        thread.start()
        address = ServerAddress("127.0.0.1", impostor.getsockname()[1], TOKEN, 4)
        with pytest.raises(AuthenticationError, match="prove"), Client(address) as client:
            client.call(Join(0))
        thread.join(5)


def test_the_token_is_in_no_log():
    assert "tttt" not in repr(ServerAddress("h", 1, TOKEN, 4))


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(40),
        frames.HEADER.pack(frames.MAGIC, frames.VERSION, 2, 0, 2, 2**62, 0) + b"\x91\x00" + bytes(40),
        frames.HEADER.pack(frames.MAGIC, frames.VERSION, 2, 0, 2**32 - 1, 16, 0),
        frames.HEADER.pack(frames.MAGIC, frames.VERSION, 1, 0, 2, 0, 0) + b"\x91\x00" + bytes(40),
        frames.HEADER.pack(frames.MAGIC, frames.VERSION, 66, 0, 2, 16, 0)
        + b"\x91\x00"
        + bytes(40)
        + bytes(16),
    ],
)
def test_rubbish_ends_the_connection_and_leaves_the_center(rubbish):
    with serving() as (_, center, address), Client(address) as client:
        client.call(Join(0))
        client._connection.stream.sock.sendall(rubbish)
        client._connection.stream.sock.settimeout(5)
        with pytest.raises(ConnectionError):
            client._connection.receive(np.empty(4, np.float32))
        assert center.num_updates == 0
        assert center.snapshot().tolist() == [0.0] * 4


def test_nothing_is_kept_of_a_worker_that_the_job_does_not_have():
    with serving() as (server, center, address), Client(address, patience=0.0) as client:
        for worker in (2, -2, 2**62):
            with pytest.raises(ServerLost):
                client.call(Join(worker))
        assert not server._admission._owners
        assert not server._admission._waiting
        assert center.event_log.read(0).events == []


def test_a_commit_out_of_sequence_ends_the_connection():
    with serving() as (_, center, address), Client(address, patience=0.0) as client:
        client.call(Join(0))
        with pytest.raises(ServerLost):
            client.call(commit(0, 7))
        assert center.num_updates == 0


def test_workers_of_a_synchronous_round_are_answered_together():
    with serving(Mean()) as (_, center, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        second.call(Join(1))
        replies = []
        thread = threading.Thread(target=lambda: replies.append(first.call(commit(0, 1, 1.0)).reply.tolist()))
        thread.start()
        replies.append(second.call(commit(1, 1, 3.0)).reply.tolist())
        thread.join(5)
        assert replies == [[2.0] * 4, [2.0] * 4]
        assert center.num_updates == 1


def test_a_worker_that_leaves_completes_the_round_of_the_others():
    with serving(Mean()) as (_, _, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        second.call(Join(1))
        replies = []
        thread = threading.Thread(target=lambda: replies.append(first.call(commit(0, 1, 1.0)).reply.tolist()))
        thread.start()
        second.call(Leave(1))
        thread.join(5)
        assert replies == [[1.0] * 4]


def test_a_reconnected_worker_of_an_open_round_is_the_one_that_is_answered():
    with serving(Mean()) as (_, center, address), Client(address) as second:
        second.call(Join(1))
        with Client(address) as cut:
            cut.call(Join(0))
            cut._connection.send(commit(0, 1, 5.0))
            while not center._rounds.messages:
                time.sleep(0.01)
        with Client(address) as again:
            again._session = cut._session
            replies = []
            thread = threading.Thread(target=lambda: replies.append(again.call(commit(0, 1, 5.0))))
            thread.start()
            assert second.call(commit(1, 1, 1.0)).reply.tolist() == [3.0] * 4
            thread.join(5)
            assert [reply.reply.tolist() for reply in replies] == [[3.0] * 4]


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), Mean()])
@pytest.mark.parametrize("late", [commit(0, 1, 9.0), Leave(0), Join(0)])
def test_a_process_that_was_replaced_is_stopped_and_disturbs_nobody(algorithm, late):
    with serving(algorithm, 1) as (_, center, address), Client(address) as old, Client(address) as new:
        old.call(Join(0))
        new.call(Join(0, 1))
        with pytest.raises(Replaced, match="Another process"):
            old.call(late)
        assert new.call(commit(0, 1)).reply.tolist() == [1.0] * 4
        assert not new.call(commit(0, 2)).restart
        assert center.num_updates == 2


def test_a_process_that_was_replaced_does_not_come_back_through_a_server_that_was_started_again():
    with serving(num_workers=1) as (_, center, address), Client(address) as old, Client(address) as new:
        # The new server has seen neither; the old process is the first to speak, and commits a window.
        assert isinstance(old.call(commit(0, 3)), Rejoin)
        assert old.call(Join(0, 0, ticket=4)).sequence == 0
        old.call(commit(0, 1))
        assert isinstance(new.call(commit(0, 2)), Rejoin)
        assert new.call(Join(0, 1, ticket=9)).sequence == 1
        with pytest.raises(Replaced, match="Another process"):
            old.call(Join(0, 0, ticket=4))
        assert new.call(commit(0, 2)).reply.tolist() == [2.0] * 4
        with Client(address) as oldest, pytest.raises(Replaced, match="Another process"):
            oldest.call(Join(0, 0, ticket=3))
        assert new.call(commit(0, 3)).reply.tolist() == [3.0] * 4
        assert center.num_updates == 3


def test_an_answer_to_a_cut_connection_is_not_taken_for_that_of_the_next_round():
    with serving(Mean()) as (server, center, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        second.call(Join(1))

        def round_of(sequence):
            replies = []
            thread = threading.Thread(target=lambda: replies.append(first.call(commit(0, sequence))))
            thread.start()
            second.call(commit(1, sequence))
            thread.join(5)
            return replies[0].reply.tolist()

        assert round_of(1) == [1.0] * 4
        handle = center.handle

        def slowly(request):
            # Another thread has closed round 1 and brings its answer only now.
            answer = (0, Exchanged(np.full(4, 7, np.float32), 0))
            server._deliver([answer], server._admission._waiting[0], DRIVER)
            return handle(request)

        center.handle = slowly
        assert first.call(commit(0, 1)).restart
        center.handle = handle
        assert round_of(2) == [2.0] * 4


def test_a_round_may_last_longer_than_timeout_and_patience_together():
    with (
        serving(Mean()) as (_, _, address),
        Client(address, timeout=0.1, patience=0.0) as first,
        Client(address) as second,
    ):
        first.call(Join(0))
        second.call(Join(1))
        replies = []
        thread = threading.Thread(target=lambda: replies.append(first.call(commit(0, 1)).reply.tolist()))
        thread.start()
        time.sleep(0.6)
        second.call(commit(1, 1, 3.0))
        thread.join(5)
        assert replies == [[2.0] * 4]


def test_a_connection_that_breaks_off_before_it_is_accepted_does_not_close_the_port():
    center = Center(CenterConfig(DOWNPOUR()), np.zeros(4, np.float32), clock=time.time)
    server = Server(center, TOKEN, "127.0.0.1")
    listener = server._reception.listeners[0]

    class BreaksOffOnce:
        accepted = 0

        def __getattr__(self, name):
            return getattr(listener, name)

        def accept(self):
            self.accepted += 1
            if self.accepted == 1:
                raise ConnectionAbortedError("gone already")
            return listener.accept()

    server._reception.listeners[0] = BreaksOffOnce()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    with Client(ServerAddress("127.0.0.1", server.port, TOKEN, 4), patience=5.0) as client:
        client.call(Join(0))
    server.close()
    thread.join(5)
    assert not thread.is_alive()


def test_stopping_the_job_wakes_those_who_wait_and_tells_the_others():
    with serving(Mean()) as (server, _, address), Client(address) as first, Client(address) as second:
        first.call(Join(0))
        stopped = []

        def wait():
            try:
                first.call(commit(0, 1))
            except JobStopped as stop:
                stopped.append(str(stop))

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        server.stop("enough")
        thread.join(5)
        assert stopped == ["enough"]
        with pytest.raises(JobStopped, match="enough"):
            second.call(Join(1))
        assert second.call(Pull()).num_updates == 0  # The driver may still ask.


def test_an_exception_in_the_rule_reaches_the_driver_with_its_traceback():
    with serving(Broken()) as (_, _, address), Client(address) as client:
        client.call(Join(0))
        client.call(commit(0, 1))
        failures = [event for event in client.call(Poll()).events if isinstance(event, WorkerFailed)]
        assert len(failures) == 1
        assert "no such thing" in failures[0].error
        assert "in apply" in failures[0].error


def test_the_driver_reads_every_event_once():
    with serving() as (_, _, address), Client(address) as client, Client(address) as driver:
        client.call(Join(0))
        client.call(commit(0, 1))
        first = driver.call(Poll())
        assert [type(event).__name__ for event in first.events] == ["WorkerJoined", "Window"]
        client.call(commit(0, 2))
        second = driver.call(Poll(first.next))
        assert [event.iteration for event in second.events if isinstance(event, Window)] == [1]
        assert driver.call(Poll(second.next)).events == []


def test_many_workers_exchange_side_by_side():
    with serving(num_workers=32, size=1000) as (_, center, address):

        def work(worker):
            with Client(address) as client:
                client.call(Join(worker))
                for sequence in range(1, 11):
                    client.call(commit(worker, sequence, size=1000))
                client.call(Leave(worker))

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert center.num_updates == 320
        assert center.snapshot().tolist() == [320.0] * 1000


def test_a_silent_stranger_is_dropped(monkeypatch):
    monkeypatch.setattr("distkeras.wire.handshake.HANDSHAKE_SECONDS", 0.2)
    with serving() as (_, _, address), socket.create_connection((address.host, address.port)) as sock:
        sock.settimeout(5)
        greeting = b""
        while chunk := sock.recv(4096):  # Ends when the server hangs up.
            greeting += chunk
        assert len(greeting) == len(GREETING) + 32


def test_the_server_process_ends_with_a_driver_that_was_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import numpy as np
        from distkeras.algorithms import DOWNPOUR
        from distkeras.center import CenterConfig
        from distkeras.cluster.server import ServerProcess, ServerSetup

        server = ServerProcess(ServerSetup(CenterConfig(DOWNPOUR())), np.zeros(4, np.float32))
        print(server._process.pid, flush=True)
        time.sleep(60)
        """)
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pid = int(driver.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert alive == []


def test_a_process_that_was_launched_ahead_serves_and_one_that_was_not_needed_ends():
    with launched(2) as processes:
        pids = {process.pid for process in processes}
        setup = ServerSetup(CenterConfig(DOWNPOUR()))
        with ServerProcess(setup, np.zeros(4, np.float32), launched=processes) as server:
            (spare,) = processes
            assert pids == {server._process.pid, spare.pid}
            with Client(server.address) as client:
                assert client.call(Pull()).center.tolist() == [0.0] * 4
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_process_that_is_told_no_job_ends_without_a_word():
    process = Process()
    process.hang_up()
    assert process.wait(60) == 0
    assert process.died() == "The parameter server's process ended with exit code 0."


def test_a_joined_worker_is_given_a_center_that_later_commits_do_not_change():
    with serving() as (_, _, address), Client(address) as first, Client(address) as second:
        joined = first.call(Join(0))
        assert isinstance(joined, Joined)
        second.call(Join(1))
        second.call(commit(1, 1))
        assert joined.center.tolist() == [0.0] * 4


def test_a_frame_is_sent_whole_when_the_socket_takes_it_in_parts():
    left, right = socket.socketpair(socket.AF_UNIX)
    sender = Connection(left, frames.REPLIES, 2**16)
    receiver = Connection(right, frames.REQUESTS, 2**16)
    size = 3_000_000
    message = commit(0, 1, 0.5, size)
    thread = threading.Thread(target=sender.send, args=(message,))
    thread.start()
    received = receiver.receive(np.empty(size, np.float32))
    thread.join(5)
    assert received.message.sum() == size / 2
    left.close()
    right.close()
