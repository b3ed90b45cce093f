"""Tries an installed distkeras as a new user does: the description's example, a first project, its page.

It runs outside of any checkout. The description is that in the package's own metadata, which indexes show.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "distkeras")


def main() -> None:
    """Run all of it; a failure ends this process."""
    found = importlib.metadata.distribution("distkeras")
    command = [COMMAND, "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if found.version not in said:
        raise SystemExit(f"Expected `distkeras --version` to say {found.version}. Received: {said!r}")
    print(said)
    text = found.read_text("METADATA") or ""
    example = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if example is None:
        raise SystemExit("Expected an example in the package's description. Received: none")
    Path("example.py").write_text(example[1] + "\nprint(trainer.result)\n")
    subprocess.run([sys.executable, "example.py"], check=True)
    subprocess.run([COMMAND, "init", "demo"], check=True)
    subprocess.run([COMMAND, "train"], cwd="demo", check=True)
    if not Path("demo/trained.keras").is_file():
        raise SystemExit("Expected `distkeras train` to write demo/trained.keras. Received: no such file")
    print(page_of(Path("demo")))


def page_of(project: Path) -> str:
    """Return what the page of a project's runs says of them."""
    command = [COMMAND, "dashboard", "--port", "0", "runs"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as viewer:
        try:
            said = viewer.stdout.readline() if viewer.stdout else ""
            link = re.search(r"(http://\S+/)#token=(\S+)", said)
            if link is None:
                raise SystemExit(f"Expected the link of the page. Received: {said!r}")
            request = urllib.request.Request(link[1] + "api/runs", headers={"X-Distkeras-Token": link[2]})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(answer.read().decode())
        finally:
            viewer.terminate()


if __name__ == "__main__":
    main()
