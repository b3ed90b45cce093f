"""Which files of the repository become pages of the site, and what a page is called there."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

NOTEBOOKS = Path("docs/notebooks")
RENDERED = NOTEBOOKS / "rendered"
"""Where `make notebooks` writes Markdown with outputs. It is not in the repository."""

NAMED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/data/README.md": "examples/data.md",
}
"""Pages that are not in docs/, as they are called in the site."""

NOT_RENDERED = """
!!! note
    This copy of the site was built without the notebook's outputs. To see them, run `make notebooks`, then
    build the site again.
"""


def pages(root: Path = ROOT) -> dict[str, str]:
    """Return the page of the site for each file of the repository that is one, both as POSIX paths."""
    found = {source: page for source, page in NAMED.items() if (root / source).exists()}
    for path in sorted((root / "docs").rglob("*.md")):
        source = path.relative_to(root)
        if RENDERED not in source.parents:
            found[source.as_posix()] = source.relative_to("docs").as_posix()
    for path in sorted((root / NOTEBOOKS).glob("*.py")):
        source = path.relative_to(root)
        found[source.as_posix()] = source.relative_to("docs").with_suffix(".md").as_posix()
    for path in sorted((root / "examples").glob("*.py")):
        found[path.relative_to(root).as_posix()] = f"examples/{path.stem}.md"
    return found


def markdown(source: str, root: Path = ROOT) -> str:
    """Return the Markdown of the page that the file `source` becomes, with its links as they are there."""
    path = root / source
    if path.suffix == ".md":
        return path.read_text()
    if path.parent == root / NOTEBOOKS:
        rendered = root / RENDERED / f"{path.stem}.md"
        return rendered.read_text() if rendered.exists() else _without_outputs(path.read_text())
    return f"# {source}\n\n```python\n{path.read_text()}```\n"


def folder_of(source: str, root: Path = ROOT) -> Path:
    """Return the folder that the links of `source`'s Markdown start from, relative to the repository."""
    path = Path(source)
    if path.parent == NOTEBOOKS and (root / RENDERED / f"{path.stem}.md").exists():
        return RENDERED
    return path.parent


def _without_outputs(text: str) -> str:
    """Return a notebook in Jupytext's percent format as Markdown: its texts and its code."""
    written = []
    for cell in text.split("\n# %%")[1:]:
        kind, _, lines = cell.partition("\n")
        if "[markdown]" in kind:
            written.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines.splitlines()))
        else:
            written.append(f"```python\n{lines.strip()}\n```")
    title, _, rest = "\n\n".join(written).lstrip().partition("\n")
    return f"{title}\n{NOT_RENDERED}\n{rest}\n"
