"""The replica on PyTorch: Keras's eager step, without the loop around it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, final

import keras
import numpy as np
import numpy.typing as npt
import torch

from distkeras.algorithms import Vector
from distkeras.worker.compilable import compilable
from distkeras.worker.metric_states import Sums
from distkeras.worker.replica import Replica, Steps
from distkeras.worker.step_buffer import Batch, leaves_of, map_leaves

logger = logging.getLogger(__name__)

BESIDE_BYTES = 16 * 2**20
"""Size of the smallest group of minibatches that is copied beside the steps. The copy of a smaller one takes
less of the GPU's time, 0.3 ms, than the events that tie two streams together take of the step's: 0.5 ms."""


@final
class TorchDevice:
    """A device that copies from page-locked memory; large copies run beside its steps, where it has streams.

    Args:
        device: a GPU; in tests a CPU, which copies at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._locks = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._locks else None

    def put(self, batches: Sequence[Batch]) -> Callable[[], Sequence[Batch]]:
        leaves: list[torch.Tensor] = []

        def copy(array: npt.NDArray[Any]) -> torch.Tensor:
            leaves.append(self._copy(array))
            return leaves[-1]

        size = sum(array.nbytes for batch in batches for array in leaves_of(batch))
        beside = self._copies if size >= BESIDE_BYTES else None
        with torch.cuda.stream(beside):  # `None` stands for the stream of the steps.
            placed: list[Batch] = [map_leaves(copy, batch) for batch in batches]
            done = None if beside is None else beside.record_event()

        def landed() -> Sequence[Batch]:
            if done is not None:
                steps = torch.cuda.current_stream(self._device)
                steps.wait_event(done)
                # Else another copy may get the memory while a step still reads it.
                for leaf in leaves:
                    leaf.record_stream(steps)
            return placed

        return landed

    def _copy(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """Return `array` on the device, of the type that Keras would give it."""
        dtype = _type_of(array.dtype)
        host = torch.empty(array.shape, dtype=dtype, pin_memory=self._locks)
        host.view(torch.int16 if dtype is torch.bfloat16 else dtype).numpy()[...] = (
            array.view(np.int16) if dtype is torch.bfloat16 else array
        )
        return host.to(self._device, non_blocking=True)

    def memory_for(self, size: int, dtype: npt.DTypeLike) -> Vector:
        """Return a new vector in page-locked memory."""
        vector: Vector = torch.empty(size, dtype=_type_of(np.dtype(dtype)), pin_memory=self._locks).numpy()
        return vector

    def read(self, flat: torch.Tensor) -> Vector:
        """Return a copy of a tensor of the device, in page-locked memory."""
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=self._locks)
        host.copy_(flat, non_blocking=True)
        if self._locks:
            torch.cuda.current_stream(self._device).synchronize()
        vector: Vector = host.numpy()
        return vector

    def write(self, vector: Vector) -> torch.Tensor:
        """Return a copy of `vector` on the device; the caller may change it afterwards."""
        # Page-locked memory, such as that where the center arrives, is copied seven times as fast. To copy
        # into such memory first would take longer than the copy from other memory.
        source = torch.from_numpy(vector)
        copy = source.to(self._device, non_blocking=True)
        if self._locks and source.is_pinned():
            torch.cuda.current_stream(self._device).synchronize()
        return copy


@final
class TorchReplica(Replica):
    """The variables stay in the model; `jit_compile=True` compiles the step as Keras does."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._sizes = [segment.size for segment in self.layout.segments()]
        self._velocity_values: list[torch.Tensor] = [velocity.value for velocity in self._velocities]
        self._dtype: torch.dtype = getattr(torch, self.layout.dtype)
        device = next((cell.value.device for cell in self._cells), torch.device("cpu"))
        self.device: TorchDevice | None = TorchDevice(device) if device.type != "cpu" else None
        self._staged = torch.empty(self.layout.size if self.device is None else 0, dtype=self._dtype)

    def _read(self) -> Vector:
        with torch.no_grad():
            flat = _join(self._tensors(), self._dtype)
            if self._velocities:
                flat[: self.layout.num_trainable].sub_(
                    _join(self._velocity_values, self._dtype), alpha=self._momentum
                )
        if self.device is not None:
            return self.device.read(flat)
        vector: Vector = flat.numpy()
        return vector

    def _write(self, vector: Vector) -> None:
        weights = self._tensors()
        if self.device is None:
            np.copyto(self._staged.numpy(), vector)
            parts = self._staged.split(self._sizes)
        else:
            parts = self.device.write(vector).split(self._sizes)
        with torch.no_grad():
            for weight, part in zip(weights, parts, strict=True):
                weight.copy_(part.view(weight.shape))
            for weight, velocity in zip(weights, self._velocity_values, strict=False):  # trainable ones
                weight.add_(velocity, alpha=self._momentum)

    def _tensors(self) -> list[torch.Tensor]:
        # Read again each time: a module may replace a buffer by another tensor.
        return [cell.value for cell in self._cells]

    def _sync(self) -> None:
        """Nothing to do: the model's variables are the replica's."""

    def _load(self) -> None:
        """Nothing to do: the model's variables are the replica's."""

    def _prepare(self) -> None:
        # PyTorch modules inside the model need it, as in `fit`.
        self.model.train()
        self._train_step = self.model.train_step
        if self.model.jit_compile and self._compiler_is_there():
            self._train_step = torch.compile(self.model.train_step)

    def _compiler_is_there(self) -> bool:
        compiler = os.environ.get("CXX", "g++")  # The default that PyTorch uses.
        on_cpu = all(weight.device.type == "cpu" for weight in self._tensors())
        if on_cpu and shutil.which(compiler) is None:
            logger.warning(
                "`jit_compile=True` needs a C++ compiler, and this worker has none, so its step stays eager. "
                "Install one, or set CXX to its path. Received: CXX=%r",
                compiler,
            )
            return False
        return True

    def _compile_steps(self, batch: Batch) -> Steps | None:
        return None  # An eager step is no faster in a sequence of steps.

    def _step(self, batch: Batch) -> dict[str, Any]:
        logs: dict[str, Any] = self._train_step(compilable(self.model, batch))
        return logs

    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        fetched: dict[str, Any] = keras.tree.map_structure(keras.ops.convert_to_numpy, logs)
        return fetched

    def _reset_metrics(self) -> None:
        self.empty_metrics()

    def _take_metrics(self) -> list[Sums]:
        tensors = [variable.value.detach().cpu() for variable in self.model.metrics_variables]
        taken = [np.array(tensor.numpy(), np.float64) for tensor in tensors]
        self._reset_metrics()
        return taken


def _type_of(dtype: np.dtype[Any]) -> torch.dtype:
    """Return the type that Keras gives to arrays of `dtype`: PyTorch lacks some."""
    replaced = {"uint16": torch.int32, "uint32": torch.int64}.get(dtype.name)
    found: torch.dtype = replaced or getattr(torch, dtype.name)
    return found


def _join(tensors: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    parts = [tensor.reshape(-1).to(dtype) for tensor in tensors]
    return torch.cat(parts) if parts else torch.empty(0, dtype=dtype)
