"""Tries an installed distkeras as a new user does: the command's version, and the description's example.

It runs outside of any checkout. The description is that in the package's own metadata, which indexes show.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.executable).parent


def main() -> None:
    """Run both, and say so; a failure ends this process."""
    found = importlib.metadata.distribution("distkeras")
    command = [str(FOLDER / "distkeras"), "--version"]
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


if __name__ == "__main__":
    main()
