"""The distributed optimizers, one file each: pure rules over flat float32 arrays. NumPy only."""

from __future__ import annotations

from difflib import get_close_matches

from distkeras.algorithms.adag import ADAG
from distkeras.algorithms.adaptive_adag import AdaptiveADAG
from distkeras.algorithms.aeasgd import AEASGD
from distkeras.algorithms.averaging import Averaging
from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.dcasgd import DCASGD
from distkeras.algorithms.delayed_nesterov import DelayedNesterov
from distkeras.algorithms.diloco import DiLoCo
from distkeras.algorithms.downpour import DOWNPOUR
from distkeras.algorithms.dynsgd import DynSGD
from distkeras.algorithms.eamsgd import EAMSGD
from distkeras.algorithms.easgd import EASGD
from distkeras.algorithms.fedadam import FedAdam
from distkeras.algorithms.gap_aware import GapAware
from distkeras.algorithms.local_sgd import LocalSGD
from distkeras.algorithms.ringmaster import Ringmaster
from distkeras.algorithms.sequential import Sequential
from distkeras.algorithms.slowmo import SlowMo

REGISTRY: dict[str, type[Algorithm]] = {
    rule.__name__: rule
    for rule in (
        DOWNPOUR,
        ADAG,
        AdaptiveADAG,
        DynSGD,
        AEASGD,
        EAMSGD,
        EASGD,
        Averaging,
        LocalSGD,
        SlowMo,
        DiLoCo,
        FedAdam,
        DelayedNesterov,
        GapAware,
        DCASGD,
        Ringmaster,
        Sequential,
    )
}
"""Every rule by name. A rule that stands here is covered by every law of the test suite."""


def get(algorithm: str | Algorithm) -> Algorithm:
    """Return the rule of that name with its defaults, or the rule itself.

    Args:
        algorithm: a name of `REGISTRY` in upper or lower case, or a rule.

    Raises:
        ValueError: no rule has that name.
        TypeError: neither a name nor a rule.
    """
    if isinstance(algorithm, Algorithm):
        return algorithm
    if not isinstance(algorithm, str):
        raise TypeError(
            "`algorithm` must be the name of a rule or an instance of one, such as 'DynSGD' or "
            f"DynSGD(communication_window=5). Received: algorithm={algorithm!r}"
        )
    by_lower_case = {name.lower(): rule for name, rule in REGISTRY.items()}
    if algorithm.lower() in by_lower_case:
        return by_lower_case[algorithm.lower()]()
    close = get_close_matches(algorithm.lower(), by_lower_case, n=1)
    hint = (
        f"Did you mean {by_lower_case[close[0]].__name__!r}?" if close else f"Known: {', '.join(REGISTRY)}."
    )
    raise ValueError(f"No rule has the name {algorithm!r}. {hint} Received: algorithm={algorithm!r}")


__all__ = [
    "ADAG",
    "AEASGD",
    "DCASGD",
    "DOWNPOUR",
    "EAMSGD",
    "EASGD",
    "REGISTRY",
    "AdaptiveADAG",
    "Algorithm",
    "Averaging",
    "Commit",
    "DelayedNesterov",
    "DiLoCo",
    "DynSGD",
    "FedAdam",
    "GapAware",
    "LocalSGD",
    "Ringmaster",
    "Sequential",
    "SlowMo",
    "State",
    "Vector",
    "get",
]
