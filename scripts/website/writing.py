"""Gathers the pages of the site in one folder, from which MkDocs builds it.

It takes docs/, README.md, CHANGELOG.md, CONTRIBUTING.md, the benchmarks, the examples and the rendered
notebooks. So each text is written once, and its links work on a code host as well as in the site. It also
writes the reference, from the public names of the package, and llms.txt.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath

from website.links import asset_path, rewritten
from website.reference import reference
from website.sources import RENDERED, ROOT, folder_of, markdown, pages

BESIDE = ("docs/figures", "docs/assets", str(RENDERED))
"""Folders whose files are copied as they are, if they exist: pictures, the style, the notebooks' figures."""


def write_pages(folder: Path, root: Path = ROOT) -> dict[str, str]:
    """Write every page of the site, and the files beside them, and return the pages' Markdown by path.

    Args:
        folder: where to write. What it holds is deleted first.
        root: the repository.

    Raises:
        FileNotFoundError: a page links to a file that the repository does not have.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def copy(source: str) -> None:
        target = folder / asset_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, target)

    known = pages(root)
    texts = {}
    for source, page in known.items():
        links_from = PurePosixPath(folder_of(source, root).as_posix())
        texts[page] = rewritten(markdown(source, root), links_from, page, known, copy)
    texts.update(reference())
    for path in (each for name in BESIDE for each in (root / name).rglob("*") if each.is_file()):
        if path.suffix != ".md":
            copy(path.relative_to(root).as_posix())
    for page, text in texts.items():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text)
    (folder / "llms.txt").write_text(llms(texts))
    (folder / "llms-full.txt").write_text("\n\n".join(text for page, text in texts.items() if _prose(page)))
    return texts


def llms(texts: dict[str, str]) -> str:
    """Return the list of pages for language models: title, summary, a link to each page (llmstxt.org)."""
    lines = []
    for page, text in texts.items():
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        if heading and page != "index.md":
            lines.append(f"- [{heading[1]}]({page.removesuffix('.md')}.html)")
    title, _, rest = texts["index.md"].partition("\n")
    summary = " ".join(rest.strip().split("\n\n")[0].split())
    opening = f"{title}\n\n> {summary}\n\nllms-full.txt has the text of all pages.\n\n## Pages\n\n"
    return opening + "\n".join(lines) + "\n"


def _prose(page: str) -> bool:
    return not page.startswith(("reference/", "changes"))
