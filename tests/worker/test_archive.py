"""A saved model on disk: the same bytes every time, read by several at once, and gone with its object."""

from __future__ import annotations

import os
import pickle
import time
import zipfile

import keras
import numpy as np
import pytest

from distkeras.model import archive
from distkeras.model.archive import (
    Stored,
    config_of,
    digest_of,
    load_archive,
    without_initializers,
    write_archive,
)


@pytest.fixture(params=[0, 2**20], ids=["on disk", "in memory"])
def stored(request, monkeypatch):
    monkeypatch.setattr(archive, "MEMORY_BYTES", request.param)
    return Stored.of(bytes(range(256)) * 100)


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_stored_bytes_are_the_same_after_pickling(stored, protocol):
    copy = pickle.loads(pickle.dumps(stored, protocol))
    assert copy.open().read() == stored.open().read() == bytes(range(256)) * 100


def test_readers_do_not_move_each_other(stored):
    with stored.open() as first, stored.open() as second:
        assert first.read(3) == b"\x00\x01\x02"
        second.seek(-2, os.SEEK_END)
        assert second.read() == b"\xfe\xff"
        assert first.read(2) == b"\x03\x04"
        first.seek(5, os.SEEK_CUR)
        assert first.read(1) == b"\x0a"


def test_a_model_that_is_saved_twice_gives_the_same_bytes_and_its_weights_travel(model, monkeypatch):
    first = without_initializers(write_archive(model))
    monkeypatch.setattr(archive, "MEMORY_BYTES", 0)
    monkeypatch.setattr(zipfile.time, "localtime", lambda *_: time.gmtime(10**9))
    second = without_initializers(write_archive(model))
    assert first.open().read() == second.open().read()
    assert digest_of(first) == digest_of(second)
    assert config_of(second)["class_name"] == "Sequential"
    loaded = load_archive(pickle.loads(pickle.dumps(second, 5)), {})
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_a_file_has_no_name_and_goes_with_the_object(monkeypatch):
    monkeypatch.setattr(archive, "MEMORY_BYTES", 0)
    kept = Stored.of(b"model")
    descriptor = kept._file.fileno()
    assert os.fstat(descriptor).st_nlink == 0
    del kept
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
