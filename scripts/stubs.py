#!/usr/bin/env python
"""`make stubs`: writes the type stubs of `distkeras` and `distkeras.trainers`, which make names at run time.

One class of `distkeras.trainers` is made for each algorithm of the registry, and `distkeras` takes its names
from there when they are first used. Type checkers run neither, so both are written out for them here.
"""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import distkeras
from distkeras import trainers
from distkeras.algorithms import Algorithm
from distkeras.trainers.named import NamedTrainer

PACKAGE = Path(distkeras.__file__).parent
HEADING = "# Written by scripts/stubs.py (`make stubs`): do not edit."

TRAINER = """
class {name}(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        {own}
        **options: Unpack[TrainerOptions],
    ) -> None: ...
"""


def stub_of_trainers() -> str:
    """Return the stub of `distkeras.trainers`: its imports, and a class for each algorithm."""
    tree = ast.parse((PACKAGE / "trainers" / "__init__.py").read_text())
    imported = [
        f"from {node.module} import {alias.name} as {alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in trainers.__all__
    ]
    made = [
        trainer for name in trainers.__all__ if isinstance(trainer := getattr(trainers, name), type)
        if issubclass(trainer, NamedTrainer) and trainer is not NamedTrainer
    ]  # fmt: skip
    head = [
        HEADING,
        "from typing import Any, Unpack",
        "import keras",
        *imported,
        "from distkeras.trainers.keywords import TrainerOptions",
        "from distkeras.trainers.named import NamedTrainer",
        _all(trainers.__all__),
    ]
    return _formatted([*head, *(_trainer(trainer.algorithm_class) for trainer in made)])


def _trainer(algorithm: type[Algorithm]) -> str:
    own = "\n".join(f"{field.name}: {field.type} = ...," for field in dataclasses.fields(algorithm))
    return TRAINER.format(name=algorithm.__name__, own=own)


def stub_of_package() -> str:
    """Return the stub of `distkeras`: its subpackages, and the names of `distkeras.trainers`."""
    parts = [f"from distkeras import {name} as {name}" for name in distkeras.SUBPACKAGES]
    names = [f"from distkeras.trainers import {name} as {name}" for name in trainers.__all__]
    return _formatted([HEADING, *parts, *names, _all(trainers.__all__), "__version__: str"])


def _all(names: Iterable[str]) -> str:
    return f"__all__ = [{', '.join(repr(name) for name in names)}]"


def _formatted(parts: Iterable[str]) -> str:
    text = "\n".join(parts)
    for command in (["check", "--quiet", "--fix-only", "--select", "I,RUF022"], ["format"]):
        run = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(PACKAGE / "stub.pyi"), "-"]
        text = subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout
    return text


STUBS = {
    PACKAGE / "__init__.pyi": stub_of_package,
    PACKAGE / "trainers" / "__init__.pyi": stub_of_trainers,
}


if __name__ == "__main__":
    for path, text in STUBS.items():
        path.write_text(text())
