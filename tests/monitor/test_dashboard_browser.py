"""The page in a browser: what a person sees, does, and is told when something is wrong."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from browsing import Tab, browser
from proxying import proxied
from synthetic_runs import Synthetic, begin, logs_of, perform, steps, write_run

from distkeras.monitor.dashboard.starting import Viewer
from distkeras.monitor.dashboard.viewer import ViewerOptions, link
from distkeras.runs import Run
from distkeras.runs.control_files import ControlFiles
from distkeras.runs.folder import Folder, find_filesystem

FIRST = Synthetic(workers=20, windows=1200, seconds=60, ends=True)
SECOND = Synthetic(workers=3, windows=300, seconds=50, rule="DiLoCo", faults=False, rate=1.4, ends=True)
LIVE = Synthetic(workers=2, windows=200, seconds=40, faults=False)
WINDOWS = "number => document.querySelector('[data-windows]')?.dataset.windows === String(number)"


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with two finished runs, one of a later release and one with a broken line."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "first", FIRST)
    write_run(folder / "second", SECOND)
    write_run(folder / "torn", Synthetic(workers=1, windows=60, seconds=20, faults=False, ends=True))
    (file,) = (folder / "torn" / "rollups").iterdir()
    file.write_bytes(file.read_bytes().replace(b'["Second"', b'["Sec', 1))
    (folder / "later").mkdir()
    (folder / "later" / "run.json").write_text('{"format": 99, "settings": {}}')
    return folder


@contextmanager
def viewing(*addresses, port=0):
    viewer = Viewer(ViewerOptions(tuple(map(str, addresses)), port=port, token="secret"))
    try:
        yield viewer
    finally:
        viewer.close()


@pytest.fixture(scope="module")
def viewer(runs):
    with viewing(runs) as started:
        yield started


@pytest.fixture
def tab(chromium):
    opened = Tab(chromium, viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def address_of(port, run=None):
    return link("127.0.0.1", port, "secret", None if run is None else str(run))


def test_the_page_of_a_run_shows_its_figures(tab, viewer, runs):
    tab.page.goto(address_of(viewer.port, runs / "first"))
    tab.wait_for(WINDOWS, FIRST.windows)
    page = tab.page
    assert "token" not in page.url
    assert page.get_attribute("[data-samples]", "data-samples") == str(FIRST.windows * FIRST.rows)
    last = FIRST.epochs - 1
    for name, value in logs_of(FIRST, last).items():
        shown = page.get_attribute(f'tr[data-epoch="{last}"] [data-log="{name}"]', "data-value")
        assert float(shown) == value
    assert page.inner_text('[data-figure="epoch"] dd') == f"{FIRST.epochs} of {FIRST.epochs}"
    chips = page.eval_on_selector_all(".chips [data-state]", "nodes => nodes.map(node => node.textContent)")
    assert chips == ["1 failed", "19 finished"]
    assert page.locator("canvas").count() >= 6
    assert "failed" in page.get_attribute(".lanes canvas:not([hidden]) >> nth=-1", "aria-label")
    assert page.locator('[data-kind="WorkerFailed"] details').count() == 1
    # It survives a reload: the tab keeps the token.
    page.reload()
    tab.wait_for(WINDOWS, FIRST.windows)


def test_a_person_without_a_mouse_reads_the_charts_and_sorts_the_workers(tab, viewer, runs):
    tab.page.goto(address_of(viewer.port, runs / "first"))
    tab.wait_for(WINDOWS, FIRST.windows)
    page = tab.page
    plot = page.locator(".plot").first
    plot.focus()
    before = plot.get_attribute("aria-label")
    assert before.startswith("loss against time")
    page.keyboard.press("Home")
    at_first = plot.get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    assert len({before, at_first, plot.get_attribute("aria-label")}) == 3
    page.get_by_role("button", name="rows", exact=True).press("Enter")
    tab.wait_for("() => document.querySelector('.plot').ariaLabel.startsWith('loss against rows')")
    page.get_by_role("button", name="Rows/s", exact=True).press("Enter")
    assert page.locator("th[aria-sort]", has_text="Rows/s").get_attribute("aria-sort") == "descending"
    page.get_by_role("searchbox", name="Search workers").fill("worker 7")
    assert page.locator("table[aria-label=Workers] tbody tr").count() == 1
    lanes = page.locator(".lanes canvas >> nth=-1")
    lanes.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "Worker 1 on node-1" in page.inner_text(".lanes [aria-live]")


def test_runs_are_sorted_filtered_and_compared(tab, viewer, runs):
    page = tab.page
    page.goto(address_of(viewer.port))
    names = "table[aria-label=Runs] tbody tr td:nth-child(2) a"
    page.wait_for_selector(names)
    assert set(page.locator(names).all_inner_texts()) == {"first", "second", "torn", "later"}
    assert "later release" in page.inner_text("table[aria-label=Runs]")
    page.get_by_role("button", name="Run", exact=True).click()
    assert page.locator(names).all_inner_texts() == ["first", "later", "second", "torn"]
    page.get_by_role("searchbox").fill("diloco")
    assert page.locator(names).all_inner_texts() == ["second"]
    page.get_by_role("searchbox").fill("")
    for name in ("first", "second"):
        page.get_by_role("checkbox", name=f"Compare {name}").check()
    page.get_by_role("button", name="Compare 2 runs").click()
    page.wait_for_selector("table[aria-label='Runs that are compared'] tbody tr")
    assert "algorithm.name" in page.inner_text("table[aria-label='Runs that are compared'] thead")
    labels = page.locator(".chart").first.locator(".legend button").all_inner_texts()
    assert [label.split()[0] for label in labels] == ["first", "second"]


def test_what_was_asked_for_last_is_shown_though_something_else_comes_later(tab, viewer, runs):
    page, held = tab.page, []
    page.goto(address_of(viewer.port, runs / "second"))
    tab.wait_for(WINDOWS, SECOND.windows)
    page.route("**/api/runs*", lambda route: held.append(route))
    place = page.evaluate("() => { const last = location.hash; location.hash = ''; return last; }")
    while not held:
        page.wait_for_timeout(10)
    page.evaluate("place => { location.hash = place; }", place)
    tab.wait_for(WINDOWS, SECOND.windows)
    with page.expect_response("**/api/runs*"):
        held[0].continue_()
    page.wait_for_timeout(50)
    assert page.locator("[data-windows]").count() == 1
    page.unroute("**/api/runs*")


def test_what_is_wrong_is_said_on_the_page(tab, viewer, runs, tmp_path):
    page = tab.page
    page.goto(address_of(viewer.port, runs / "later"))
    assert "of a later release" in page.locator("[role=alert]").first.inner_text()
    page.goto(address_of(viewer.port, runs / "torn"))
    page.wait_for_selector("[data-windows]")
    assert "1 broken lines were left out" in page.locator("[role=alert]").first.inner_text()
    page.goto(address_of(viewer.port, runs / "nowhere"))
    assert "no run of that name" in page.locator("[role=alert]").first.inner_text()
    with viewing(tmp_path) as empty:
        page.goto(address_of(empty.port))
        assert "There is no run here" in page.locator("[role=alert]").first.inner_text()
        page.evaluate("sessionStorage.clear()")
        page.goto(f"http://127.0.0.1:{empty.port}/#")
        page.reload()
        assert "needs its token" in page.inner_text("form")
        page.fill("[name=token]", "secret")
        page.get_by_role("button", name="Open").click()
        assert "There is no run here" in page.locator("[role=alert]").first.inner_text()


def test_a_live_run_is_followed_below_a_proxys_prefix_and_through_lost_connections(tab, tmp_path):
    """Also where the proxy passes on no stream: the page then asks again and again."""
    run, todo = Run.open(str(tmp_path / "run")), list(steps(LIVE))
    begin(run, LIVE)

    def go_on(number):
        for step in todo[:number]:
            perform(run, step)
        del todo[:number]

    go_on(60)
    with viewing(tmp_path) as first, proxied(first.port) as proxy:
        tab.page.goto(f"{proxy.address}#token=secret")  # The one run of a folder opens by itself.
        tab.page.wait_for_selector("#connection[data-state=live]")
        seen = int(tab.page.get_attribute("[data-windows]", "data-windows"))
        assert 0 < seen < LIVE.windows
        go_on(60)
        tab.wait_for("seen => Number(document.querySelector('[data-windows]').dataset.windows) > seen", seen)
        first.close()
        tab.page.wait_for_selector("#connection[data-state=lost]")
        proxy.streams = False
        with viewing(tmp_path) as second:
            proxy.target = second.port
            tab.page.wait_for_selector("#connection[data-state=polling]")
            go_on(len(todo))
            run.finish({"reason": "finished", "epochs": LIVE.epochs, "best": {}, "seconds": 40.0}, [])
            run.close()
            tab.wait_for(WINDOWS, LIVE.windows)
            assert tab.page.inner_text(".title .pill") == "finished"
    assert all(path.startswith(("/api/", "/static/")) or path == "/" for path in proxy.paths)


def test_the_buttons_ask_the_driver_through_the_run(tab, tmp_path):
    run = write_run(tmp_path / "run", LIVE)
    control = ControlFiles(Folder(*find_filesystem(str(tmp_path / "run"))))
    with viewing(tmp_path) as viewer:
        page = tab.page
        page.goto(address_of(viewer.port, tmp_path / "run"))
        page.click("[data-request=checkpoint]")
        page.wait_for_selector("[data-request=checkpoint]:disabled")
        assert control.asked() == ["checkpoint"]
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.click("[data-request=stop]")
        assert control.asked() == ["checkpoint"]
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("[data-request=stop]")
        page.wait_for_selector("[data-request=stop]:disabled")
        assert control.asked() == ["stop", "checkpoint"]
        run.obeyed("checkpoint", "Checkpoint saved, as a button of the page asked: run/asked.keras")
        page.wait_for_selector("[data-request=checkpoint]:enabled")
        page.wait_for_selector("text=Checkpoint saved")
    run.close()


def test_a_thousand_workers_fit_on_a_phone_in_both_colours(chromium, tmp_path):
    write_run(tmp_path / "run", Synthetic(workers=1000, windows=3000, seconds=30, ends=True))
    tab = Tab(chromium, viewport={"width": 390, "height": 800})
    page = tab.page
    with viewing(tmp_path) as viewer:
        page.goto(address_of(viewer.port, tmp_path / "run"))
        tab.wait_for(WINDOWS, 3000)
        width, height = page.evaluate("() => [document.body.scrollWidth, document.body.scrollHeight]")
        assert width <= 390
        assert height < 12_000
        assert page.locator("table[aria-label=Workers] tbody tr").count() == 10
        labels = page.locator(".chart", has_text="of each worker").locator(".legend button").count()
        assert labels == 6  # The median, the band's two ends, and the three slowest.
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert is_dark(page) == (scheme == "dark")
        page.click("#theme")  # From that of the system to light.
        assert not is_dark(page)
    tab.close()


def is_dark(page):
    channels = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
    return sum(map(int, channels)) < 200
