"""The reference of the site: one page for each public package, from its `__all__`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, ModuleType


@dataclass(frozen=True)
class Page:
    """A page of the reference.

    Attributes:
        name: its file, without the ending.
        title: its heading.
        module: the module whose public names it documents.
        about: what a reader finds on it.
    """

    name: str
    title: str
    module: str
    about: str


PAGES = (
    Page("trainers", "Trainers", "distkeras.trainers", "One class for each way to train."),
    Page("distkeras", "Functions, options and results", "distkeras.trainers", "What trainers take and give."),
    Page(
        "algorithms",
        "Algorithms",
        "distkeras.algorithms",
        "The rules of the optimizers, and what all of them inherit from `Algorithm`.",
    ),
    Page("ml", "Spark ML", "distkeras.ml", "Estimators, models and their summaries."),
    Page("guidance", "Which rule", "distkeras.guidance", "What was measured of the rules, and `recommend`."),
    Page("simulation", "Simulator", "distkeras.simulation", "Train with hundreds of simulated workers."),
    Page("transformers", "Transformers", "distkeras.transformers", "Prepare the columns of a DataFrame."),
    Page("predictors", "Predictors", "distkeras.predictors", "Predict with a Keras model on Spark."),
    Page("evaluators", "Evaluators", "distkeras.evaluators", "Judge the predictions in a DataFrame."),
    Page("lifecycle", "Validation and stopping", "distkeras.lifecycle", "What goes around a training."),
    Page("runs", "Runs", "distkeras.runs", "Keep a training, read it, go on with it."),
    Page("monitor", "Monitors", "distkeras.monitor", "Show a training elsewhere, or write your own display."),
    Page("events", "Events", "distkeras.events", "What a training reports while it runs."),
    Page("doctor", "Checks before a training", "distkeras.doctor", "What `trainer.check` finds."),
    Page("record", "Record and replay", "distkeras.record", "Read and replay the commits of a training."),
    Page("codecs", "Compression", "distkeras.wire.codecs", "How messages are compressed."),
    Page("jobs", "Jobs", "distkeras.jobs", "Send a project to a cluster, and ask how it fares."),
    Page("class_archive", "Class archive", "distkeras.class_archive", "Start local sessions faster."),
    Page("utils", "Utilities", "distkeras.utils", "Small functions that dist-keras had as well."),
)

OF_ALGORITHMS = """
Each of these is a trainer. It takes the arguments of
[`DistributedTrainer`](#distkeras.trainers.DistributedTrainer) without `algorithm`, and the hyperparameters of
its algorithm. It has the methods of `DistributedTrainer`. Follow a name for the equation, the hyperparameters
and the paper.

| trainer | hyperparameters and their defaults |
|---|---|
"""


def reference() -> dict[str, str]:
    """Return the Markdown of every page of the reference, by its path in the site."""
    written = {f"reference/{page.name}.md": _page(page) for page in PAGES}
    lines = [f"- [{page.title}]({page.name}.md): {page.about}" for page in PAGES]
    opening = "# Reference\n\nEvery public name, with its arguments, what it returns and what it raises.\n\n"
    written["reference/index.md"] = opening + "\n".join(lines) + "\n"
    return written


def _page(page: Page) -> str:
    module = import_module(page.module)
    if page.module != "distkeras.trainers":
        entry = _rule_entry if page.name == "algorithms" else _entry
        entries = [entry(page.module, name) for name in sorted(module.__all__, key=str.lower)]
        opening = f"# {page.title}\n\n{page.about} Import these names from `{page.module}`.\n\n"
        return opening + "\n".join(entries)
    opening = f"# {page.title}\n\n{page.about} Import these names from `distkeras`.\n\n"
    if page.name == "trainers":
        return opening + _trainers(module)
    return opening + _beside_trainers(module)


def _trainers(module: ModuleType) -> str:
    """Return the sections of the trainers: those with a docstring of their own, and a table of the others."""
    own, of_algorithms = [], []
    for name in sorted(trainers_of(module), key=str.lower):
        algorithm = getattr(getattr(module, name), "algorithm_class", None)
        if algorithm is None:
            own.append(_entry(module.__name__, name))
        else:
            fields = [f"`{each.name}={each.default!r}`" for each in dataclasses.fields(algorithm)]
            link = f"[`{name}`][distkeras.algorithms.{name}]"
            of_algorithms.append(f"| {link} | {', '.join(fields) or 'none'} |")
    table = "## Trainers of algorithms\n" + OF_ALGORITHMS + "\n".join(of_algorithms) + "\n\n"
    return table + "## Other trainers\n\n" + "\n".join(own)


def _beside_trainers(module: ModuleType) -> str:
    names = sorted(set(module.__all__) - trainers_of(module), key=str.lower)
    kinds = {name: _kind(getattr(module, name)) for name in names}
    sections = []
    for kind in ("Functions", "Options and results", "Errors and warnings"):
        chosen = [_entry(module.__name__, name) for name in names if kinds[name] == kind]
        sections.append(f"## {kind}\n\n" + "\n".join(chosen))
    return "\n".join(sections)


def trainers_of(module: ModuleType) -> set[str]:
    """Return those public names of `distkeras.trainers` that are trainers."""
    return {
        name
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) and issubclass(getattr(module, name), module.Trainer)
    }


def _kind(value: object) -> str:
    if isinstance(value, FunctionType):
        return "Functions"
    if inspect.isclass(value) and issubclass(value, Exception):
        return "Errors and warnings"
    return "Options and results"


def _entry(module: str, name: str) -> str:
    """Return the line that mkdocstrings turns into the documentation of a name."""
    return f"::: {module}.{name}\n"


def _rule_entry(module: str, name: str) -> str:
    """Return the entry of a name of `distkeras.algorithms`, without the methods that rules inherit.

    Each inherits some thirty members of `Algorithm`. Repeated for every rule, they would fill the page.
    """
    value, base = getattr(import_module(module), name), import_module(module).Algorithm
    is_rule = inspect.isclass(value) and issubclass(value, base) and value is not base
    return _entry(module, name) + ("    options:\n      inherited_members: false\n" if is_rule else "")


def documented(pages: Iterable[str]) -> set[str]:
    """Return the full names that the Markdown of reference pages documents."""
    names = set()
    for text in pages:
        for line in text.splitlines():
            if line.startswith("::: "):
                names.add(line.removeprefix("::: "))
            if line.startswith("| [`"):
                names.add("distkeras.trainers." + line.partition("`")[2].partition("`")[0])
    return names
