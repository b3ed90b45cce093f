"""The replica on TensorFlow: one graph for the step, one to read the weights and one to write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from distkeras.algorithms import Vector
from distkeras.worker.metric_states import Sums
from distkeras.worker.replica import Replica, Steps
from distkeras.worker.step_buffer import Batch, leaves_of, map_leaves


@final
class TensorFlowDevice:
    """A device of TensorFlow.

    Args:
        name: such as `GPU:0`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def put(self, batches: Sequence[Batch]) -> Callable[[], Sequence[Batch]]:
        placed: list[Batch] = [map_leaves(self._copy, batch) for batch in batches]
        return lambda: placed

    def memory_for(self, size: int, dtype: npt.DTypeLike) -> Vector | None:
        return None  # TensorFlow copies by page-locked memory of its own.

    def _copy(self, array: npt.NDArray[Any]) -> Any:
        if array.dtype.hasobject or array.dtype == np.int32:
            return array  # TensorFlow keeps both in the host's memory: its kernels expect them there.
        with tf.device(self._name):
            return tf.identity(array)


@final
class TensorFlowReplica(Replica):
    """The variables stay in the model; a graph assigns to them in place."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        if tf.config.list_logical_devices("GPU"):
            self.device = TensorFlowDevice("GPU:0")
        self._sizes = [segment.size for segment in self.layout.segments()]
        self._flatten = tf.function(self._make_flat, autograph=False)
        signature = [tf.TensorSpec([self.layout.size], self.layout.dtype)]
        self._assign = tf.function(self._assign_parts, input_signature=signature, autograph=False)

    def _read(self) -> Vector:
        vector: Vector = self._flatten().numpy()
        return vector

    def _write(self, vector: Vector) -> None:
        # `constant` copies; `convert_to_tensor` need not.
        self._assign(tf.constant(vector, self.layout.dtype))

    def _sync(self) -> None:
        """Nothing to do: the model's variables are the replica's."""

    def _load(self) -> None:
        """Nothing to do: the model's variables are the replica's."""

    def _prepare(self) -> None:
        self._train_step: Any = self._counted_step
        if not self.model.run_eagerly:
            self._train_step = tf.function(
                self._counted_step, reduce_retracing=True, jit_compile=self.model.jit_compile, autograph=False
            )
        self._reset = tf.function(self.empty_metrics, autograph=False)
        self._take = tf.function(self._make_taken, autograph=False)

    def _counted_step(self, batch: Batch) -> dict[str, Any]:
        # Python runs this function when TensorFlow traces it, once per compilation.
        self.num_compilations += 1
        logs: dict[str, Any] = self.model.train_step(batch)
        return logs

    def _compile_steps(self, batch: Batch) -> Steps | None:
        if self.model.run_eagerly or self.model.jit_compile:
            return None
        specs = [tf.TensorSpec((None, *leaf.shape), _dtype(leaf)) for leaf in leaves_of(batch)]
        one = map_leaves(lambda leaf: tf.TensorSpec(leaf.shape, _dtype(leaf)), batch)
        logs = self._train_step.get_concrete_function(one).structured_outputs
        if not all(log.shape.is_fully_defined() for log in tf.nest.flatten(logs)):
            return None

        def batch_at(leaves: list[tf.Tensor], index: tf.Tensor) -> Batch:
            parts = iter(leaves)
            packed: Batch = map_leaves(lambda _: next(parts)[index], batch)
            return packed

        @tf.function(input_signature=[specs], autograph=False)  # type: ignore[untyped-decorator]
        def train_steps(leaves: list[tf.Tensor]) -> dict[str, Any]:
            # One at a time: steps depend on each other only by the weights, which the graph does not track.
            _, last = tf.while_loop(
                lambda index, _: index < tf.shape(leaves[0])[0],
                lambda index, _: (index + 1, self._train_step(batch_at(leaves, index))),
                (0, tf.nest.map_structure(lambda log: tf.zeros(log.shape, log.dtype), logs)),
                parallel_iterations=1,
            )
            trained: dict[str, Any] = last
            return trained

        return lambda batches, count: train_steps([leaf[:count] for leaf in leaves_of(batches)])

    def _step(self, batch: Batch) -> dict[str, Any]:
        logs: dict[str, Any] = self._train_step(batch)
        return logs

    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        fetched: dict[str, Any] = tf.nest.map_structure(np.asarray, logs)
        return fetched

    def _reset_metrics(self) -> None:
        self._reset()

    def _take_metrics(self) -> list[Sums]:
        shapes = [tuple(variable.shape) for variable in self.model.metrics_variables]
        edges = list(accumulate(math.prod(shape) for shape in shapes))[:-1]
        parts = np.split(self._take().numpy(), edges)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)] if shapes else []

    def _make_taken(self) -> tf.Tensor:
        # One graph reads and resets: each read by itself would take as long.
        values = [variable.value for variable in self.model.metrics_variables]
        flat = [tf.reshape(tf.cast(value, tf.float64), [-1]) for value in values]
        taken = tf.concat([*flat, tf.zeros(0, tf.float64)], 0)
        with tf.control_dependencies([taken]):
            self.empty_metrics()
        return taken

    def _make_flat(self) -> tf.Tensor:
        weights = [cell.value for cell in self._cells]
        for index, velocity in enumerate(self._velocities):
            weights[index] = weights[index] - self._momentum * velocity.value
        parts = [tf.reshape(tf.cast(weight, self.layout.dtype), [-1]) for weight in weights]
        # A model may have no weights at all.
        return tf.concat([tf.zeros(0, self.layout.dtype), *parts], 0)

    def _assign_parts(self, vector: tf.Tensor) -> None:
        parts = tf.split(vector, self._sizes) if self._sizes else []
        for weight, part in zip(self._cells, parts, strict=True):
            weight.value.assign(tf.cast(tf.reshape(part, weight.shape), weight.dtype))
        for weight, velocity in zip(self._cells, self._velocities, strict=False):  # the trainable ones
            weight.value.assign_add(self._momentum * velocity.value)


def _dtype(leaf: npt.NDArray[Any]) -> tf.DType:
    return tf.string if leaf.dtype.hasobject else tf.as_dtype(leaf.dtype)
