"""How several parameter servers share one center, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkeras.center import server_bounds
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.server_memory import check_memory, memory_needed


@dataclass(frozen=True)
class ServerParts:
    """The parts of a center: contiguous and equal in bytes; if the algorithm needs tensors, whole tensors.

    For an ensemble, each server has a part of every member.

    Attributes:
        num_servers: number of servers.
        setup: settings of the whole center.
        size: elements of the center.

    Raises:
        ValueError: several servers for a center in fragments, or a server may need more memory than the
            options allow.
    """

    num_servers: int
    setup: ServerSetup
    size: int

    def __post_init__(self) -> None:
        if self.num_servers > 1 and self.setup.center.fragments is not None:
            raise ValueError(f"Fragments need one parameter server. Received: num_servers={self.num_servers}")
        if (memory := self.setup.options.memory) is not None:
            for need in self.needs():
                check_memory(memory, need)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last element, plus one, of each part: there may be fewer than `num_servers`."""
        return server_bounds(self.size, self.num_servers, self.setup.center.whole_tensors(self.size))

    @property
    def sizes(self) -> list[int]:
        """Elements of each part."""
        return [high - low for low, high in self.bounds]

    def setup_of(self, index: int) -> ServerSetup:
        """Return the settings of one server; the others need the address of the first, if it leads."""
        # The members of an ensemble have one worker each: there is no order to agree on.
        together = len(self.bounds) > 1 and not self.setup.center.independent
        low, high = self.bounds[index]
        center = self.setup.center
        return replace(
            self.setup,
            center=center.part(low, high) if index == 0 else center.follower(low, high),
            index=index,
            leads=together and index == 0,
        )

    def needs(self) -> list[dict[str, int]]:
        """Return how many bytes each server may need, by purpose; see `memory_needed`."""
        setup = self.setup
        return [
            memory_needed(
                self.setup_of(index).center,
                size,
                compression=setup.compression,
                snapshots=setup.options.snapshots is not None,
                shared_memory=setup.options.shared_memory,
                follows=index > 0 and not setup.center.independent,
                report_bytes=setup.report_bytes if index == 0 else 0,
            )
            for index, size in enumerate(self.sizes)
        ]
