"""Links between files of the repository, made links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

CODE = re.compile(r"```.*?^\s*```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r'(?P<before>\]\(|\b(?:src|srcset|href)=")(?P<target>[^)\s"]+)(?=[)\s"])')


def rewritten(
    text: str, folder: PurePosixPath, page: str, pages: Mapping[str, str], asset: Callable[[str], None]
) -> str:
    """Return `text` with links that lead from `page` to other pages, and to files that lie beside them.

    Args:
        text: Markdown.
        folder: where its links start from, relative to the repository.
        page: its page in the site.
        pages: the page of each file of the repository that has one.
        asset: called with each other file of the repository that a link leads to. It copies the file to its
            `asset_path` in the site; it raises if there is no such file.
    """

    def moved(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        source = posixpath.normpath((folder / target).as_posix())
        if source in pages:
            there = pages[source]
        else:
            asset(source)
            there = asset_path(source)
        return match["before"] + posixpath.relpath(there, posixpath.dirname(page)) + hash_sign + anchor

    written, end = [], 0
    for code in CODE.finditer(text):
        written += [LINK.sub(moved, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*written, LINK.sub(moved, text[end:])])


def asset_path(source: str) -> str:
    """Return where a file of the repository that is no page lies in the site."""
    return source.removeprefix("docs/")
