"""The page of jobs in a browser."""

from __future__ import annotations

import pytest
from browsing import Tab, browser
from job_servers import JobServerProcess
from synthetic_runs import Synthetic, write_run

RUN = Synthetic(workers=2, windows=60, seconds=20, epochs=2, faults=False, ends=True)
SLOW = """
import time
print("<b>begun</b>", flush=True)
for step in range(6000):
    time.sleep(0.1)
"""


@pytest.fixture
def server(tmp_path):
    with JobServerProcess(tmp_path / "server", "--running", "2") as started:
        yield started


def test_a_person_sees_the_jobs_follows_a_log_finds_the_run_and_stops_the_job(server):
    with browser() as chromium:
        tab = Tab(chromium, viewport={"width": 390, "height": 800})
        page = tab.page
        page.goto(server.address)
        assert "needs the server's token" in page.inner_text("form")
        page.fill("[name=token]", server.token)
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("text=There is no job yet")
        failed = server.submit("raise SystemExit('wrong')", name="fails")
        job = server.submit(SLOW, name="slow")
        server.wait(failed)
        write_run(server.folder / "jobs" / job / "work" / "runs" / "first", RUN)
        page.wait_for_selector(f"tr[data-job='{failed}'] >> text=failed")
        page.click(f"tr[data-job='{job}'] a")
        page.wait_for_selector("text=<b>begun</b>")  # As text.
        page.wait_for_selector("#connection[data-state=live]")
        assert page.evaluate("() => document.body.scrollWidth") <= 390
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Stop the job").click()
        assert server.job(job)["stop_asked"] is None
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop the job").click()
        page.wait_for_selector("[data-state=stopped]")
        page.wait_for_selector("text=KeyboardInterrupt")
        assert page.get_by_role("button", name="Stop").is_visible() is False
        page.click("text=runs/first")
        page.wait_for_selector("[data-windows='60']")  # The page of runs, with the same token.
        page.goto(f"{server.address}#job=nothing")
        page.wait_for_selector("[role=alert] >> text=no job of this id")
        tab.close()
