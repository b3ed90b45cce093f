"""What a training wants of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distkeras.cluster.options import ServerOptions
from distkeras.cluster.placement import Where
from distkeras.cluster.resources import Resources


@dataclass(frozen=True)
class Wanted:
    """What a training wants of a cluster.

    Attributes:
        backend: Keras backend of the workers.
        num_workers: number of workers.
        synchronous: whether all of them must run at once.
        options: options of the parameter server.
        placement: where the parameter servers run.
        worker_bytes: least memory of a worker, by purpose; empty if no model is known.
        server_bytes: most memory of each parameter server, by purpose; empty if no model is known.
        spool_bytes: bytes of rows that a worker keeps on its disk.
        further: packages that the user's own code needs.
        resources: those of each worker; `None` if the application's settings decide.
    """

    backend: str
    num_workers: int = 2
    synchronous: bool = False
    options: ServerOptions = field(default_factory=ServerOptions)
    placement: Where = "driver"
    worker_bytes: Mapping[str, int] = field(default_factory=dict)
    server_bytes: tuple[Mapping[str, int], ...] = ()
    spool_bytes: int = 0
    further: frozenset[str] = frozenset()
    resources: Resources | None = None
