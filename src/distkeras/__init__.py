"""Distributed Keras: train Keras 3 models on Spark DataFrames with optimizers that rarely communicate.

Importing this package imports neither Keras nor PySpark: the trainers do, when first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SUBPACKAGES = (
    "algorithms",
    "center",
    "cluster",
    "evaluators",
    "ml",
    "monitor",
    "predictors",
    "simulation",
    "trainers",
    "transformers",
    "utils",
    "wire",
    "worker",
)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"distkeras.{name}")
    if name[:1].isupper() or name == "merge":
        trainers = import_module("distkeras.trainers")
        if name in trainers.__all__:
            return getattr(trainers, name)
    raise AttributeError(f"module 'distkeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    trainers = import_module("distkeras.trainers")
    return sorted([*_SUBPACKAGES, *trainers.__all__])
