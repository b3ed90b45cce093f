"""Where the parameter servers of a training run: beside the driver, or on executors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from distkeras.cluster.shared_access import NotShared
from distkeras.runs.folder import hiding
from distkeras.wire.shared_folder import SharedFolder

if TYPE_CHECKING:
    from distkeras.runs import RunOptions
    from distkeras.wire.store import SnapshotOptions

Where = Literal["driver", "executors", "auto"]

SNAPSHOTS = "snapshots"
"""Name of the folder of snapshots in a run."""


@dataclass(frozen=True)
class Placement:
    """Where the parameter servers run.

    Attributes:
        where: "driver" for processes beside the driver, which the executors must reach; "executors" for Spark
            tasks, so that nothing must reach the driver; "auto" for the driver where every executor reaches
            it, else for executors.
        shared: for servers on executors: a folder that all executors reach, on any filesystem of fsspec,
            such as "s3://bucket/jobs". The driver need not reach it. Default: the run directory.
        storage_options: arguments of fsspec's driver for that folder, such as keys.
        abandoned: seconds without a word of the driver after which servers on executors end, with a last
            snapshot, and leave their slots to others.

    Raises:
        ValueError: `where` is none of the three, or the number of seconds is not positive.
        TypeError: the folder is not a path.
    """

    where: Where = "driver"
    shared: str | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    abandoned: float = 600.0

    def __post_init__(self) -> None:
        if self.where not in get_args(Where):
            raise ValueError(
                f"Expected one of {', '.join(map(repr, get_args(Where)))} as the place of the parameter "
                f"servers. Received: {self.where!r}"
            )
        if not isinstance(self.shared, str | os.PathLike | None) or self.shared == "":
            raise TypeError(
                "`shared` must be a folder that all executors reach, such as 's3://bucket/jobs', or None for "
                f"the run directory. Received: shared={self.shared!r}"
            )
        if self.shared is not None:
            object.__setattr__(self, "shared", os.fspath(self.shared))
        seconds = self.abandoned
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise ValueError(
                f"`abandoned` must be a positive number of seconds. Received: abandoned={seconds!r}"
            )

    def __repr__(self) -> str:
        shared = None if self.shared is None else hiding(self.shared, self.storage_options)(self.shared)
        return f"Placement({self.where!r}, shared={shared!r}, abandoned={self.abandoned})"

    @staticmethod
    def of(given: str | Placement) -> Placement:
        """Return the placement that a trainer's argument `server_placement` stands for.

        Raises:
            ValueError, TypeError: it is none.
        """
        if isinstance(given, Placement):
            return given
        if not isinstance(given, str):
            raise TypeError(
                '`server_placement` must be "driver", "executors", "auto" or a distkeras.Placement. '
                f"Received: server_placement={given!r}"
            )
        return Placement(given)  # type: ignore[arg-type]  # It is checked there.

    def shared_with(self, run: RunOptions | None, snapshots: SnapshotOptions | None) -> Shared | None:
        """Return what servers on executors share; `None` if they are not to be on executors, or cannot be.

        Args:
            run: the run directory; `None` for none.
            snapshots: the options of the snapshots, as the user has given them.

        Raises:
            NotShared: they are to be there, and there is no folder.
        """
        if self.where == "driver":
            return None
        if self.shared is not None:
            return Shared(_folder(self.shared, self.storage_options), snapshots, self.abandoned)
        if run is None:
            if self.where == "auto":
                return None
            raise NotShared(
                "Servers on executors need a folder that all executors share: give the training a run "
                "directory there, by train(..., run='s3://bucket/run'), or the trainer "
                "server_placement=Placement('executors', shared='s3://bucket/jobs'). Received: run=None, "
                "shared=None"
            )
        folder = _folder(run.address, run.storage_options)
        if snapshots is not None and snapshots.address is None:
            within = folder.under(SNAPSHOTS)
            snapshots = replace(snapshots, address=within.address, storage_options=within.storage_options)
        return Shared(folder, snapshots, self.abandoned)


@dataclass(frozen=True)
class Shared:
    """What servers on executors share.

    Attributes:
        folder: the folder where they are found.
        snapshots: when they write snapshots, and where, if not beside their addresses; `None` for none.
        abandoned: as in `Placement`.
    """

    folder: SharedFolder
    snapshots: SnapshotOptions | None
    abandoned: float


@dataclass(frozen=True)
class Placed:
    """Where the servers of a training have run.

    Attributes:
        where: "driver" or "executors".
        reason: why.
    """

    where: Literal["driver", "executors"] = "driver"
    reason: str = "as requested"

    def __str__(self) -> str:
        where = "beside the driver" if self.where == "driver" else "on executors"
        return f"{where}: {self.reason}"


def _folder(address: str, storage_options: Mapping[str, Any] | None) -> SharedFolder:
    """Return the folder of an address; executors have other working directories."""
    if address.startswith("memory:"):
        raise NotShared(
            "Servers on executors need a folder that other processes reach too, such as s3://bucket/jobs. "
            f"Received: {address}"
        )
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", address) is None:
        address = os.path.abspath(address)
    return SharedFolder(address, storage_options)
