"""`python -m website write` writes the pages to build/pages, `check` looks through site/: see `make site`."""

from __future__ import annotations

import sys

from website.outside import fetched_from_other_hosts
from website.sources import ROOT
from website.writing import write_pages

if sys.argv[1:] == ["write"]:
    print(f"{len(write_pages(ROOT / 'build' / 'pages'))} pages in build/pages")
elif sys.argv[1:] == ["check"]:
    if found := fetched_from_other_hosts(ROOT / "site"):
        sys.exit("Pages of the site must fetch nothing from other hosts:\n" + "\n".join(found))
else:
    sys.exit(f"Usage: python -m website write|check. Received: {sys.argv[1:]}")
