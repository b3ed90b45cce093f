"""A training on Spark, looked at in a browser while it runs and a worker's process is killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from browsing import Tab, browser
from starting import without_tensorflow

SCRIPT = Path(__file__).parent / "dashboard_training.py"


def address_in(out, process):
    """Return the address that the training prints."""
    deadline = time.monotonic() + 200
    while not (found := re.search(r"The page of DOWNPOUR, 2 workers: (http://\S+)", out.read_text())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found[1]


def training_worker(process):
    """Return the process of a worker that trains: of those that Spark's daemon has forked, the largest."""
    everyone = psutil.Process(process.pid).children(recursive=True)
    daemons = {each.pid for each in everyone if "daemon" in command_of(each)}
    return max((each for each in everyone if each.ppid() in daemons), key=lambda each: each.memory_info().rss)


def command_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # It has just ended.
        return ""


def test_the_page_of_a_training_shows_the_figures_of_its_history_through_the_loss_of_a_worker(tmp_path):
    with browser() as chromium, (tmp_path / "out").open("w") as out:
        (tmp_path / "hidden").mkdir()
        command, env = (
            [sys.executable, SCRIPT, tmp_path],
            os.environ | without_tensorflow(tmp_path / "hidden"),
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": out, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=env, **pipes)
        tab = Tab(chromium, viewport={"width": 1280, "height": 900})
        tab.page.set_default_timeout(200_000)
        try:
            address = address_in(tmp_path / "out", process)
            tab.page.goto(address)
            look_on(tab, process)
            figures = json.loads(ended(tmp_path / "history.json", process))
            tab.page.wait_for_selector(".title .pill:has-text('finished')")
            compare(tab, figures)
            process.stdin.close()
            assert process.wait(60) == 0
            with_its_driver_the_viewer_ends(address)
        finally:
            for each in (
                psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ()
            ):
                each.kill()
            process.kill()
            process.wait()
            tab.close()


def look_on(tab, process):
    """See windows come, ask for a checkpoint, kill a worker, and see its replacement."""
    page = tab.page
    tab.wait_for("() => Number(document.querySelector('[data-windows]')?.dataset.windows) >= 6")
    assert page.inner_text(".title .pill") == "running"
    page.click("[data-request=checkpoint]")
    training_worker(process).kill()
    page.wait_for_selector("[data-kind=WorkerJoined] >> text=attempt 2")
    page.wait_for_selector("[data-kind=RequestTaken] >> text=Checkpoint saved")


def ended(file, process):
    deadline = time.monotonic() + 200
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return file.read_text()


def compare(tab, figures):
    """Every figure on the page is that of the history."""
    page = tab.page
    tab.wait_for(
        "number => document.querySelector('[data-windows]').dataset.windows === String(number)",
        figures["windows"],
    )
    assert page.get_attribute("[data-samples]", "data-samples") == str(figures["samples"])
    page.get_by_role("button", name="Worker", exact=True).click()
    rows = page.locator("table[aria-label=Workers] tbody tr")
    numbers = [row.locator("td").nth(5).inner_text().replace(",", "") for row in rows.all()]
    assert numbers == [str(figures["rows"][worker]) for worker in ("0", "1")]
    assert "2" in [row.locator("td").nth(2).inner_text() for row in rows.all()]  # The second attempt.
    for name, values in figures["logs"].items():
        for epoch, value in zip(figures["epochs"], values, strict=True):
            cell = page.locator(f'tr[data-epoch="{epoch}"] [data-log="{name}"]')
            assert float(cell.get_attribute("data-value")) == value
    assert figures["reason"] == "finished"


def with_its_driver_the_viewer_ends(address):
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(address.partition("#")[0], timeout=5).close()
        except urllib.error.URLError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)
