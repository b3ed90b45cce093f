"""Executes the notebooks of docs/notebooks, and renders them as Markdown with outputs: `make notebooks`.

python scripts/notebooks.py [NAME ...]

The sources are Python files in the percent format of Jupytext. Each runs in a kernel of its own, in its
folder, as in Jupyter. An error in a cell ends this with the cell and its traceback.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
RENDERED = FOLDER / "rendered"
LINK = re.compile(r"\]\((?!https?:|#)")
COLORS = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = 1200
"""Longest time of a cell."""
SHOWN = ["image/png", "text/markdown", "text/plain"]
"""The forms of an output that a page may show, the best first: tables as text, which no site has to style."""


def execute(name: str) -> None:
    """Execute a notebook and write its page, with the figures beside it.

    Raises:
        CellExecutionError, CellTimeoutError: a cell has failed, or taken too long.
    """
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        startup_timeout=SECONDS,
        extra_arguments=["--log-level=ERROR"],
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub("](../", cell.source)  # The page lies one folder deeper than the source.
    leave_out_logs(notebook)
    exporter = MarkdownExporter(config=Config({"NbConvertBase": {"display_data_priority": SHOWN}}))
    text, resources = exporter.from_notebook_node(
        notebook, resources={"unique_key": name, "output_files_dir": f"{name}_files"}
    )
    (RENDERED / f"{name}_files").mkdir(parents=True, exist_ok=True)
    for path, data in resources["outputs"].items():
        (RENDERED / path).write_bytes(data)
    (RENDERED / f"{name}.md").write_text(text)


def leave_out_logs(notebook: NotebookNode) -> None:
    """Leave out what went to standard error: what Java and the backends log at their start, and warnings."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def main() -> None:
    """Execute the notebooks that are named, or all; say how long each took."""
    known = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := set(names) - set(known):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}. There are: {', '.join(known)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    began = time.monotonic()
    for name in names:
        start = time.monotonic()
        try:
            execute(name)
        except (CellExecutionError, CellTimeoutError) as error:
            sys.exit(f"docs/notebooks/{name}.py: {COLORS.sub('', str(error))}")
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    print(f"{len(names)} notebooks in {time.monotonic() - began:.1f} s: {RENDERED}")


if __name__ == "__main__":
    main()
