"""Tests of minibatches that are copied ahead, run by test_device.py on every backend.

No GPU is needed: the device is a second CPU of the backend, where it can have one.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext

import keras
import numpy as np
import pyarrow as pa
import pytest

from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.worker.backends import make_replica
from distkeras.worker.columns import Column, Columns
from distkeras.worker.device import copied_ahead
from distkeras.worker.feed import Feed

BACKEND = keras.backend.backend()
ROWS, BATCH, WIDTH = 30, 8, 5  # The last minibatch has 6 rows.

if BACKEND == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def second_device():
    """A device on which the backend does not compute by itself, and how it names its arrays' place."""
    if BACKEND == "jax":
        import jax

        from distkeras.worker.backends.jax_device import JaxDevice, Slot

        other = jax.devices()[1]

        def is_there(array):
            arrays = (array.index, *jax.tree.leaves(array.stack)) if isinstance(array, Slot) else (array,)
            return all(each.devices() == {other} for each in arrays)

        return JaxDevice(other), is_there
    if BACKEND == "tensorflow":
        from distkeras.worker.backends.tensorflow_replica import TensorFlowDevice

        # What TensorFlow computes with from the host's memory stays there.
        return TensorFlowDevice(
            "CPU:1"
        ), lambda array: array.dtype == np.int32 or array.device.endswith("CPU:1")
    import torch

    from distkeras.worker.backends.torch_replica import TorchDevice

    return TorchDevice(torch.device("cpu")), lambda array: isinstance(array, torch.Tensor)


def model():
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)]
    made = keras.Sequential([keras.Input((WIDTH,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("adam", loss, metrics=["accuracy"])
    return made


def feed():
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(ROWS, WIDTH)).astype(np.float32), draw.integers(0, 3, ROWS).astype(np.int32)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)
    weights = pa.array(draw.uniform(0.5, 2, ROWS).astype(np.float32))
    batch = pa.RecordBatch.from_arrays([rows, pa.array(y), weights], ["x", "y", "weight"])
    columns = Columns(
        (Column("x", (WIDTH,), "float32"),),
        (Column("y", (), "int32"),),
        (Column("weight", (), "float32"),),
    )
    return Feed(iter([batch]), columns, batch_size=BATCH, partition=0, shuffle=True, num_epoch=3)


def trained(replica, passes):
    for minibatch in (each for epoch in range(3) for each in passes.epoch(epoch)):
        replica.train(minibatch.x, minibatch.y, minibatch.sample_weight)
    return replica.read(), replica.metrics()


def test_minibatches_copied_ahead_train_like_those_in_place(monkeypatch):
    device, is_there = second_device()
    spec, seen = serialize_model(model()), []
    plain, ahead = make_replica(deserialize_model(spec)), make_replica(deserialize_model(spec))
    assert plain.device is None  # On a CPU the step reads arrays where they are.
    ahead.device = device
    step = ahead._step
    monkeypatch.setattr(ahead, "_step", lambda batch: seen.extend(batch) or step(batch))
    with feed() as rows:
        weights, metrics = trained(plain, rows)
    with feed() as rows, copied_ahead(rows, device) as passes:
        assert passes is not rows
        weights_ahead, metrics_ahead = trained(ahead, passes)
    assert len(seen) == 3 * 3 * -(-ROWS // BATCH)
    assert all(is_there(array) for array in seen)
    assert ahead.num_compilations == plain.num_compilations
    np.testing.assert_allclose(weights_ahead, weights, rtol=2e-5, atol=2e-6)
    assert metrics_ahead == pytest.approx(metrics, rel=1e-4)
    assert not [each for each in threading.enumerate() if each.name == "distkeras-prefetch"]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int64", "bool"]
)
def test_arrays_arrive_as_keras_would_convert_them(dtype):
    device, _ = second_device()
    array = np.arange(6).reshape(2, 3).astype(dtype)
    array.flags.writeable = False  # As rows that Spark has sent.
    ((x, y, weight),) = device.put([(array, {"a": [array]}, None)])()
    expected = keras.ops.convert_to_tensor(array)
    for arrived in (x, y["a"][0]):
        assert arrived.dtype == expected.dtype
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(arrived), array)
    assert weight is None


def test_weights_go_through_a_devices_memory_and_come_back():
    device, _ = second_device()
    replica = make_replica(deserialize_model(serialize_model(model())))
    if BACKEND == "jax":
        replica._on_cpu = False
    replica.device = device
    vector = np.random.default_rng(2).normal(size=replica.layout.size).astype(np.float32)
    memory = device.memory_for(replica.layout.size, replica.layout.dtype)
    if memory is not None:  # As the center arrives there.
        memory[:], vector = vector, memory
    replica.write(vector)
    given, vector[:] = vector.copy(), 0  # The caller may change it afterwards,
    read = replica.read()
    np.testing.assert_array_equal(read, given)
    read += 1  # and what is read is the caller's own.
    np.testing.assert_array_equal(replica.read(), given)


class Stream:
    """What CUDA would do, told to `done`."""

    done: list = []  # noqa: RUF012 (of all streams)

    def __init__(self, name):
        self.name = name

    def record_event(self):
        self.done.append(("record", self.name))
        return self.name

    def wait_event(self, event):
        self.done.append((self.name, "waits for", event))

    def synchronize(self):
        self.done.append(("synchronize", self.name))


def test_on_cuda_steps_wait_for_copies_and_keep_their_memory(monkeypatch):
    if BACKEND != "torch":
        return
    import torch

    from distkeras.worker.backends import torch_replica

    done, locked, empty = [], [], torch.empty
    monkeypatch.setattr(Stream, "done", done)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copies"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("steps"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(stream))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda leaf, stream: done.append(stream.name))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)

    def lock(*shape, pin_memory, **settings):
        locked.append(pin_memory)
        return empty(*shape, **settings)

    monkeypatch.setattr(torch, "empty", lock)
    device = torch_replica.TorchDevice(torch.device("cuda"))
    device._device = torch.device("cpu")  # There is no other here.
    minibatches = [(np.ones((2, 3), np.float32), np.ones(2, np.int32), None)] * 2
    assert len(device.put(minibatches)()) == 2
    assert not done  # Small ones come in the stream of the steps.
    monkeypatch.setattr(torch_replica, "BESIDE_BYTES", sum(each.nbytes for each in minibatches[0][:2]) * 2)
    landed = device.put(minibatches)
    assert done == [("record", "copies")]
    assert len(landed()) == 2
    assert done[1:] == [("steps", "waits for", "copies"), *["steps"] * 4]
    done.clear()
    device.read(torch.ones(3))
    device.write(np.ones(3, np.float32))
    assert done == [("synchronize", "steps")] * 2
    assert locked == [True] * 9
