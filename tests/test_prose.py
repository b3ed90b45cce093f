"""Documents and messages avoid a few faults of style that readers have stumbled over."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
"""Sources, and in a folder below them what `make notebooks` renders, with outputs that are no prose."""
DOCUMENTS = [
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if NOTEBOOKS not in path.parents),
    *sorted(NOTEBOOKS.glob("*.py")),
]
MOST_WORDS = 45
MARKUP = re.compile(
    r"^ *```.*?^ *```$|<!--.*?-->|^---\n.*?^---$|^ {4}[^\n]*$|^\|[^\n]*$", re.MULTILINE | re.DOTALL
)
INSTEAD = {
    "fix": ("mend", "mends", "mended"),
    "continue": tuple(f"{go} on {to}" for go in ("go", "goes", "going") for to in ("with", "from", "where")),
    "start again": ("begin anew", "begins anew"),
    "skip": ("passes windows over", "pass windows over"),
    "decay": ("lets fade", "let fade"),
    "will": ("is to end", "is to stop"),
    "in transit": ("on its way", "on their way"),
    "is stored": ("lies in", "lies on", "it lies", "rows lie in"),
    "name what it is": ("stranger", "strangers"),
}
"""What to write, and the phrases that it replaces."""
LETTERS = str.maketrans(dict.fromkeys(string.punctuation + "\n", " "))


def messages(path: Path) -> list[str]:
    """Return the texts in a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str) and id(node) not in docstrings]


def sentences(text: str) -> list[str]:
    """Return the sentences of a page's paragraphs and lists, without code, tables and links' addresses."""
    text = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", MARKUP.sub("\n", text)))
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) |\n#+ .*", text)
    return [part for each in paragraphs for part in re.split(r"(?<=[.?!:;])\**\s+", " ".join(each.split()))]


def prose(path: Path) -> str:
    """Return a page as Markdown: of a notebook the cells of text."""
    if path.suffix == ".md":
        return path.read_text()
    cells = jupytext.read(path, fmt="py:percent").cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def faults(text: str) -> list[str]:
    words = f" {' '.join(text.lower().translate(LETTERS).split())} "
    return [f"{bad}: {good}" for good, phrases in INSTEAD.items() for bad in phrases if f" {bad} " in words]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_have_short_sentences_in_plain_words(path):
    text = prose(path)
    assert [each for each in sentences(text) if len(each.split()) > MOST_WORDS] == []
    assert faults(MARKUP.sub("", text)) == []
    assert [
        each
        for each in re.findall(r"^#+ (.*)$", MARKUP.sub("", text), re.MULTILINE)
        if each.endswith((".", ","))
    ] == []


def test_messages_are_in_plain_words():
    found = {}
    for path in (ROOT / "src").rglob("*.py"):
        if faults(path.read_text()):  # Parsing all of them would take seconds.
            found[str(path)] = faults("\n".join(messages(path)))
    assert {path: each for path, each in found.items() if each} == {}


def test_the_checks_find_what_they_are_for():
    assert faults("It goes on with the next one, and Passes windows over.") == [
        "goes on with: continue",
        "passes windows over: skip",
    ]
    assert max(len(each.split()) for each in sentences("- " + "word " * 50 + ".\n\n| cell |\n")) > MOST_WORDS
