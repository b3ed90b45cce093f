"""Sources of notebooks parse, and say first what a reader gets; `make notebooks` executes them in CI."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")
SOURCES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_parses_and_says_first_what_the_reader_can_do_after_it(path):
    first, *cells = jupytext.read(path, fmt="py:percent").cells
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source)
    assert re.search(r"after (it|this notebook) you can", " ".join(first.source.lower().split()))
    assert [cell for cell in cells if cell.cell_type == "code"]
    for cell in cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_files_that_are_there(path):
    cells = jupytext.read(path, fmt="py:percent").cells
    targets = [link for cell in cells if cell.cell_type == "markdown" for link in LINK.findall(cell.source)]
    assert targets
    assert [target for target in targets if not (FOLDER / target).exists()] == []
