"""What trainers take and refuse, before any Spark is needed."""

from __future__ import annotations

import inspect
import pickle
import threading
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest

import distkeras
from distkeras import algorithms
from distkeras.center import BadUpdates
from distkeras.events import Timing, Window
from distkeras.lifecycle.around import Around
from distkeras.lifecycle.keeping import Keeping
from distkeras.lifecycle.plan import Stop
from distkeras.model.losses import loss_names
from distkeras.trainers import UnstableWarning
from distkeras.trainers.beginning import Beginning
from distkeras.trainers.jobs import JobPlan
from distkeras.trainers.unfair import Speeds
from distkeras.wire.codecs import Int8, TopK


def model(units=1):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])


RULES = sorted(set(algorithms.REGISTRY) - {"Averaging", "Sequential"})


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_trainer_of_its_name_with_its_parameters(name):
    rule = algorithms.REGISTRY[name]
    trainer = getattr(distkeras, name)
    assert trainer(model(), "sgd", "mse").algorithm == rule()
    parameters = inspect.signature(trainer).parameters
    assert parameters["communication_window"].default == rule().communication_window
    assert {"keras_model", "worker_optimizer", "loss", "num_workers", "features_col"} <= set(parameters)
    assert "algorithm" not in parameters
    assert rule.__doc__.splitlines()[0] in trainer.__doc__
    assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_hyper_parameters_reach_the_rule_and_options_the_trainer():
    trainer = distkeras.AEASGD(
        model(), "sgd", "mse", rho=2.0, learning_rate=0.2, communication_window=3, num_workers=7
    )
    assert trainer.algorithm == algorithms.AEASGD(3, rho=2.0, learning_rate=0.2)
    assert trainer.num_workers == 7


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="num_worker"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", num_worker=2)


def test_a_global_batch_size_is_shared_by_the_workers_that_train_at_once():
    def size(trainer=distkeras.ADAG, **options):
        return trainer(model(8), "sgd", "mse", **options).batch_size

    assert size() == 32
    assert size(num_workers=4, global_batch_size=32) == 8
    assert size(distkeras.SingleTrainer, global_batch_size=32) == 32
    assert size(min_workers=1, max_workers=2, global_batch_size=32) == 16
    with pytest.raises(ValueError, match="4 workers can share equally, such as 12"):
        size(num_workers=4, global_batch_size=10)
    with pytest.raises(ValueError, match="of all workers together"):
        size(batch_size=8, global_batch_size=16)
    with pytest.raises(ValueError, match="train alone: give `batch_size`"):
        size(distkeras.EnsembleTrainer, num_ensembles=2, global_batch_size=16)


@pytest.mark.parametrize("name", ["num_workers", "batch_size", "num_epoch", "communication_window"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer.*Received: {name}="):
        distkeras.DOWNPOUR(model(), "sgd", "mse", **{name: value})


def test_something_that_is_no_keras_model_is_refused():
    with pytest.raises(TypeError, match="Keras model"):
        distkeras.DOWNPOUR("model.h5", "sgd", "mse")


def test_something_that_is_no_rule_is_refused():
    with pytest.raises(TypeError, match=r"algorithms\.Algorithm"):
        distkeras.DistributedTrainer(model(), "adag", "sgd", "mse")
    with pytest.raises(TypeError, match=r"algorithms\.Algorithm"):
        distkeras.DistributedTrainer(model(), algorithms.ADAG, "sgd", "mse")


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="built"):
        distkeras.DOWNPOUR(keras.Sequential([keras.layers.Dense(1)]), "sgd", "mse")


def test_a_missing_optimizer_or_loss_is_refused():
    with pytest.raises(ValueError, match="worker_optimizer"):
        distkeras.DOWNPOUR(model(), loss="mse")
    with pytest.raises(ValueError, match="`loss`"):
        distkeras.DOWNPOUR(model(), "sgd")


def test_a_single_trainer_has_one_worker():
    assert distkeras.SingleTrainer(model(), "sgd", "mse").num_workers == 1
    with pytest.raises(ValueError, match="one worker"):
        distkeras.SingleTrainer(model(), "sgd", "mse", num_workers=2)


def test_a_quorum_belongs_to_synchronous_rules():
    with pytest.raises(ValueError, match="synchronous"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", quorum=1)
    with pytest.raises(ValueError, match="quorum"):
        distkeras.LocalSGD(model(), "sgd", "mse", num_workers=2, quorum=3)
    assert distkeras.LocalSGD(model(), "sgd", "mse", num_workers=3, quorum=2).quorum == 2


def test_several_servers_are_refused_where_each_would_decide_for_itself():
    rounds = {"num_workers": 3, "num_parameter_servers": 2}
    assert distkeras.LocalSGD(model(), "sgd", "mse", quorum=2, **rounds).num_parameter_servers == 2
    with pytest.raises(ValueError, match=r"`max_norm` needs one parameter server"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", on_bad_update=BadUpdates(max_norm=1.0), **rounds)
    with pytest.raises(ValueError, match="num_parameter_servers=0"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", num_parameter_servers=0)


class Whole(algorithms.LocalSGD):
    needs_tensors = True


def test_a_rule_that_needs_tensors_has_at_most_a_server_for_each():
    made = distkeras.DistributedTrainer(model(3), Whole(), "sgd", "mse", num_parameter_servers=2)
    around, keeping = Around(), Keeping(None, False)
    begun = Beginning(made, around, keeping, Stop())
    plan = JobPlan(made, around, keeping, begun, None)
    assert plan.center(np.zeros(15, np.float32)).whole_tensors(15) == (12, 3)
    with pytest.raises(ValueError, match=r"Whole needs .* 2 trainable tensors.*num_parameter_servers=3"):
        distkeras.DistributedTrainer(model(3), Whole(), "sgd", "mse", num_parameter_servers=3)


def test_compression_is_found_by_name_or_given():
    assert distkeras.DOWNPOUR(model(), "sgd", "mse").compression is None
    assert distkeras.LocalSGD(model(), "sgd", "mse", compression="int8").compression == Int8()
    assert distkeras.ADAG(model(), "sgd", "mse", compression=TopK(0.1)).compression == TopK(density=0.1)


def test_compression_of_an_unknown_name_or_of_a_rule_that_would_lose_by_it_is_refused():
    with pytest.raises(ValueError, match=r"Did you mean 'int8'.*Received: compression='int4'"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", compression="int4")
    for trainer in (distkeras.AveragingTrainer, distkeras.SingleTrainer):
        with pytest.raises(ValueError, match=r"sends weights.*Use\s`compression=None`"):
            trainer(model(), "sgd", "mse", compression="int8")
    for trainer in (distkeras.AEASGD, distkeras.EASGD):
        assert trainer(model(), "sgd", "mse", compression="int8").compression.name == "int8"


def test_parameters_in_the_unstable_region_are_warned_of():
    with pytest.warns(UnstableWarning, match="DOWNPOUR.*unstable with 20 workers"):
        distkeras.DOWNPOUR(model(), keras.optimizers.SGD(0.1), "mse", num_workers=20, communication_window=10)


def test_sparseloco_without_a_codec_is_warned_of():
    with pytest.warns(UserWarning, match="SparseLoCo decays what.*compression=None"):
        distkeras.SparseLoCo(model(), keras.optimizers.SGD(0.1), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        distkeras.SparseLoCo(model(), keras.optimizers.SGD(0.1), "mse", compression="chunktopk")


def test_overlap_doubles_the_delay_that_the_warning_counts():
    options = {"num_workers": 4, "communication_window": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnstableWarning)
        distkeras.DOWNPOUR(model(), keras.optimizers.SGD(0.1), "mse", overlap=2, **options)
    with pytest.warns(UnstableWarning, match="that overlap their windows.*`overlap=False`"):
        distkeras.DOWNPOUR(model(), keras.optimizers.SGD(0.1), "mse", overlap=True, **options)


def windows_of(seconds, count):
    """Windows of two steps of workers that take so many seconds for each."""
    return [
        Window(worker, 0, iteration, 2, 64, {}, 0, 0.0, timing=Timing(computing=each, waiting=0.5 * each))
        for iteration in range(count)
        for worker, each in enumerate(seconds)
    ]


@pytest.mark.parametrize(
    ("rule", "quorum", "seconds", "count", "warned"),
    [
        (algorithms.DynSGD(), None, (0.1, 0.3, 0.1), 11, True),
        (algorithms.DynSGD(), None, (0.1, 0.3, 0.1), 10, False),  # the first window does not count
        (algorithms.DynSGD(), None, (0.1, 0.19, 0.1), 40, False),
        (algorithms.DynSGD(), None, (0.1,), 40, False),
        (algorithms.RescaledASGD(), None, (0.1, 0.3, 0.1), 40, False),
        (algorithms.LocalSGD(), None, (0.1, 0.3, 0.1), 40, False),
        (algorithms.LocalSGD(), 2, (0.1, 0.3, 0.1), 40, True),
    ],
)
def test_unequal_speeds_and_an_unfair_rule_are_told_once(rule, quorum, seconds, count, warned):
    speeds = Speeds(rule, quorum)
    for window in windows_of(seconds, count):
        speeds.take(window)
    said = speeds.warning()
    assert (said is not None) == warned
    assert speeds.warning() is None
    if warned:
        assert "Worker 0 trains 13.3 minibatches a second, worker 1 4.44" in said
        assert rule.name in said


def test_a_window_that_took_long_once_makes_no_slow_worker():
    speeds = Speeds(algorithms.DynSGD(), None)
    for window in windows_of((0.1, 0.1), 12):
        stood_still = window.worker == 1 and window.iteration == 5
        timing = Timing(computing=60.0, waiting=0.0) if stood_still else window.timing
        speeds.take(replace(window, timing=timing))
    assert speeds.warning() is None


def test_windows_without_times_tell_no_speeds():
    speeds = Speeds(algorithms.DynSGD(), None)
    for window in windows_of((0.1, 0.3), 40):
        speeds.take(replace(window, timing=None))
    assert speeds.warning() is None


def test_shares_that_are_trained_by_whoever_is_free_are_not_called_slow():
    speeds = Speeds(algorithms.DynSGD(), None, fair=True)
    for window in windows_of((0.1, 0.3), 40):
        speeds.take(window)
    assert speeds.warning() is None


def test_the_warning_points_at_the_line_of_the_user():
    options = {"num_workers": 20}
    with pytest.warns(UnstableWarning) as caught:
        distkeras.DOWNPOUR(model(), keras.optimizers.SGD(0.5), "mse", **options)
    with pytest.warns(UnstableWarning) as direct:
        distkeras.DistributedTrainer(
            model(), algorithms.DOWNPOUR(), keras.optimizers.SGD(0.5), "mse", **options
        )
    for record in (*caught, *direct):
        if record.category is UnstableWarning:
            assert record.filename == __file__


@pytest.mark.parametrize("name", ["DynSGD", "ADAG", "AEASGD"])
def test_stable_parameters_are_not_warned_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnstableWarning)
        getattr(distkeras, name)(model(), keras.optimizers.SGD(0.1), "mse", num_workers=20)


def test_the_unstable_region_is_that_of_the_compiled_optimizer_where_none_is_given():
    compiled = model()
    compiled.compile(keras.optimizers.SGD(0.1), "mse")
    with pytest.warns(UnstableWarning):
        distkeras.DOWNPOUR(compiled, num_workers=20, communication_window=10)


def test_a_learning_rate_schedule_is_not_judged():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnstableWarning)
        distkeras.DOWNPOUR(model(), keras.optimizers.SGD(schedule), "mse", num_workers=20)


def test_losses_are_named_as_keras_names_them():
    one = model()
    losses = keras.losses
    assert loss_names(one, "mse") == "mse"
    assert loss_names(one, losses.SparseCategoricalCrossentropy()) == "sparse_categorical_crossentropy"
    assert loss_names(one, losses.SparseCategoricalCrossentropy(ignore_class=-1)) is None
    assert loss_names(one, losses.mean_squared_error) == "mean_squared_error"
    assert loss_names(one, {"a": "mse", "b": losses.Huber()}) == {"a": "mse", "b": "huber"}
    assert loss_names(one, None) is None
    one.compile("sgd", losses.CategoricalCrossentropy())
    assert loss_names(one, None) == "categorical_crossentropy"


def constant_classifier(values):
    """A model that answers `values` whatever it is given."""
    inputs = keras.Input((2,), name="x")
    dense = keras.layers.Dense(len(values), kernel_initializer="zeros")
    outputs = dense(inputs)
    dense.set_weights([np.zeros((2, len(values))), np.array(values)])
    return keras.Model(inputs, outputs)


def positive_dense(units=1):
    """A layer of positive sums: none comes near zero, where a rounding error is no small part of it."""
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.RandomUniform(0.5, 1.5))


def member():
    return keras.Sequential([keras.Input((4,)), positive_dense()])


def test_a_merged_model_averages_its_members():
    merged = distkeras.merge([constant_classifier([0.9, 0.1]), constant_classifier([0.3, 0.7])])
    np.testing.assert_allclose(merged.predict(np.zeros((1, 2)), verbose=0), [[0.6, 0.4]], rtol=1e-6)


def test_a_merged_model_can_vote():
    members = [constant_classifier(values) for values in ([0.9, 0.1], [0.4, 0.6], [0.45, 0.55])]
    merged = distkeras.merge(members, by="vote")
    np.testing.assert_allclose(merged.predict(np.zeros((1, 2)), verbose=0), [[1 / 3, 2 / 3]], rtol=1e-6)


def test_sequential_members_are_merged_and_the_result_is_saved_and_loaded(tmp_path):
    members = [member(), member()]
    merged = distkeras.merge(members)
    x = np.ones((3, 4), np.float32)
    expected = (members[0].predict(x, verbose=0) + members[1].predict(x, verbose=0)) / 2
    merged.save(tmp_path / "merged.keras")
    loaded = keras.saving.load_model(tmp_path / "merged.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5)


def test_members_with_several_outputs_are_merged_output_by_output():
    def two_outputs():
        inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((1,), name="b")}
        return keras.Model(inputs, {"p": positive_dense(1)(inputs["a"]), "q": positive_dense(2)(inputs["b"])})

    members = [two_outputs(), two_outputs()]
    data = {"a": np.ones((2, 1)), "b": np.ones((2, 1))}
    answers = [member.predict(data, verbose=0) for member in members]
    merged = distkeras.merge(members).predict(data, verbose=0)
    for name in ("p", "q"):
        np.testing.assert_allclose(merged[name], (answers[0][name] + answers[1][name]) / 2, rtol=1e-5)


def test_members_of_one_name_are_merged(tmp_path):
    saved = member()
    saved.save(tmp_path / "member.keras")
    members = [keras.saving.load_model(tmp_path / "member.keras") for _ in range(3)]
    merged = distkeras.merge(members)
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(merged.predict(x, verbose=0), saved.predict(x, verbose=0), rtol=1e-5)
    merged.save(tmp_path / "merged.keras")
    loaded = keras.saving.load_model(tmp_path / "merged.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), saved.predict(x, verbose=0), rtol=1e-5)


def test_nothing_cannot_be_merged():
    with pytest.raises(ValueError, match="at least one model"):
        distkeras.merge([])


def test_members_of_a_model_with_custom_objects_are_drawn_too():
    class Scaled(keras.layers.Dense):
        pass

    custom = keras.Sequential([keras.Input((4,)), Scaled(1)])
    trainer = distkeras.EnsembleTrainer(custom, "sgd", "mse", custom_objects={"Scaled": Scaled}, seed=0)
    assert trainer._initial().shape == (2, 5)


def test_a_model_of_several_outputs_has_no_accuracy_by_default():
    inputs = keras.Input((2,))
    two = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    trainer = distkeras.DOWNPOUR(two, "sgd", ["mse", "mse"])
    trained = trainer._given.trained(np.zeros(6, np.float32))
    trained.train_on_batch(np.zeros((2, 2)), [np.zeros((2, 1)), np.zeros((2, 1))])


def test_a_model_is_built_by_the_shape_that_is_given():
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    trainer = distkeras.DOWNPOUR(unbuilt, "sgd", "mse", input_shape=(None, 3))
    assert trainer._given.trained(np.zeros(4, np.float32)).count_params() == 4


def test_members_start_from_different_weights_and_the_seed_decides_them():
    def starts(seed):
        return distkeras.EnsembleTrainer(model(8), "sgd", "mse", num_ensembles=3, seed=seed)._initial()

    first = starts(1)
    assert first.shape == (3, 40)
    assert len({row.tobytes() for row in first}) == 3
    np.testing.assert_array_equal(first, starts(1))
    assert not np.array_equal(first, starts(2))


@pytest.mark.parametrize(
    "options", [{"num_ensembles": 0}, {"data": "some"}, {"num_ensembles": 2, "num_workers": 3}]
)
def test_an_ensemble_of_impossible_options_is_refused(options):
    with pytest.raises(ValueError, match="Received"):
        distkeras.EnsembleTrainer(model(), "sgd", "mse", **options)


@pytest.mark.parametrize("given", [{}, {"a": 1.0}, {0: -1.0}, {0: float("nan")}, {0: "much"}, [1.0, 2.0]])
def test_class_weights_that_are_none_are_refused(given):
    with pytest.raises(ValueError, match="`class_weight` must map classes to numbers from 0"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", class_weight=given)


def test_a_trainer_that_trains_refuses_a_second_training_and_goes_on_after_an_error(monkeypatch):
    trainer, errors = distkeras.DOWNPOUR(model(), "sgd", "mse"), []

    def refused():
        with pytest.raises(RuntimeError, match=r"is already training.*Received: DOWNPOUR.train") as caught:
            trainer.train(None)
        errors.append(caught.value)

    def find(server, resume):
        """Called first in a training: here another thread asks for a second one."""
        thread = threading.Thread(target=refused)
        thread.start()
        thread.join(20)
        raise LookupError("the first ends")

    monkeypatch.setattr("distkeras.lifecycle.keeping.find_interrupted", find)
    for count in (1, 2):
        with pytest.raises(LookupError, match="the first ends"):
            trainer.train(None)
        assert len(errors) == count


def test_another_trainer_may_train_meanwhile(monkeypatch):
    first, second = (distkeras.DOWNPOUR(model(), "sgd", "mse") for _ in range(2))
    servers = []

    def find(server, resume):
        servers.append(server)
        if len(servers) == 1:
            with pytest.raises(LookupError, match="of 2"):
                second.train(None)
        raise LookupError(f"of {len(servers)}")

    monkeypatch.setattr("distkeras.lifecycle.keeping.find_interrupted", find)
    with pytest.raises(LookupError, match="of 2"):
        first.train(None)
    assert servers == [first.server, second.server]
