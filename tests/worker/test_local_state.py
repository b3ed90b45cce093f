"""A worker's local state travels as plain bytes; bytes that are none are refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from distkeras.worker.local_state import LocalState


def make_state():
    return LocalState(
        {"layer/seed": np.array([3, 9], np.uint32), "count": np.array(2**40)},
        [np.array(7, np.int32), np.ones((2, 3), np.float32).T, np.zeros((0, 4), ml_dtypes.bfloat16)],
        [np.array(0.1), np.array([[1.5, np.nan]])],
        {"velocity": np.array([-0.0, np.inf], np.float16), "flag": np.array([True, False])},
        {"place": np.array([7, 2, 40]), "weights": np.ones(3, np.float32)},
    )


def test_every_array_arrives_bit_for_bit():
    state, packed = make_state(), make_state().packed()
    again = LocalState.of(packed)
    assert again.packed() == packed
    assert list(again.variables) == list(state.variables)
    for mine, its in zip(
        [*state.variables.values(), *state.optimizer, *state.metrics, *state.further.values()],
        [*again.variables.values(), *again.optimizer, *again.metrics, *again.further.values()],
        strict=True,
    ):
        assert (mine.dtype, mine.shape, mine.tobytes()) == (its.dtype, its.shape, its.tobytes())
    assert again.place == (7, 2, 40)
    np.testing.assert_array_equal(again.start["weights"], state.start["weights"])
    assert LocalState.of(LocalState().packed()) == LocalState()


@pytest.mark.parametrize("change", [0, 5, 18, 22, 30, -1])
def test_changed_and_cut_bytes_are_an_error_or_a_state_never_anything_else(change):
    packed = make_state().packed()
    for bad in (packed[: change % len(packed)], packed + b"x", b"", packed[:22] + b"\xc1" * 8 + packed[30:]):
        with pytest.raises(ValueError, match="Expected the local state of a worker"):
            LocalState.of(bad)
    draw = np.random.default_rng(change % 7)
    for _ in range(300):
        bad = bytearray(packed)
        for place in draw.integers(0, 200, 3):
            bad[place] = draw.integers(256)
        try:
            LocalState.of(bytes(bad)).packed()
        except ValueError as error:
            assert "Expected the local state of a worker" in str(error)  # noqa: PT017 (both are right)


def test_arrays_of_no_numbers_do_not_travel():
    with pytest.raises(TypeError, match=r"Expected an array of numbers. Received: 'text' of object"):
        LocalState({"text": np.array(["a", None])}).packed()
