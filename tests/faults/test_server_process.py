"""A server's process: what it prints, what it imports, when it ends, and what it says of its end."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from distkeras.algorithms import DOWNPOUR, Algorithm, LocalSGD
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Join
from distkeras.cluster import server as cluster_server
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.process import Process
from distkeras.cluster.server import ServerFailed, ServerProcess, ServerSetup, launched
from distkeras.wire.client import Client, ServerLost
from distkeras.wire.store import SnapshotOptions, Store, seconds_to_write

SIZE = 4


def serve(rule, **options):
    setup = ServerSetup(CenterConfig(rule), options=ServerOptions(**options))
    return ServerProcess(setup, np.zeros(SIZE, np.float32))


def commits(address, count):
    with Client(address, patience=5.0) as client:
        client.call(Join(0))
        for sequence in range(1, count + 1):
            message = Exchange(0, sequence, 1, 1, 0, sequence, np.ones(SIZE, np.float32))
            center = client.call(message).reply
        return center.tolist()


@dataclass(frozen=True)
class Chatty(Algorithm):
    """Prints more than a pipe holds."""

    def apply(self, center, message, commit, state):
        print("x" * 10_000)
        print("Q" * 10_000, file=sys.stderr)
        center += message
        return center


def killed(processes):
    (process,) = processes
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return processes


def test_a_server_that_is_killed_before_it_is_up_is_started_again():
    setup = ServerSetup(CenterConfig(DOWNPOUR()))
    with (
        launched(1) as processes,
        ServerProcess(setup, np.zeros(SIZE, np.float32), launched=killed(processes)) as server,
    ):
        assert commits(server.address, 2) == [2.0] * SIZE


def test_a_server_that_is_killed_before_it_is_up_ends_the_job_where_no_restart_is_left():
    setup = ServerSetup(CenterConfig(DOWNPOUR()), options=ServerOptions(restarts=0))
    with launched(1) as processes, pytest.raises(ServerFailed, match="killed by signal 9"):
        ServerProcess(setup, np.zeros(SIZE, np.float32), launched=killed(processes))


def test_a_rule_may_print_as_much_as_it_likes(capfd, caplog):
    caplog.set_level(logging.WARNING)
    with serve(Chatty()) as server:
        assert commits(server.address, 20) == [20.0] * SIZE
    server._process.died()
    assert capfd.readouterr().out.count("x") == 200_000
    assert caplog.text.count("Q") == 200_000  # Standard error stands in the driver's log.


def test_a_module_of_the_rule_may_print_and_read_when_it_is_imported(tmp_path, monkeypatch, capfd):
    (tmp_path / "chatty_rule.py").write_text(
        textwrap.dedent("""
        import sys
        from distkeras.algorithms import DOWNPOUR
        print("rule 1.0 is loaded")
        print("and reads", repr(sys.stdin.read()))
        class Rule(DOWNPOUR):
            pass
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.delitem(sys.modules, "chatty_rule", raising=False)  # `make soak` has imported it before.
    from chatty_rule import Rule

    with serve(Rule()) as server:
        assert commits(server.address, 1) == [1.0] * SIZE
    assert capfd.readouterr().out == "rule 1.0 is loaded\nand reads ''\n" * 2


def test_modules_come_from_the_path_of_the_driver_not_from_the_working_directory(tmp_path, monkeypatch):
    for name in ("msgspec", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the working directory')")
    monkeypatch.chdir(tmp_path)
    with serve(DOWNPOUR()) as server:
        assert commits(server.address, 1) == [1.0] * SIZE


def test_the_working_directory_is_on_the_path_where_it_is_on_that_of_the_driver(tmp_path, monkeypatch):
    (tmp_path / "rule_here.py").write_text(
        "from distkeras.algorithms import DOWNPOUR\nclass Rule(DOWNPOUR):\n    pass"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    from rule_here import Rule

    with serve(Rule()) as server:
        assert commits(server.address, 1) == [1.0] * SIZE


def test_a_server_that_does_not_come_up_says_why(tmp_path, monkeypatch):
    module = tmp_path / "rule_of_the_driver.py"
    module.write_text("from distkeras.algorithms import DOWNPOUR\nclass Rule(DOWNPOUR):\n    pass")
    monkeypatch.syspath_prepend(tmp_path)
    from rule_of_the_driver import Rule

    module.write_text("raise LookupError('the driver has changed')")
    with pytest.raises(ServerFailed, match=r"(?s)exit code 1.*LookupError: the driver has changed"):
        serve(Rule())


FORKING = """
import os, sys, time
import numpy as np
from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.cluster.server import ServerProcess, ServerSetup, launched

with launched(2) as processes:
    server = ServerProcess(ServerSetup(CenterConfig(DOWNPOUR())), np.zeros(4, np.float32), launched=processes)
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(server._process.pid, processes[0].pid, child, server._folder, flush=True)
    time.sleep(60)
"""


def test_a_server_that_is_killed_while_it_is_started_again_is_started_once_more(tmp_path, monkeypatch):
    def killed_process():
        process = Process()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return process

    with serve(DOWNPOUR(), snapshots=SnapshotOptions(str(tmp_path), commits=1), restarts=2) as server:
        commits(server.address, 2)
        os.kill(server._process.pid, signal.SIGKILL)
        processes = [Process(), killed_process()]
        monkeypatch.setattr(cluster_server, "Process", lambda: processes.pop())
        assert server.revive(0, 5.0)
        assert processes == []
        os.kill(server._process.pid, signal.SIGKILL)
        with pytest.raises(ServerFailed, match="was killed by signal 9"):  # Each start counts.
            server.revive(0, 5.0)


def test_workers_may_be_told_to_stop_when_a_server_could_not_be_started_again(tmp_path):
    folder = tmp_path / "snapshots"
    with serve(DOWNPOUR(), snapshots=SnapshotOptions(str(folder), commits=1)) as server:
        commits(server.address, 2)
        os.kill(server._process.pid, signal.SIGKILL)
        other = Store(str(folder))
        other.take()  # It may not write there any more.
        with pytest.raises(ServerFailed, match="Another run has taken over"):
            server.revive(0, 5.0)
        server.stop("The job is over.")  # No error of its own takes the place of that one.


def test_a_child_that_the_driver_forked_keeps_no_server_alive():
    driver = subprocess.Popen([sys.executable, "-c", FORKING], stdout=subprocess.PIPE, text=True)
    server, spare, child, folder = driver.stdout.readline().split()
    servers = [psutil.Process(int(pid)) for pid in (server, spare)]
    try:
        driver.kill()
        driver.wait()
        driver.stdout.close()
        assert psutil.pid_exists(int(child))
        _, alive = psutil.wait_procs(servers, timeout=20)
        assert alive == []
        assert not Path(folder).exists()
    finally:
        os.kill(int(child), signal.SIGKILL)


SLOW_FILESYSTEM = """
import time
from fsspec.implementations.local import LocalFileSystem



class SlowFileSystem(LocalFileSystem):
    protocol = "slow"

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("slow://"))

    def mv(self, *args, **kwargs):
        time.sleep(1)
        return super().mv(*args, **kwargs)
"""


def slow_site(tmp_path, monkeypatch):
    """Install a filesystem that takes longer than servers have that write nothing; return an address."""
    monkeypatch.setattr("distkeras.wire.serve.EXIT_SECONDS", 0.1)
    monkeypatch.setattr("distkeras.cluster.server.NOTICE_SECONDS", 0.1)
    (tmp_path / "slowfs.py").write_text(SLOW_FILESYSTEM)
    info = tmp_path / "slowfs-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowfs\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[fsspec.specs]\nslow = slowfs:SlowFileSystem\n")
    monkeypatch.syspath_prepend(tmp_path)
    return f"slow://{tmp_path}/snapshots"


def test_the_last_snapshot_is_waited_for_and_the_user_is_told(tmp_path, monkeypatch, caplog):
    address = slow_site(tmp_path, monkeypatch)
    caplog.set_level(logging.WARNING)
    options = SnapshotOptions(address, seconds=1000)
    with serve(DOWNPOUR(), snapshots=options) as server:
        commits(server.address, 5)
    assert server._process.returncode == 0
    snapshot = Store(str(tmp_path / "snapshots")).newest()
    assert snapshot.unread.num_updates == 5
    assert f"writes its last snapshot to {address}, for which it has 60 s" in caplog.text


def test_a_second_interrupt_leaves_the_server_to_its_last_snapshot(tmp_path, monkeypatch):
    address = slow_site(tmp_path, monkeypatch)
    server = serve(DOWNPOUR(), snapshots=SnapshotOptions(address, seconds=1000))
    commits(server.address, 5)
    process = psutil.Process(server._process.pid)
    wait = server._process.wait

    def interrupted(seconds):
        monkeypatch.setattr(server._process, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(server._process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.close()
    _, alive = psutil.wait_procs([process], timeout=30)
    assert alive == []
    assert Store(str(tmp_path / "snapshots")).newest().unread.num_updates == 5
    server.close()


def test_a_larger_center_has_more_time_for_its_last_snapshot():
    assert seconds_to_write(0) == 60
    assert seconds_to_write(400_000_000) == 260
    with serve(DOWNPOUR()) as temporary:
        assert temporary._job.exit_seconds == 5  # Its snapshots end with it.


def test_the_end_of_a_server_that_may_move_is_not_the_end_of_the_job():
    setup = ServerSetup(CenterConfig(LocalSGD(1), 9), moves=True)
    with ServerProcess(setup, np.zeros(SIZE, np.float32)) as server, ThreadPoolExecutor(8) as pool:

        def wait_in_a_round(worker):
            with Client(server.address, patience=0.2) as client:
                client.call(Join(worker))
                joined.release()
                client.call(Exchange(worker, 1, 1, 1, 0, 1, np.ones(SIZE, np.float32)))

        joined = threading.Semaphore(0)
        waiting = [pool.submit(wait_in_a_round, worker) for worker in range(8)]
        for _ in waiting:
            joined.acquire()
        time.sleep(0.05)
        server.close()
        assert {type(each.exception()) for each in waiting} == {ServerLost}
