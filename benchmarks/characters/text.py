"""The text that `language.py` trains on: the beginnings of modules of Python's standard library."""

from __future__ import annotations

import functools
import hashlib
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODULES = (
    *("argparse", "ast", "difflib", "doctest", "enum", "inspect", "ipaddress", "logging/__init__"),
    *("mailbox", "optparse", "pdb", "pickle", "pickletools", "pydoc", "shutil", "smtplib"),
    *("ssl", "statistics", "subprocess", "tarfile", "threading", "typing", "unittest/mock", "urllib/request"),
)
CHARACTERS = 36_000
"""Taken of the beginning of each module, so that patch releases of Python differ little."""
HELD_OUT = 512
"""Of these, the last ones of each module are for the evaluation."""
CONTEXT = 64
NUM_TOKENS = 97
"""95 printable characters, the end of a line, and one token for all others."""

Tokens = npt.NDArray[np.int32]


def module_texts() -> list[str]:
    """Return the beginning of each module of the running Python.

    Raises:
        ValueError: a module is shorter.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    texts = []
    for module in MODULES:
        text = (folder / f"{module}.py").read_text("utf-8")
        if len(text) < CHARACTERS:
            raise ValueError(
                f"Expected at least {CHARACTERS} characters in {module}.py of {folder}. Received: {len(text)}"
            )
        texts.append(text[:CHARACTERS])
    return texts


def tokens_of(text: str) -> Tokens:
    """Return the token of each character."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int32)
    tokens = np.where((codes >= 32) & (codes < 127), codes - 32, NUM_TOKENS - 1)
    return np.where(codes == ord("\n"), NUM_TOKENS - 2, tokens).astype(np.int32)


def sequences(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """Cut tokens into inputs and targets, the next tokens, each of shape (sequences, CONTEXT)."""
    count = (len(tokens) - 1) // CONTEXT
    size = count * CONTEXT
    return tokens[:size].reshape(count, CONTEXT), tokens[1 : size + 1].reshape(count, CONTEXT)


@functools.cache
def rows() -> tuple[tuple[Tokens, Tokens], tuple[Tokens, Tokens]]:
    """Return the rows to train and those held out, each as inputs and targets."""
    split = CHARACTERS - HELD_OUT - 1
    parts = [tokens_of(text) for text in module_texts()]
    trained, held_out = (
        [sequences(part) for part in pieces]
        for pieces in ([part[:split] for part in parts], [part[split:] for part in parts])
    )
    return _joined(trained), _joined(held_out)


def facts() -> dict[str, Any]:
    """Return what says which text it was: another release of Python has a text of its own."""
    text = "".join(module_texts())
    return {
        "python": platform.python_version(),
        "modules": len(MODULES),
        "characters": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _joined(pairs: list[tuple[Tokens, Tokens]]) -> tuple[Tokens, Tokens]:
    inputs, targets = zip(*pairs, strict=True)
    return np.concatenate(inputs), np.concatenate(targets)
