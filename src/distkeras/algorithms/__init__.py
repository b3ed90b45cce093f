"""The distributed optimizers, one file each: pure rules over flat float32 arrays. NumPy only."""

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.downpour import DOWNPOUR
from distkeras.algorithms.sequential import Sequential

REGISTRY: dict[str, type[Algorithm]] = {rule.__name__: rule for rule in (DOWNPOUR, Sequential)}
"""Every rule by name. A rule that stands here is covered by every law of the test suite."""

__all__ = ["DOWNPOUR", "REGISTRY", "Algorithm", "Commit", "Sequential", "State", "Vector"]
