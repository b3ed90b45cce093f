"""The settings of a center as plain JSON for its record, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from distkeras.algorithms import REGISTRY, Algorithm
from distkeras.center.bad_updates import BadUpdates
from distkeras.center.config import CenterConfig
from distkeras.center.elastic import Elastic
from distkeras.center.fragments import Fragments
from distkeras.center.independent import Independent
from distkeras.center.making import AnyCenter
from distkeras.record.entries import RecordError

_PLAIN = (bool, int, float, str, type(None))


def settings_of(center: AnyCenter, shape: Sequence[int]) -> dict[str, Any]:
    """Return the settings of `center` as plain JSON; `shape` is the shape of its first vector."""
    first = center.members[0]
    config = first.config if isinstance(center, Independent) else center.config
    own = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in ("algorithm", "bad_updates", "fragments", "elastic", "regions")
    }
    return own | {
        "algorithm": _describe(config.algorithm),
        "bad_updates": asdict(config.bad_updates),
        "fragments": None if config.fragments is None else config.fragments.parts,
        "elastic": None if config.elastic is None else asdict(config.elastic),
        "independent": isinstance(center, Independent),
        "num_shards": max(len(member.shards) for member in center.members),
        "shape": list(shape),
    }


def config_of(settings: dict[str, Any], algorithm: Algorithm | None) -> CenterConfig:
    """Return the configuration from `settings_of`; for an ensemble, that of each member.

    Args:
        settings: the settings in a record.
        algorithm: the algorithm; by default the one of this library that the settings name.

    Raises:
        ValueError: the algorithm is not part of this library and was not passed, or another one was passed.
        RecordError: this version of distkeras does not know the settings.
    """
    names = {field.name for field in fields(CenterConfig)}
    known = {name: value for name, value in settings.items() if name in names}
    known["algorithm"] = _algorithm_of(settings["algorithm"], algorithm)
    known["independent"] = False
    if (parts := known.get("fragments")) is not None:
        known["fragments"] = Fragments(tuple(tuple((low, high) for low, high in part) for part in parts))
    try:
        known["bad_updates"] = BadUpdates(**settings["bad_updates"])
        if (elastic := known.get("elastic")) is not None:
            known["elastic"] = Elastic(**elastic)
        known["tensors"] = tuple(settings["tensors"])
        if isinstance(known.get("epoch_rows"), list):
            known["epoch_rows"] = tuple(known["epoch_rows"])
        known.pop("member_rows", None)  # The ends of epochs change no center.
        return CenterConfig(**known)
    except (TypeError, KeyError) as error:
        raise RecordError(f"Expected the settings of a center. Received: {settings}") from error


def _describe(algorithm: Algorithm) -> dict[str, Any]:
    values = {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}
    kind = type(algorithm)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": {
            name: value if isinstance(value, _PLAIN) else repr(value) for name, value in values.items()
        },
    }


def _algorithm_of(described: dict[str, Any], given: Algorithm | None) -> Algorithm:
    if given is None:
        known = {_describe_class(rule): rule for rule in REGISTRY.values()}
        if described["class"] in known:
            return known[described["class"]](**described["parameters"])
        raise ValueError(
            f"Expected the algorithm {described['class']}, which is not part of this library: pass "
            "`replay(path, algorithm=...)` an instance with the same parameters. Received: algorithm=None"
        )
    theirs = _describe(given)
    same = theirs["class"].rpartition(".")[2] == described["class"].rpartition(".")[2]
    if not same or theirs["parameters"] != described["parameters"]:
        raise ValueError(
            f"Expected the algorithm of the record, {described['class']} with {described['parameters']}. "
            f"Received: {theirs['class']} with {theirs['parameters']}"
        )
    return given


def _describe_class(rule: type[Algorithm]) -> str:
    return f"{rule.__module__}.{rule.__qualname__}"
