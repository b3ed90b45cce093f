"""Minibatches for compiled steps."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distkeras.worker.compilable import compilable


@pytest.mark.parametrize(
    ("backend", "jit", "copies"), [("torch", True, True), ("torch", False, False), ("jax", True, False)]
)
def test_only_the_compiler_of_pytorch_gets_copies_of_arrays_that_cannot_be_written_to(
    monkeypatch, backend, jit, copies
):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.jit_compile = jit
    sent = np.frombuffer(bytes(32)).reshape(2, 2)
    own = np.ones(2)
    x, y, weight = compilable(model, ({"a": sent}, own, None))
    assert x["a"].flags.writeable == copies
    assert (x["a"] is sent) != copies
    np.testing.assert_array_equal(x["a"], sent)
    assert y is own
    assert weight is None
