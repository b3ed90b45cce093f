"""Training on Spark as a user does it: accuracy, history, models of any kind, errors."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import one_worker
import pandas as pd
import pytest
from cluster_script import python_workers, server_processes
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

import distkeras
from distkeras.algorithms import DynSGD, LocalSGD
from distkeras.cluster import job
from distkeras.cluster.partitions import copy_to_all
from distkeras.cluster.slots import NotEnoughSlots

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture(scope="module")
def mnist(spark):
    frame = spark.read.parquet(str(DATA / "train.parquet")).limit(6000).repartition(2).cache()
    frame.count()
    yield frame
    frame.unpersist()


@pytest.fixture
def blobs(spark):
    generator = np.random.default_rng(1)
    label = np.arange(256) % 2
    x = generator.normal(size=(256, 4)) + 2 * label[:, None]
    rows = pd.DataFrame({"features": x.tolist(), "label": label})
    return spark.createDataFrame(rows).repartition(2)


def mnist_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def small_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])


def test_one_worker_equals_plain_keras(spark):
    """`make parity` does the same on the other backends."""
    one_worker.check(spark)


def test_two_workers_learn_mnist_and_the_history_tells_how(mnist):
    trainer = distkeras.DOWNPOUR(
        keras_model=mnist_model(),
        worker_optimizer=keras.optimizers.SGD(0.1),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        num_workers=2,
        batch_size=32,
        features_col="image",
        label_col="label",
        num_epoch=3,
        communication_window=5,
        seed=0,
    )
    trained = trainer.train(mnist, shuffle=False)
    x = np.stack([np.frombuffer(row.image, np.uint8) for row in mnist.limit(500).collect()])
    y = np.array([row.label for row in mnist.limit(500).collect()])
    _, accuracy = trained.evaluate(x.astype(np.float32), y, verbose=0)
    assert accuracy > 0.88
    history = trainer.get_history()
    assert sum(window.samples for window in history) == 3 * 6000
    assert {window.worker for window in history} == {0, 1}
    assert set(history[0].metrics) == {"loss", "accuracy"}
    assert all(window.timestamp <= later.timestamp for window, later in pairwise(history))
    for worker in (0, 1):
        own = trainer.get_executor_history(worker)
        assert [window.iteration for window in own] == list(range(len(own)))
        assert sum(window.samples for window in own) == 3 * 3000
    averaged = trainer.get_averaged_history()
    assert averaged[0].workers == 2
    assert averaged[0].metrics["loss"] > averaged[-1].metrics["loss"]
    assert trainer.num_updates == len(history)
    assert trainer.get_training_time() > 0
    table = history.to_pandas()
    assert len(table) == len(history)
    assert {"time", "worker", "epoch", "iteration", "loss", "accuracy", "staleness"} <= set(table.columns)


def test_a_synchronous_rule_trains_in_a_barrier_stage(blobs):
    trainer = distkeras.DistributedTrainer(
        small_model(), LocalSGD(communication_window=2), "sgd", "binary_crossentropy", batch_size=16
    )
    trainer.train(blobs)
    rounds = 256 // 2 // 16 // 2
    assert trainer.num_updates == rounds
    assert len(trainer.get_history()) == 2 * rounds
    assert {window.staleness for window in trainer.get_history()} == {0}
    told = [transition.text for transition in trainer.get_transitions() if "Round" in transition.text]
    assert len(told) == 2 * rounds
    assert told[0].startswith("Round 0 opened by worker ")
    assert told[-1] == f"Round {rounds - 1} closed with 2 of 2 workers (workers 0, 1)."


def test_workers_that_compress_encrypt_and_overlap_exchanges_with_two_servers_learn(blobs):
    keras.utils.set_random_seed(1)
    normalized = keras.layers.BatchNormalization(momentum=0.5)  # Its statistics travel beside the deltas.
    model = keras.Sequential([keras.Input((4,)), normalized, keras.layers.Dense(1, activation="sigmoid")])
    trainer = distkeras.DOWNPOUR(
        model,
        keras.optimizers.SGD(0.3),
        "binary_crossentropy",
        num_epoch=6,
        compression="int8",
        num_parameter_servers=2,
        overlap=True,
        server=distkeras.ServerOptions(tls=True, checksum=True),
    )
    trained = trainer.train(blobs)
    rows = blobs.collect()
    x, y = np.stack([row.features for row in rows]), np.array([row.label for row in rows])
    assert trained.evaluate(x, y, verbose=0)[1] > 0.95
    np.testing.assert_allclose(trained.layers[0].moving_mean, x.mean(axis=0), atol=0.5)
    assert trainer.num_updates == len(trainer.get_history()) == 2 * 5


def test_a_worker_with_fewer_rows_does_not_leave_the_others_waiting(blobs):
    uneven = blobs.where("label = 0").limit(101)
    trainer = distkeras.LocalSGD(
        small_model(), "sgd", "binary_crossentropy", communication_window=1, batch_size=1
    )
    trainer.train(uneven)
    assert sum(window.samples for window in trainer.get_history()) == 101


def test_more_workers_than_slots_are_trained_one_after_another(blobs, caplog):
    trainer = distkeras.DOWNPOUR(small_model(), "sgd", "binary_crossentropy", num_workers=3)
    trainer.train(blobs)
    assert {window.worker for window in trainer.get_history()} == {0, 1, 2}
    assert "3 workers share 2 task slots" in caplog.text


def test_a_barrier_stage_that_could_never_start_is_refused_at_once(blobs):
    trainer = distkeras.LocalSGD(small_model(), "sgd", "binary_crossentropy", num_workers=3)
    with pytest.raises(NotEnoughSlots, match=r"3 task slots.*application with 2") as told:
        trainer.train(blobs)
    (note,) = told.value.__notes__
    assert "The job begins: LocalSGD(" in note
    assert "The job ends with an error: NotEnoughSlots." in note


def test_a_compiled_model_needs_neither_optimizer_nor_loss(blobs):
    model = small_model()
    model.compile("adam", "binary_crossentropy", metrics=["mae"])
    trainer = distkeras.DOWNPOUR(model, num_workers=2)
    trained = trainer.train(blobs)
    assert set(trainer.get_history()[0].metrics) == {"loss", "mae"}
    assert trained.evaluate(np.zeros((4, 4)), np.zeros(4), verbose=0)


def test_batch_normalization_statistics_are_averaged(spark):
    rows = pd.DataFrame({"features": [[10.0]] * 640, "label": [1.0] * 640})
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(1)]
    )
    trained = distkeras.DOWNPOUR(model, "sgd", "mse", num_workers=2, batch_size=16, num_epoch=2).train(
        spark.createDataFrame(rows)
    )
    mean = float(keras.ops.convert_to_numpy(trained.layers[0].moving_mean)[0])
    assert mean == pytest.approx(10.0, abs=0.05)


def test_the_model_of_two_workers_fulfils_its_constraints(spark):
    """Each worker moves its weights to 0; the sum of their changes brings the center below."""
    rows = spark.createDataFrame(pd.DataFrame({"features": [[1.0]] * 64, "label": [-5.0] * 64}))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((1,)), dense])
    options = {"num_workers": 2, "batch_size": 16, "num_epoch": 1, "communication_window": 2}
    trainer = distkeras.DOWNPOUR(model, keras.optimizers.SGD(0.1), "mse", **options)
    trained = trainer.train(rows, validation_data=rows)
    assert keras.ops.convert_to_numpy(trained.layers[0].kernel).tolist() == [[0.0]]
    assert trainer.get_history().history["val_loss"] == [25.0]


def test_weights_that_an_optimizer_overwrites_are_averaged(spark):
    """With float8 the gradient of a scale is its new value, and changes of a scale do not add up."""
    rows = spark.createDataFrame(pd.DataFrame({"features": [[10.0]] * 640, "label": [1.0] * 640}))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.layers[0].quantize("float8")
    options = {"num_workers": 2, "batch_size": 16, "num_epoch": 2, "communication_window": 1}
    trainer = distkeras.ADAG(model, keras.optimizers.SGD(1e-3), "mse", **options)
    layer = trainer.train(rows).layers[0]
    largest, scale = (
        float(np.ravel(keras.ops.convert_to_numpy(weight))[0])
        for weight in (layer.inputs_amax_history, layer.inputs_scale)
    )
    assert largest == pytest.approx(10.0, abs=0.05)
    assert scale == pytest.approx(10.0 / 448, rel=0.05)  # The largest number of float8_e4m3fn is 448.


@pytest.mark.parametrize(("data", "rows"), [("share", 128), ("all", 256), ("bootstrap", None)])
def test_members_of_an_ensemble_are_independent(blobs, data, rows):
    trainer = distkeras.EnsembleTrainer(
        small_model(),
        "sgd",
        "binary_crossentropy",
        num_ensembles=2,
        data=data,
        batch_size=16,
        seed=4,
        num_parameter_servers=2,  # Each has a part of every member.
    )
    members = trainer.train(blobs)
    assert len(members) == 2
    first, second = (member.get_weights()[0] for member in members)
    assert not np.array_equal(first, second)
    for member in (0, 1):
        trained = sum(window.samples for window in trainer.get_executor_history(member))
        assert trained == rows or (rows is None and 200 < trained < 320 and trained != 256)
    assert {window.staleness for window in trainer.get_history()} == {0}
    x = np.ones((2, 4), np.float32)
    mean = np.mean([member.predict(x, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(distkeras.merge(members).predict(x, verbose=0), mean, rtol=1e-5)


def test_the_copies_of_an_ensemble_are_all_rows_or_a_sample_of_them(blobs):
    rows = blobs.select("label").withColumn("id", F.monotonically_increasing_id()).coalesce(1)
    every, counts = copy_to_all(rows, 3, None)
    partitions = every.withColumn("p", F.spark_partition_id()).collect()
    assert counts == (256, 256, 256)
    ids = [[row.id for row in partitions if row.p == p] for p in range(3)]
    assert ids[0] == ids[1] == ids[2] == sorted(set(ids[0]))
    sampled, counts = copy_to_all(rows, 3, 5)
    partitions = sampled.withColumn("p", F.spark_partition_id()).collect()
    drawn = [[row.id for row in partitions if row.p == p] for p in range(3)]
    assert tuple(map(len, drawn)) == counts
    for ids in drawn:
        # With replacement, a share of 1/e of the rows is missing, and as many stand once.
        assert 256 * 0.25 < 256 - len(set(ids)) < 256 * 0.5
        assert len(ids) > len(set(ids))
    assert drawn[0] != drawn[1] != drawn[2]


def test_averaging_has_one_round_an_epoch(blobs):
    trainer = distkeras.AveragingTrainer(small_model(), "sgd", "binary_crossentropy", num_epoch=3)
    trainer.train(blobs)
    assert trainer.num_updates == 3
    assert [window.epoch for window in trainer.get_executor_history(0)] == [0, 1, 2]


@pytest.mark.parametrize(("grace", "num_updates"), [(0.0, 8), (60.0, 4)])
def test_a_quorum_of_one_waits_only_for_its_grace(blobs, grace, num_updates):
    trainer = distkeras.TrimmedMean(
        *(small_model(), "sgd", "binary_crossentropy"),
        communication_window=2,
        batch_size=16,
        quorum=1,
        grace=grace,
    )
    trainer.train(blobs)
    assert sum(window.samples for window in trainer.get_history()) == 256
    assert len(trainer.get_history()) == 8
    assert trainer.num_updates == num_updates  # Within the grace, both workers are in each round.


def test_several_inputs_and_outputs_by_name(spark):
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(128, 3)), generator.normal(size=128)
    rows = pd.DataFrame({"left": a.tolist(), "right": b, "total": a.sum(1) + b, "sign": (b > 0).astype(int)})
    first, second = keras.Input((3,), name="a"), keras.Input((1,), name="b")
    joined = keras.layers.Concatenate()([first, second])
    model = keras.Model(
        {"a": first, "b": second},
        {
            "sum": keras.layers.Dense(1, name="sum")(joined),
            "sign": keras.layers.Dense(2, activation="softmax", name="sign")(joined),
        },
    )
    trainer = distkeras.DOWNPOUR(
        model,
        "adam",
        {"sum": "mse", "sign": "sparse_categorical_crossentropy"},
        metrics={"sum": ["mae"], "sign": ["accuracy"]},
        features_col={"a": "left", "b": "right"},
        label_col={"sum": "total", "sign": "sign"},
        batch_size=16,
    )
    trainer.train(spark.createDataFrame(rows))
    assert {"loss", "sum_mae", "sign_accuracy"} <= set(trainer.get_history()[0].metrics)


def test_a_subclassed_model_of_this_very_script_trains(blobs):
    @keras.saving.register_keras_serializable("test")
    class Scorer(keras.Model):
        def __init__(self, width=8, **options):
            super().__init__(**options)
            self.width = width
            self.inner = keras.layers.Dense(width, activation="relu")
            self.outer = keras.layers.Dense(1, activation="sigmoid")

        def call(self, x):
            return self.outer(self.inner(x))

        def get_config(self):
            return super().get_config() | {"width": self.width}

    model = Scorer()
    model(np.zeros((1, 4)))
    trained = distkeras.DOWNPOUR(model, "adam", "binary_crossentropy", num_epoch=5).train(blobs)
    assert isinstance(trained, Scorer)


def test_a_rule_of_the_user_reaches_server_and_workers(blobs):
    from dataclasses import dataclass

    from distkeras.algorithms import Algorithm

    @dataclass(frozen=True)
    class Damped(Algorithm):
        communication_window: int = 4
        factor: float = 0.5

        def apply(self, center, message, commit, state):
            center += self.factor * message
            return center

    trainer = distkeras.DistributedTrainer(small_model(), Damped(), "sgd", "binary_crossentropy")
    trainer.train(blobs)
    assert trainer.num_updates == len(trainer.get_history()) > 0


def test_an_exception_of_the_users_own_rule_reaches_the_user(blobs):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Faulty(DynSGD):
        def apply(self, center, message, commit, state):
            raise LookupError("a fault of my own making")

    trainer = distkeras.DistributedTrainer(small_model(), Faulty(), "sgd", "binary_crossentropy")
    with pytest.raises(distkeras.WorkerError, match="a fault of my own making") as caught:
        trainer.train(blobs)
    assert str(caught.value).count("LookupError: a fault of my own making") == 1


def test_an_exception_in_a_worker_reaches_the_user_once_with_its_traceback(blobs):
    class Faulty(keras.Model):
        def train_step(self, *arguments):
            raise LookupError("a fault in the step")

    inputs = keras.Input((4,))
    model = Faulty(inputs, keras.layers.Dense(1)(inputs))
    trainer = distkeras.DOWNPOUR(model, "sgd", "mse", custom_objects={"Faulty": Faulty})
    with pytest.raises(distkeras.WorkerError, match="a fault in the step") as caught:
        trainer.train(blobs)
    text = str(caught.value)
    assert "in train_step" in text
    assert text.count("LookupError: a fault in the step") == 1


def test_a_row_of_another_length_is_named_before_training(spark):
    rows = pd.DataFrame({"features": [[1.0] * 4] * 40 + [[1.0] * 3], "label": [0.0] * 41})
    trainer = distkeras.DOWNPOUR(small_model(), "sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match=r"features.*4"):
        trainer.train(spark.createDataFrame(rows))


def test_a_loss_that_is_no_number_ends_the_training_with_an_error(blobs):
    exploding = blobs.withColumn("features", F.transform("features", lambda value: value * 1e30))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    trainer = distkeras.DOWNPOUR(model, keras.optimizers.SGD(1e3), "mse")
    with pytest.raises(distkeras.WorkerError, match="loss became"):
        trainer.train(exploding)


def test_a_killed_server_is_started_again_and_no_window_is_lost_or_doubled(blobs):
    trainer = distkeras.DOWNPOUR(
        small_model(),
        "sgd",
        "binary_crossentropy",
        communication_window=1,
        num_epoch=40,
        server=distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(commits=20)),
    )

    def kill():
        while len(trainer.get_history()) < 50:
            time.sleep(0.01)
        for process in server_processes():
            process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    trainer.train(blobs)
    thread.join()
    for worker in (0, 1):
        own = trainer.get_executor_history(worker)
        assert [window.iteration for window in own] == list(range(4 * 40))
    assert trainer.num_updates == len(trainer.get_history())
    assert sum(window.samples for window in trainer.get_history()) == 256 * 40


def test_rows_that_nobody_kept_are_asked_for_again_though_spark_tries_no_task_twice(spark):
    """On the master local[2]; a job of one epoch, of which first a worker is killed, then the server."""
    rows = spark.range(0, 64 * 1500, 1, 2).selectExpr(
        "transform(sequence(1, 4), n -> float(sin(id * n))) AS features", "id % 2 AS label"
    )
    trainer = distkeras.DOWNPOUR(
        small_model(),
        "sgd",
        "binary_crossentropy",
        communication_window=3,
        server=distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(commits=20)),
    )

    def kill(processes, windows):
        while len(trainer.get_history()) < windows:
            time.sleep(0.01)
        before = {process: process.cpu_times().user for process in processes()}
        time.sleep(0.1)  # Of the processes that Spark keeps, which one trains?
        max(before, key=lambda process: process.cpu_times().user - before[process]).kill()

    def kill_both():
        kill(python_workers, 50)
        kill(server_processes, 400)

    thread = threading.Thread(target=kill_both)
    thread.start()
    trainer.train(rows)
    thread.join()
    for worker in (0, 1):
        own = trainer.get_executor_history(worker)
        assert [window.iteration for window in own] == list(range(500))
    assert trainer.num_updates == 1000
    assert sum(window.samples for window in trainer.get_history()) == 64 * 1500


def test_an_interrupted_training_is_resumed_with_its_seed_and_only_with_its_settings(
    blobs, tmp_path, monkeypatch
):
    num_epoch = 300  # Long enough for the interrupt to come before the end.

    def make(**changed):
        return distkeras.DOWNPOUR(
            small_model(),
            "sgd",
            "binary_crossentropy",
            communication_window=1,
            num_epoch=num_epoch,
            server=distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(str(tmp_path))),
            **changed,
        )

    def append(history, window):
        list.append(history, window)
        if len(history) == 30:
            raise KeyboardInterrupt

    first, second = make(), make()
    with monkeypatch.context() as patch:
        patch.setattr(distkeras.History, "append", append)
        with pytest.raises(KeyboardInterrupt):
            first.train(blobs, shuffle=True)
    with pytest.raises(ValueError, match="did not end"):
        second.train(blobs, shuffle=True)
    with pytest.raises(ValueError, match="Received: batch_size=16, which was 32; shuffle=False, which"):
        make(batch_size=16).train(blobs, resume=True)
    others = blobs.withColumn("label", 1 - blobs["label"])
    with pytest.raises(ValueError, match=r"Received: digest of the rows='[0-9a-f]*', which was"):
        make().train(others, shuffle=True, resume=True)
    second.train(blobs, shuffle=True, resume=True)
    assert second.seed == first.seed
    for worker in (0, 1):
        done = first.get_executor_history(worker)
        own = [window.iteration for window in second.get_executor_history(worker)]
        first_left = 4 * num_epoch - len(own)  # None is, of a worker that was done before the interrupt came.
        assert own == list(range(first_left, 4 * num_epoch))
        assert first_left >= len(done)
    assert second.num_updates == 2 * 4 * num_epoch


def test_with_speculation_workers_ask_before_they_join_and_train_the_same(spark, blobs, monkeypatch):
    # Spark fixes this setting when the application starts: here it is read as if it had been on.
    get = type(spark.conf).get
    monkeypatch.setattr(
        type(spark.conf),
        "get",
        lambda conf, key, *default: "true" if key == "spark.speculation" else get(conf, key, *default),
    )
    trainer = distkeras.DOWNPOUR(small_model(), "sgd", "binary_crossentropy", num_epoch=2)
    trainer.train(blobs)
    assert sum(window.samples for window in trainer.get_history()) == 2 * blobs.count()
    assert trainer.num_updates == len(trainer.get_history())


def test_a_stage_that_ends_without_all_its_workers_is_no_success(blobs, monkeypatch):
    from distkeras.cluster import worker_stage

    whole = worker_stage._partition_function

    def only_the_first(envelope):
        train = whole(envelope)

        def maybe(batches):
            from pyspark import TaskContext

            yield from train(batches) if TaskContext.get().partitionId() == 0 else ()

        return maybe

    monkeypatch.setattr(worker_stage, "_partition_function", only_the_first)
    with pytest.raises(distkeras.WorkerError, match=r"workers \[1\] had not finished"):
        distkeras.DOWNPOUR(small_model(), "sgd", "binary_crossentropy").train(blobs)


def test_nothing_is_left_of_a_training_or_of_large_models_that_were_dropped_before(blobs, monkeypatch):
    monkeypatch.setattr(job, "COLLECTED_BYTES", 0)
    trainer = distkeras.DOWNPOUR(small_model(), "sgd", "binary_crossentropy")
    earlier = [weakref.ref(small_model()) for _ in range(2)]
    gc.disable()  # In short trainings Python seldom looks for cycles.
    try:
        trainer.train(blobs)
        assert [model() for model in earlier] == [None] * 2
    finally:
        gc.enable()
    assert server_processes() == []


def test_star_import_brings_the_trainers():
    names = {}
    exec("from distkeras.trainers import *", names)
    assert {"DOWNPOUR", "SingleTrainer", "AveragingTrainer", "EnsembleTrainer", "ADAG"} <= set(names)
