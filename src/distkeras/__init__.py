"""Distributed Keras: train Keras 3 models on Spark DataFrames with optimizers that communicate rarely.

Importing this package imports neither Keras nor PySpark. The first use of a trainer imports both.
Type checkers read `__init__.pyi`, which `make stubs` writes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from distkeras.removed_names import ModuleFinder, missing

SUBPACKAGES = (
    "algorithms",
    "center",
    "cluster",
    "doctor",
    "evaluators",
    "events",
    "guidance",
    "jobs",
    "lifecycle",
    "ml",
    "model",
    "monitor",
    "plots",
    "predictors",
    "record",
    "runs",
    "simulation",
    "trainers",
    "transformers",
    "utils",
    "wire",
    "worker",
)

_FUNCTIONS = (
    "compare",
    "evaluate",
    "fit",
    "load_model",
    "load_run",
    "merge",
    "predict",
    "recommend",
    "save_model",
)

if ModuleFinder not in sys.meta_path:
    sys.meta_path.append(ModuleFinder)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in SUBPACKAGES:
        return import_module(f"distkeras.{name}")
    if name == "__all__":
        return list(import_module("distkeras.trainers").__all__)
    if name[:1].isupper() or name in _FUNCTIONS:
        trainers = import_module("distkeras.trainers")
        if name in trainers.__all__:
            return getattr(trainers, name)
    raise missing(__name__, name)


def __dir__() -> list[str]:
    trainers = import_module("distkeras.trainers")
    return sorted([*SUBPACKAGES, *trainers.__all__, "__version__"])


def _version() -> str:
    """Return the version of the installed package, and "0+unknown" where only its source is on the path."""
    from importlib import metadata

    try:
        return metadata.version("distkeras")
    except metadata.PackageNotFoundError:
        return "0+unknown"
