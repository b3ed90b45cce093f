"""The options of a run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distkeras.runs.checkpoints import Checkpoints
from distkeras.runs.folder import hiding


@dataclass(frozen=True)
class RunOptions:
    """Where a training keeps its run, and what it keeps.

    Attributes:
        address: a folder, on any filesystem that fsspec supports, or Spark's Hadoop: "runs/mnist-7",
            "s3://bucket/runs/mnist-7", "hdfs:///runs/mnist-7".
        checkpoints: the models to keep; `None` for none.
        storage_options: arguments of fsspec's driver, such as keys. They are not written anywhere.

    Raises:
        TypeError: the address is not a text or a path, or another argument has the wrong type.
        ValueError: the address is empty.
    """

    address: str
    checkpoints: Checkpoints | None = field(default_factory=Checkpoints)
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.address, str | os.PathLike):
            raise TypeError(
                f"`address` must be a folder, such as 'runs/mnist'. Received: {type(self.address)}"
            )
        object.__setattr__(self, "address", os.fspath(self.address))
        if not self.address:
            raise ValueError("`address` must be a folder, such as 'runs/mnist'. Received: address=''")
        if not isinstance(self.checkpoints, Checkpoints | None):
            raise TypeError(
                "`checkpoints` must be a distkeras.Checkpoints, or None for none. "
                f"Received: checkpoints={self.checkpoints!r}"
            )
        if not isinstance(self.storage_options, Mapping | None):
            raise TypeError(
                "`storage_options` must be a dict of arguments of fsspec's driver. "
                f"Received: {type(self.storage_options)}"
            )

    def __repr__(self) -> str:
        address = hiding(self.address, self.storage_options)(self.address)
        return f"RunOptions(address={address!r}, checkpoints={self.checkpoints!r})"

    @staticmethod
    def of(run: str | os.PathLike[str] | RunOptions | None) -> RunOptions | None:
        """Return the options that a trainer's argument `run` stands for."""
        return run if isinstance(run, RunOptions | None) else RunOptions(os.fspath(run))
