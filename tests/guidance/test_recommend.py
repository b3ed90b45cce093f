"""`recommend`: what it answers comes from the measurements, and a trainer takes it."""

from __future__ import annotations

import itertools
import statistics

import pytest

from distkeras import DistributedTrainer, recommend
from distkeras.algorithms import REGISTRY, is_fair
from distkeras.guidance import measurements

WORKERS = (2, 8, 64, 256, 1000)


class Weights:
    """A model, as far as its size."""

    def __init__(self, count):
        self._count = count

    def count_params(self):
        return self._count


def conditions():
    return itertools.product(WORKERS, ("alike", "unequal"), ("alike", "skewed"), ("fast", "slow"))


def test_every_question_has_an_answer_that_a_trainer_takes():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    seen = set()
    for workers, machines, data, network in conditions():
        advice = recommend(num_workers=workers, machines=machines, data=data, network=network)
        trainer = DistributedTrainer(model, advice.algorithm, "sgd", "mse", **advice.options)
        assert (trainer.num_workers, trainer.batch_size) == (workers, advice.options["batch_size"])
        assert str(advice).count("\n") >= 2
        seen.add(type(advice.algorithm).__name__)
    assert len(seen) > 1


def test_nothing_measured_under_the_same_conditions_is_better():
    rows, compared = max(each.rows for each in measurements().measured), 0
    for workers, machines, data in itertools.product((8, 64, 256), ("alike", "unequal"), ("alike", "skewed")):
        advice = recommend(num_workers=workers, machines=machines, data=data)
        if (advice.measured.machines, advice.measured.data) != (machines, data):
            continue  # Not measured: of the nearest, those that do not suit are left out.
        compared += 1
        asked = (workers, advice.measured.machines, advice.measured.data, rows)
        rivals = [
            each.in_time
            for each in measurements().measured
            if (each.num_workers, each.machines, each.data, each.rows) == asked
        ]
        assert advice.measured.in_time == max(rivals)
    assert compared >= 5


def test_rules_that_wait_are_chosen_only_on_request_and_left_out_on_request():
    for workers, machines in itertools.product((8, 64, 256), ("alike", "unequal")):
        for synchronous in (True, False):
            advice = recommend(num_workers=workers, machines=machines, synchronous=synchronous)
            assert advice.algorithm.synchronous is synchronous
            assert all(REGISTRY[each.rule].synchronous is synchronous for each in advice.others)


def test_a_slow_network_has_long_windows_and_small_messages():
    fast, slow = (recommend(num_workers=64, network=network) for network in ("fast", "slow"))
    assert slow.algorithm.communication_window == max(each.window for each in measurements().measured)
    assert slow.algorithm.communication_window >= fast.algorithm.communication_window
    assert "compression" in slow.options
    assert "compression" not in fast.options


def test_the_window_follows_the_size_of_the_model_and_the_network():
    windows = []
    for count in (1_000, 1_000_000, 10_000_000):
        advice = recommend(num_workers=8, model=Weights(count), network=125e6, step_seconds=0.1)
        seconds = 8 * 2 * 4 * count / (4 if "compression" in advice.options else 1) / 125e6
        window = advice.algorithm.communication_window
        assert window * 0.1 * 0.2 >= seconds * 0.999
        windows.append(window)
    assert windows == sorted(windows)
    assert windows[0] < windows[-1]


def test_windows_longer_than_measured_are_said_to_be():
    advice = recommend(num_workers=256, model=Weights(100_000_000), network=125e6)
    assert advice.algorithm.communication_window > advice.measured.window
    assert any("were not measured" in reason for reason in advice.reasons)


def test_unequal_machines_with_skewed_data_and_long_windows_get_a_fair_rule_that_does_not_wait():
    advice = recommend(num_workers=64, machines="unequal", data="skewed", network="slow")
    fair = is_fair(advice.algorithm, advice.options.get("quorum"))
    assert fair or type(advice.algorithm).__name__ == "DecoupledDiLoCo"


def test_one_worker_trains_alone():
    advice = recommend(num_workers=1, network="slow")
    assert type(advice.algorithm).__name__ == "Sequential"
    assert advice.measured.accuracy == pytest.approx(measurements().single, abs=1e-5)


def test_many_workers_lose_where_rows_in_flight_grow():
    """The guidance says that rows in flight decide more than the rule; the measurements must show it."""
    shortest, longest = [], []
    for rule in {each.rule for each in measurements().measured if each.num_workers == 64}:
        runs = {
            each.window: each.accuracy
            for each in measurements().measured
            if (each.rule, each.num_workers, each.seeds) == (rule, 64, 1)
        }
        shortest.append(runs[min(runs)])
        longest.append(runs[max(runs)])
    assert statistics.median(shortest) > statistics.median(longest)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_workers": 0}, "num_workers=0"),
        ({"machines": "old"}, "machines='old'"),
        ({"data": "bad"}, "data='bad'"),
        ({"network": "slowish"}, "network='slowish'"),
        ({"network": 125e6}, "Give `model`"),
        ({"network": -1.0, "model": Weights(1)}, r"network=-1\.0"),
        ({"network": 1e6, "model": Weights(1), "step_seconds": 0.0}, r"step_seconds=0\.0"),
    ],
)
def test_a_wrong_question_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        recommend(**{"num_workers": 8} | wrong)
