"""Looks in the built site for what a browser would fetch from other hosts."""

from __future__ import annotations

import re
from pathlib import Path

FETCHED = re.compile(
    r'<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc(?:set)?="(https?:)?//'
    r'|<link\b(?=[^>]*\brel="(?:stylesheet|preload|preconnect|icon)")[^>]*\bhref="(https?:)?//'
)
FETCHED_BY_STYLE = re.compile(r"""@import\s+["']?(https?:)?//|url\(["']?(https?:)?//""")


def fetched_from_other_hosts(site: Path) -> list[str]:
    """Return what the pages and styles of the site fetch from other hosts, each with its file."""
    found = []
    for pattern, ending in ((FETCHED, "html"), (FETCHED_BY_STYLE, "css")):
        for path in sorted(site.rglob(f"*.{ending}")):
            found += [f"{path}: {match[0]}" for match in pattern.finditer(path.read_text())]
    return found
