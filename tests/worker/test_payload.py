"""Large objects as files: whatever is cut into pieces comes back whole, and costs its memory once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from distkeras.worker import payload
from distkeras.worker.payload import Payload, PayloadLost, name_of, pack


@pytest.fixture
def large(monkeypatch):
    """Return a value of a few megabytes, where a piece has at most one."""
    monkeypatch.setattr(payload, "CHUNK_BYTES", 2**20)
    generator = np.random.default_rng(0)
    return {
        "model": generator.bytes(5_000_000),
        "values": generator.normal(size=200_000),
        "names": ["a", "b"],
    }


def test_a_value_in_many_pieces_comes_back_as_it_was(large, tmp_path):
    packed = pack(large, tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in packed.files]
    assert len(sizes) == 7
    assert set(sizes[:-1]) == {2**20}
    assert sum(sizes) == packed.size
    opened = packed.open()
    assert opened["model"] == large["model"]
    np.testing.assert_array_equal(opened["values"], large["values"])
    assert opened["values"].flags.writeable
    assert opened["names"] == large["names"]


@pytest.mark.parametrize("last", [1, 2**20 - 1, 2**20, 2**20 + 1])
def test_pieces_are_whole_wherever_the_value_ends(large, tmp_path, last):
    value = bytes(2**20) + b"x" * last
    assert pack(value, tmp_path).open() == value


def test_the_same_contents_have_the_same_name_and_other_contents_another(large, tmp_path):
    packed = pack(large, tmp_path)
    assert pack(large, tmp_path) == packed
    assert packed.name == name_of(large)
    assert pack({**large, "names": []}, tmp_path).name != packed.name
    assert sorted(path.name for path in tmp_path.iterdir() if packed.name in path.name) == sorted(
        packed.files
    )


def test_what_is_small_needs_no_file(tmp_path):
    packed = pack(list(range(100)), tmp_path)
    assert packed.files == ()
    assert packed.open() == list(range(100))
    assert packed.name == name_of(list(range(100)))
    assert list(tmp_path.iterdir()) == []


def test_packing_copies_nothing_and_opening_takes_memory_once(large, tmp_path):
    tracemalloc.start()
    try:
        packed = pack(large, tmp_path)
        packing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        opened = packed.open()
        opening = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert opened["model"] == large["model"]
    assert packing < packed.size / 10
    assert opening < packed.size * 1.5


def test_a_file_that_is_gone_or_cut_is_named(large, tmp_path):
    packed = pack(large, tmp_path)
    with open(tmp_path / packed.files[-1], "r+b") as file:
        file.truncate(10)
    with pytest.raises(
        PayloadLost, match=rf"Expected {packed.size} bytes in 7 file.*Received: 62914\d+ bytes"
    ):
        packed.open()
    (tmp_path / packed.files[0]).unlink()
    with pytest.raises(PayloadLost, match=r"Received: 52428\d+ bytes"):
        packed.open()
    with pytest.raises(PayloadLost):
        Payload("elsewhere", ("elsewhere-0",), 10, folder=str(tmp_path)).open()


def test_a_value_that_cannot_be_pickled_leaves_no_file(large, tmp_path):
    with pytest.raises(TypeError):
        pack([large, (number for number in range(3))], tmp_path)
    assert list(tmp_path.iterdir()) == []
