"""How many regions a training has, and the rule between their servers and the global one."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkeras.algorithms import Algorithm, HALoS


@dataclass(frozen=True)
class RegionServers:
    """Servers in two levels: the workers of a region have a center of their own, below a global one.

    The workers' rule is that of the trainer. After each `communication_window` commits of its workers, a
    region's center exchanges with the global one as a worker does, by the rule here. All centers are in the
    process of the parameter server.

    Attributes:
        num_regions: number of regions. Each has equally many workers, with consecutive indices.
        algorithm: the rule between the regions and the global center. Its window counts commits.

    Raises:
        ValueError: the number is not an integer of at least 1, or a server cannot be a worker of the rule: it
            is synchronous, has no window or fragments, or has workers take other steps.

    Example:
        >>> from distkeras.algorithms import HALoS
        >>> RegionServers(2, HALoS(16)).num_regions
        2

    Reference: Kim et al. 2025, HALoS (2506.04531).
    """

    num_regions: int
    algorithm: Algorithm = field(default_factory=HALoS)

    def __post_init__(self) -> None:
        count, rule = self.num_regions, self.algorithm
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"`regions` must be a positive integer. Received: num_regions={count!r}")
        if not isinstance(rule, Algorithm):
            raise TypeError(
                "Expected an instance of a distkeras.algorithms.Algorithm between the regions, such as "
                f"HALoS(32). Received: algorithm={rule!r}"
            )
        window = rule.communication_window
        unfit = (
            rule.synchronous
            or rule.fragments != 1
            or rule.stops
            or rule.inner_momentum
            or rule.inner_averaging
        )
        if unfit or window is None:
            raise ValueError(
                "Expected an asynchronous algorithm between the regions, with a `communication_window` in "
                "commits, without fragments, `stop` and steps of its own, such as HALoS(32). Received: "
                f"algorithm={rule!r}"
            )

    @property
    def window(self) -> int:
        """Commits of a region's workers between two exchanges with the global server."""
        return self.algorithm.communication_window or 1

    @classmethod
    def of(cls, regions: int | RegionServers | None) -> RegionServers | None:
        """Return `regions`; a number stands for so many regions under the default rule."""
        return regions if regions is None or isinstance(regions, RegionServers) else cls(regions)
