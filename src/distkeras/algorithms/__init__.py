"""The distributed optimizers, one per file: pure algorithms over flat float32 arrays. NumPy only."""

from __future__ import annotations

from difflib import get_close_matches as _closest

from distkeras.algorithms.adag import ADAG as ADAG
from distkeras.algorithms.adagrad_downpour import AdagradDOWNPOUR as AdagradDOWNPOUR
from distkeras.algorithms.adaptive_adag import AdaptiveADAG as AdaptiveADAG
from distkeras.algorithms.adaptive_dcasgd import AdaptiveDCASGD as AdaptiveDCASGD
from distkeras.algorithms.aeasgd import AEASGD as AEASGD
from distkeras.algorithms.averaging import Averaging as Averaging
from distkeras.algorithms.base import BUFFER as BUFFER
from distkeras.algorithms.base import DISCARD as DISCARD
from distkeras.algorithms.base import TAKE as TAKE
from distkeras.algorithms.base import Algorithm as Algorithm
from distkeras.algorithms.base import Commit as Commit
from distkeras.algorithms.base import Memory as Memory
from distkeras.algorithms.base import State as State
from distkeras.algorithms.base import Vector as Vector
from distkeras.algorithms.base import Verdict as Verdict
from distkeras.algorithms.dcasgd import DCASGD as DCASGD
from distkeras.algorithms.decoupled_diloco import DecoupledDiLoCo as DecoupledDiLoCo
from distkeras.algorithms.delayed_nesterov import DelayedNesterov as DelayedNesterov
from distkeras.algorithms.diloco import DiLoCo as DiLoCo
from distkeras.algorithms.downpour import DOWNPOUR as DOWNPOUR
from distkeras.algorithms.dylu import DyLU as DyLU
from distkeras.algorithms.dylu import window_by_speed as window_by_speed
from distkeras.algorithms.dynsgd import DynSGD as DynSGD
from distkeras.algorithms.eager_diloco import EagerDiLoCo as EagerDiLoCo
from distkeras.algorithms.eamsgd import EAMSGD as EAMSGD
from distkeras.algorithms.easgd import EASGD as EASGD
from distkeras.algorithms.fairness import is_fair as is_fair
from distkeras.algorithms.fedadam import FedAdam as FedAdam
from distkeras.algorithms.fedbuff import FedBuff as FedBuff
from distkeras.algorithms.gap_aware import GapAware as GapAware
from distkeras.algorithms.gpa import GPA as GPA
from distkeras.algorithms.halos import HALoS as HALoS
from distkeras.algorithms.local_sgd import LocalSGD as LocalSGD
from distkeras.algorithms.rescaled_asgd import RescaledASGD as RescaledASGD
from distkeras.algorithms.ringleader_asgd import RingleaderASGD as RingleaderASGD
from distkeras.algorithms.ringmaster import Ringmaster as Ringmaster
from distkeras.algorithms.sequential import Sequential as Sequential
from distkeras.algorithms.slowmo import SlowMo as SlowMo
from distkeras.algorithms.sparseloco import SparseLoCo as SparseLoCo
from distkeras.algorithms.streaming_diloco import StreamingDiLoCo as StreamingDiLoCo
from distkeras.algorithms.trimmed_mean import TrimmedMean as TrimmedMean

REGISTRY: dict[str, type[Algorithm]] = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Algorithm) and value is not Algorithm
}
"""Every algorithm imported above, by name: the import registers it. All laws of the tests run on each."""

__all__ = [
    *("BUFFER", "DISCARD", "REGISTRY", "TAKE", "Algorithm", "Commit", "Memory", "State", "Vector", "Verdict"),
    *("get", "is_fair", "window_by_speed"),
    *REGISTRY,
]


def get(algorithm: str | Algorithm) -> Algorithm:
    """Return the algorithm with that name and its defaults, or the algorithm itself.

    Args:
        algorithm: a name in `REGISTRY`, in upper or lower case, or an algorithm.

    Raises:
        ValueError: no algorithm has that name.
        TypeError: `algorithm` is neither a name nor an algorithm.
    """
    if isinstance(algorithm, Algorithm):
        return algorithm
    if not isinstance(algorithm, str):
        raise TypeError(
            "`algorithm` must be the name of an algorithm or an instance of one, such as 'DynSGD' or "
            f"DynSGD(communication_window=5). Received: algorithm={algorithm!r}"
        )
    by_lower_case = {name.lower(): known for name, known in REGISTRY.items()}
    if algorithm.lower() in by_lower_case:
        return by_lower_case[algorithm.lower()]()
    close = _closest(algorithm.lower(), by_lower_case, n=1)
    hint = (
        f"Did you mean {by_lower_case[close[0]].__name__!r}?" if close else f"Known: {', '.join(REGISTRY)}."
    )
    raise ValueError(f"No algorithm has the name {algorithm!r}. {hint} Received: algorithm={algorithm!r}")
