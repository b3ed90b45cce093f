"""The pages of the site: each has its place, its links lead somewhere, and no public name is missing."""

from __future__ import annotations

import importlib
import pkgutil
import posixpath
import re
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

import distkeras

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from website.links import rewritten
from website.outside import fetched_from_other_hosts
from website.reference import PAGES, documented
from website.sources import NOTEBOOKS, RENDERED, folder_of, markdown
from website.writing import write_pages

ROOT = Path(__file__).parents[1]

NOT_FOR_USERS = {
    "distkeras.accessors",
    "distkeras.center",
    "distkeras.command",
    "distkeras.compiled_code",
    "distkeras.jvm",
    "distkeras.moved",
    "distkeras.plots",  # `compare` is `distkeras.compare`.
    "distkeras.removed_names",
}
"""Modules whose names other modules of the package use."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("site") / "pages")


def in_nav(entries):
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            yield from in_nav(next(iter(entry.values())))


def test_every_page_has_one_place_in_the_navigation(pages):
    nav = list(in_nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(pages), "Add the page to `nav` in mkdocs.yml, or take it out."


def test_links_between_pages_lead_to_pages(pages):
    missing = []
    for page, text in pages.items():
        outside_code = re.sub(r"```.*?^\s*```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#\s]+\.md)[)#]", outside_code):
            if not target.startswith("http"):
                resolved = posixpath.normpath((PurePosixPath(page).parent / target).as_posix())
                missing += [(page, target)] if resolved not in pages else []
    assert missing == []


def test_the_reference_has_every_public_name(pages):
    names = documented(text for page, text in pages.items() if page.startswith("reference/"))
    public = {page.module for page in PAGES}
    expected = {f"{module}.{name}" for module in public for name in importlib.import_module(module).__all__}
    assert names == expected


def test_every_public_module_has_a_page_of_the_reference():
    modules = {f"distkeras.{each.name}" for each in pkgutil.iter_modules(distkeras.__path__)}
    with_names = {
        name
        for name in modules - {"distkeras.__main__"}
        if getattr(importlib.import_module(name), "__all__", None)
    }
    assert with_names - {page.module for page in PAGES} == NOT_FOR_USERS


def test_a_link_of_the_repository_becomes_one_of_the_site():
    copied = []
    text = (
        "[a](../README.md#x) [b](results/c.json) `[c](d.md)` [e](https://f.md) [g](#h)\n"
        '```\n[i](j.md)\n```\n<img src="../docs/figures/k.png">\n'
    )
    pages = {"README.md": "index.md"}
    moved = rewritten(text, PurePosixPath("benchmarks"), "more/l.md", pages, copied.append)
    assert moved == (
        "[a](../index.md#x) [b](../benchmarks/results/c.json) `[c](d.md)` [e](https://f.md) [g](#h)\n"
        '```\n[i](j.md)\n```\n<img src="../figures/k.png">\n'
    )
    assert copied == ["benchmarks/results/c.json", "docs/figures/k.png"]


def test_a_notebook_that_was_not_run_is_shown_with_a_notice(tmp_path):
    notebook = tmp_path / "docs" / "notebooks" / "first.py"
    notebook.parent.mkdir(parents=True)
    notebook.write_text("# ---\n# x: y\n# ---\n\n# %% [markdown]\n# # First\n#\n# Text.\n\n# %%\nprint(1)\n")
    text = markdown("docs/notebooks/first.py", tmp_path)
    assert text.startswith("# First\n")
    assert "without the notebook's outputs" in text
    assert text.endswith("Text.\n\n```python\nprint(1)\n```\n")
    assert folder_of("docs/notebooks/first.py", tmp_path) == NOTEBOOKS
    (tmp_path / RENDERED).mkdir()
    (tmp_path / RENDERED / "first.md").write_text("# First\n\nWith outputs.\n")
    assert markdown("docs/notebooks/first.py", tmp_path) == "# First\n\nWith outputs.\n"
    assert folder_of("docs/notebooks/first.py", tmp_path) == RENDERED


def test_what_a_page_fetches_from_other_hosts_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://x.org">x</a><img src="b.png"><script src="c.js">')
    (tmp_path / "d.css").write_text("body { background: url(e.png) }")
    assert fetched_from_other_hosts(tmp_path) == []
    (tmp_path / "f.html").write_text(
        '<link rel="stylesheet" href="https://x.org/g.css"><img src="//x.org/h">'
    )
    (tmp_path / "i.css").write_text('@import "https://x.org/j.css";')
    assert len(fetched_from_other_hosts(tmp_path)) == 3
