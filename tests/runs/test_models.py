"""Models are saved and loaded at any address, and a snapshot of a parameter server opens as a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import distkeras
from distkeras.algorithms import ADAG, Sequential, StreamingDiLoCo
from distkeras.center import CenterConfig, fragments_of, take_snapshot
from distkeras.center.making import make_center
from distkeras.model.weights import initial_vector, layout_of
from distkeras.runs import Run, RunError, load_model, load_run, save_model
from distkeras.trainers.fingerprint import describe_algorithm
from distkeras.wire.store import Store


def built(seed=0, compiled=True):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )
    if compiled:
        model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def trained(seed=0):
    model = built(seed)
    model.optimizer.build(model.trainable_variables)  # Without the seconds that a step takes to compile.
    for index, variable in enumerate(model.optimizer.variables):
        if index != 1:  # The rate.
            variable.assign(np.ones(variable.shape, variable.dtype))
    model.layers[1].moving_mean.assign(np.arange(4.0))
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_comes_back_with_its_optimizer_from_any_address(tmp_path, model):
    for address in (str(tmp_path / "new" / "m.keras"), tmp_path / "m.keras", "memory://models/m.keras"):
        save_model(model, address)
        loaded = load_model(address)
        assert_same(loaded, model)
        assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 1
        with pytest.raises(FileExistsError, match="exists already"):
            save_model(model, address, overwrite=False)
    assert_same(keras.saving.load_model(tmp_path / "m.keras"), model)
    assert not load_model(tmp_path / "m.keras", compile=False).compiled
    assert (distkeras.save_model, distkeras.load_model) == (save_model, load_model)
    MemoryFileSystem.store.clear()


def test_a_half_written_model_replaces_nothing(tmp_path, model, monkeypatch):
    address = str(tmp_path / "m.keras")
    save_model(model, address)
    monkeypatch.setattr(model, "save", lambda path: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_model(model, address)
    monkeypatch.undo()
    assert_same(load_model(address), model)
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_what_is_no_model_is_named(tmp_path, model):
    with pytest.raises(ValueError, match=r'suffix "\.keras".*like'):
        load_model(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        load_model("memory://models/none.keras")
    with pytest.raises(RunError, match=r"Expected a snapshot\. Received: none at"):
        load_model(str(tmp_path), like=model)
    with pytest.raises(ValueError, match=r"nowhere://\*\*\*@host"):
        save_model(model, "nowhere://me:secret-word@host/m.keras")


def write(address, config, initial, settings):
    center = make_center(config, initial, clock=lambda: 1.0)
    Store(address).write(take_snapshot(center, settings))


def test_a_snapshot_opens_as_a_model(tmp_path, model):
    address = str(tmp_path / "snapshots")
    like, layout = built(1), layout_of(model)
    weights = [[segment.path, list(segment.shape)] for segment in layout.segments()]
    write(address, CenterConfig(ADAG(5)), initial_vector(model), {"weights": weights})
    before = like.get_weights()
    opened = load_model(address, like=like)
    assert_same(opened, model)
    assert opened.optimizer.learning_rate == like.optimizer.learning_rate
    assert all(map(np.array_equal, before, like.get_weights()))  # `like` is as it was.
    assert_same(load_model(address, like=built(1, compiled=False)), model)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(RunError, match=r"Expected a snapshot of the weights of .*8 elements"):
        load_model(address, like=other)


def test_the_snapshots_of_several_servers_of_fragments_and_of_an_ensemble_open_too(tmp_path, model):
    vector, layout = initial_vector(model), layout_of(model)
    several, fragments, ensemble = (str(tmp_path / name) for name in ("several", "fragments", "ensemble"))
    for part, folder in ((vector[:7], several), (vector[7:], f"{several}/server-1")):
        write(folder, CenterConfig(ADAG(5)), part, {})
    assert_same(load_model(several, like=built(1)), model)

    rule = StreamingDiLoCo(communication_window=8, fragments=2)
    config = CenterConfig(rule, num_trainable=layout.num_trainable, fragments=fragments_of(layout, rule))
    write(fragments, config, vector, {"algorithm": describe_algorithm(rule)})
    assert_same(load_model(fragments, like=built(1)), model)

    both = np.stack([np.zeros_like(vector), vector])
    write(ensemble, CenterConfig(Sequential(5), 2, independent=True), both, {})
    assert_same(load_model(ensemble, like=built(1), member=1), model)
    with pytest.raises(RunError, match=r"member of an ensemble, from 0 to 1. Received: member=None"):
        load_model(ensemble, like=built(1))


def test_the_snapshot_of_a_run_opens_without_another_model(tmp_path, model):
    first = built(2)
    with Run.open(str(tmp_path)) as run:
        run.begin({"seed": 1}, model=first)
        with pytest.raises(RunError, match="Expected a snapshot"):
            load_run(tmp_path).model("snapshot")
        write(f"{tmp_path}/snapshots", CenterConfig(ADAG(5)), initial_vector(model), {})
        assert_same(load_run(tmp_path).model("snapshot"), model)
        assert_same(load_run(tmp_path).model("initial"), first)
