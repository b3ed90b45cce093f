"""Which rule for which machines: `recommend`, from what `benchmarks/convergence.py` measured."""

from distkeras.guidance.measured import Measured, measurements
from distkeras.guidance.recommend import Recommendation, recommend

__all__ = ["Measured", "Recommendation", "measurements", "recommend"]
