"""What a build of the package takes from the place it is built at: hatchling's metadata hook.

The repository's address is that in the environment variable DISTKERAS_REPOSITORY, or git's remote `origin`.
With it the package has its links, and those of README.md, which are relative in the repository, become
absolute. Without it the package can be built, and `make release` refuses it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[((?:!\[[^]]*\]\([^)]*\)|[^]])*)\]\(([^)\s]+)\)")
"""A link or a picture of Markdown; the text of a link may be a picture."""


def web_address(remote: str) -> str | None:
    """Return the address of a repository's web page, without anybody's name or password.

    Args:
        remote: an address as git has it, such as git@host:owner/name.git or https://host/owner/name.

    Returns:
        https://host/owner/name, or `None` for a path of this machine or an address of another kind.
    """
    short = re.fullmatch(r"(?:[\w.-]+@)?([\w.-]+\.\w+):(?!/)(.+)", remote.strip())
    parts = urlsplit(f"ssh://{short[1]}/{short[2]}" if short else remote.strip())
    if parts.scheme not in ("http", "https", "ssh", "git") or not parts.hostname:
        return None
    path = parts.path.strip("/").removesuffix(".git")
    return f"https://{parts.hostname}/{path}" if path else None


def repository(root: Path) -> str | None:
    """Return the address of the repository's web page; `None` if it is not known."""
    given = os.environ.get("DISTKERAS_REPOSITORY")
    if given:
        address = web_address(given)
        if address is None:
            raise ValueError(
                "Expected the repository's address, such as https://host/owner/name. "
                f"Received: DISTKERAS_REPOSITORY={given!r}"
            )
        return address
    if not (root / ".git").exists():  # Another repository may lie around an unpacked source distribution.
        return None
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # A machine without git.
        return None
    return web_address(asked.stdout) if asked.returncode == 0 else None


def absolute(text: str, address: str, ref: str = "HEAD") -> str:
    """Return Markdown with its relative links and pictures at the repository's address.

    Args:
        text: the Markdown. Blocks of code stay as they are.
        address: of the repository's web page.
        ref: the tag or branch that links lead to.
    """

    def replaced(match: re.Match[str]) -> str:
        picture, label, target = match.groups()
        if "](" in label:
            label = LINK.sub(replaced, label)
        if not re.match(r"[a-z]+:|#|//", target):
            target = f"{address}/{'raw' if picture else 'blob'}/{ref}/{target.removeprefix('./')}"
        return f"{picture}[{label}]({target})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


class PackageFacts(MetadataHookInterface):
    """Adds the package's links and its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `urls` and `readme`."""
        root = Path(self.root)
        text, address = (root / "README.md").read_text(encoding="utf-8"), repository(root)
        metadata["urls"] = {}
        if address is not None:
            text = absolute(text, address, os.environ.get("DISTKERAS_REF", "HEAD"))
            metadata["urls"] = {
                "Repository": address,
                "Issues": f"{address}/issues",
                "Changes": f"{address}/blob/HEAD/CHANGELOG.md",
                "Documentation": f"{address}/tree/HEAD/docs",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
