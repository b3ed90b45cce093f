"""Which packages an unpickler will import: those of the user's own code, which executors need as well."""

from __future__ import annotations

import os
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    from distkeras.model.spec import ModelSpec
    from distkeras.worker.columns import Columns
    from distkeras.worker.task import Task

KNOWN = frozenset({"__main__", "builtins", "distkeras", "cloudpickle", "pyspark", "keras", "numpy"})
"""Packages that are looked for anyway, or that are no package."""


def packages_of(*values: object) -> set[str]:
    """Return the packages outside the standard library of which `values` name modules, classes or functions.

    A class or function that travels by value, such as one of a notebook, is not named; what it imports only
    when it is called is not found.
    """
    with open(os.devnull, "wb") as nowhere:
        pickler = _Pickler(nowhere, protocol=5, buffer_callback=lambda _: False)
        for value in values:
            pickler.dump(value)
    names = {module.split(".")[0] for module in pickler.modules}
    return {name for name in names if name not in KNOWN and name not in sys.stdlib_module_names}


def packages_of_model(model: ModelSpec) -> set[str]:
    """Return the packages of the user's own code that workers import to open `model`."""
    from distkeras.model.attributes import Paths, loads, unpacked  # They import Keras.

    supplement = model.saved.supplement
    attributes = [*unpacked(supplement.attributes), *unpacked(supplement.settings)]
    custom = cloudpickle.loads(model.saved.custom_objects)
    hooks = loads(supplement.hooks, Paths()) if supplement.hooks else {}
    return packages_of(loads(model.compiled, Paths()), custom, hooks, *attributes)


def packages_of_job(task: Task, model: ModelSpec) -> set[str]:
    """Return the packages of the user's own code that workers import to train."""
    return packages_of_model(model) | packages_of(task) | packages_of_columns(task.columns)


def packages_of_columns(columns: Columns) -> set[str]:
    """Return the packages that the function needs that makes minibatches, if there is one."""
    made_by = columns.preprocess
    return set() if made_by is None else packages_of(cloudpickle.loads(made_by.function))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Notes the modules of what it pickles by name."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modules: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
        elif reduced is NotImplemented and isinstance(value, type | FunctionType | BuiltinFunctionType):
            self.modules.add(getattr(value, "__module__", None) or "builtins")
        return reduced
