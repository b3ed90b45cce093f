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
from concurrent.futures import ProcessPoolExecutor, as_completed
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
AT_ONCE = 2
"""Notebooks that run at the same time: each waits much for its session of Spark to start and to end."""
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


def run(name: str) -> tuple[str, float, str | None]:
    """Execute a notebook; return its name, the seconds it took, and what went wrong, if anything."""
    start = time.monotonic()
    try:
        execute(name)
    except (CellExecutionError, CellTimeoutError) as error:
        return name, time.monotonic() - start, COLORS.sub("", str(error))
    return name, time.monotonic() - start, None


def main() -> int:
    """Execute the notebooks that are named, or all; say how long each took. Return 1 if one has failed."""
    known = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := set(names) - set(known):
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}. There are: {', '.join(known)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    began, failed = time.monotonic(), 0
    with ProcessPoolExecutor(AT_ONCE) as pool:
        for done in as_completed([pool.submit(run, name) for name in names]):
            name, seconds, error = done.result()
            print(f"{name}: {seconds:.1f} s", flush=True)
            if error is not None:
                failed += 1
                print(f"docs/notebooks/{name}.py: {error}", file=sys.stderr, flush=True)
    print(f"{len(names) - failed} of {len(names)} notebooks in {time.monotonic() - began:.1f} s: {RENDERED}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
