"""The page that a training starts: its link, its process, and what it cannot show."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.request
from importlib import util

import psutil
import pytest
from synthetic_runs import Synthetic, write_run

from distkeras.monitor import Dashboard, TrainingFacts
from distkeras.monitor.dashboard import starting
from distkeras.monitor.dashboard.starting import DashboardLink, Viewer
from distkeras.monitor.dashboard.viewer import ViewerOptions
from distkeras.monitor.monitors import monitors_of

SMALL = Synthetic(workers=1, windows=20, seconds=15, epochs=1, faults=False, ends=True)


def facts_of(run):
    return TrainingFacts("ADAG, 1 worker", "name", "ADAG", 1, 100, 1, run=run)


@pytest.fixture
def closing(monkeypatch):
    """Forget the viewers of other tests, and close those of this one."""
    shared: dict[str, Viewer] = {}
    monkeypatch.setattr(starting, "_SHARED", shared)
    yield shared
    for viewer in shared.values():
        viewer.close()


def test_trainings_of_one_process_share_a_viewer_which_shows_all_of_them(
    tmp_path, monkeypatch, capsys, closing
):
    monkeypatch.chdir(tmp_path)
    links = []
    for name in ("first", "second"):
        write_run(tmp_path / name, SMALL)
        (monitor,) = monitors_of("dashboard")
        monitor.begin(facts_of(name))  # A relative address, as people give.
        monitor.take([])
        monitor.end({"reason": "finished"})
        links.append(monitor.link)
    (viewer,) = closing.values()
    assert viewer.is_alive
    said = capsys.readouterr().out.splitlines()
    assert said == [f"The page of ADAG, 1 worker: {link.address}" for link in links]
    address, _, token = links[1].address.partition("token=")
    asked = urllib.request.Request(
        address.partition("#")[0] + "api/runs", headers={"X-Distkeras-Token": token}
    )
    deadline = time.monotonic() + 20
    while len(found := json.load(urllib.request.urlopen(asked, timeout=20))["runs"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [row["id"] for row in found] == [str(tmp_path / "first"), str(tmp_path / "second")]
    assert token not in " ".join(psutil.Process(viewer.pid).cmdline())


def test_ctrl_c_ends_the_training_and_not_its_page(tmp_path):
    viewer = Viewer(ViewerOptions((str(tmp_path),), port=0))
    try:
        # A terminal sends the signal to the group of the process that it has started.
        assert os.getpgid(viewer.pid) == viewer.pid
        assert viewer.is_alive
    finally:
        viewer.close()
    assert not viewer.is_alive


def test_a_viewer_that_cannot_start_says_why(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeError, match=r"does not start: .*Address already in use"):
            Viewer(ViewerOptions((str(tmp_path),), port=taken.getsockname()[1]))


def test_a_run_that_only_the_driver_can_read_is_refused():
    with pytest.raises(ValueError, match="another process can read"):
        Dashboard().begin(facts_of("memory://runs/one"))
    with pytest.raises(ValueError, match="without one"):
        Dashboard().begin(facts_of(None))


def test_without_its_packages_the_page_says_what_to_install(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"distkeras\[dashboard\]"):
        monitors_of("dashboard")


def test_a_notebook_shows_a_link_that_goes_through_its_proxy(monkeypatch):
    link = DashboardLink('http://127.0.0.1:1/#run="><script>', "a <b>")
    assert link._repr_html_() == (
        '<a href="http://127.0.0.1:1/#run=&quot;&gt;&lt;script&gt;" target="_blank" rel="noopener">'
        "The page of a &lt;b&gt;</a>"
    )
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    options = ViewerOptions((), token="t")
    assert starting._reached(options, 8765, "/runs/a") == "/user/ada/proxy/8765/#run=%2Fruns%2Fa&token=t"
    assert starting._proxies() == ("*",)
    assert options.access().is_known("127.0.0.1:8765")
