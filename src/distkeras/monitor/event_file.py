"""TensorBoard's event files, by the parts of tensorboardX that write them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = "tensorboardX"
_number = count()


@cache
def parts() -> dict[str, ModuleType]:
    """Return the modules of tensorboardX that are needed, by name.

    The package itself imports PyTorch where that is installed, which takes seconds and hundreds of megabytes.
    So its modules are imported without it, and are forgotten again for those who import it as a whole.

    Raises:
        ImportError: tensorboardX is not installed.
    """
    names = ("event_file_writer", "proto.event_pb2", "proto.summary_pb2", "proto.tensor_pb2")
    if sys.modules.get(_PACKAGE) is None:
        spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
        if spec is None:
            raise ImportError("TensorBoard's files need tensorboardX: pip install 'distkeras[tensorboard]'")
        package = ModuleType(_PACKAGE)
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[_PACKAGE] = package
        try:
            return {name: import_module(f"{_PACKAGE}.{name}") for name in names}
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
                del sys.modules[name]
    return {name: import_module(f"{_PACKAGE}.{name}") for name in names}


class EventFile:
    """A new event file in a folder, which may have earlier ones.

    Args:
        folder: the folder, one curve of TensorBoard's charts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which begin with the time in seconds.
        suffix = f".{os.getpid()}.{next(_number):06d}"
        self._writer = parts()["event_file_writer"].EventsWriter(str(folder / "events"), suffix)

    def scalars(self, values: Mapping[str, float], step: int, timestamp: float) -> None:
        """Write values by name, for a step and a time in seconds since the Unix epoch."""
        kind = parts()["proto.summary_pb2"].Summary
        found = kind(value=[kind.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(step=step, wall_time=timestamp, summary=found)

    def text(self, name: str, text: str) -> None:
        """Write a text in Markdown."""
        summaries, tensors = parts()["proto.summary_pb2"], parts()["proto.tensor_pb2"]
        plugin = summaries.SummaryMetadata.PluginData(plugin_name="text")
        value = summaries.Summary.Value(
            tag=name,
            metadata=summaries.SummaryMetadata(plugin_data=plugin),
            tensor=tensors.TensorProto(dtype="DT_STRING", string_val=[text.encode()]),
        )
        self._write(step=0, wall_time=time.time(), summary=summaries.Summary(value=[value]))

    def drop(self, step: int) -> None:
        """Let TensorBoard drop what was written so far of `step` and later ones, in earlier files too."""
        kind = parts()["proto.event_pb2"].SessionLog
        self._write(step=step, wall_time=time.time(), session_log=kind(status=kind.START))

    def flush(self) -> None:
        """Hand what is written to the system."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()

    def _write(self, **event: Any) -> None:
        self._writer.write_event(parts()["proto.event_pb2"].Event(**event))
