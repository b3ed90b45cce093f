"""How the messages of a round become one: weights, shards, whole tensors, trimmed means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from distkeras.algorithms import EASGD, Algorithm, Averaging, LocalSGD, TrimmedMean
from distkeras.center import Center, CenterConfig, Layout, server_bounds
from distkeras.center.requests import Exchange, Join
from distkeras.record import replay
from distkeras.simulation import Failures, Quadratic, simulate

SIZE = 200_003
TENSORS = (3, 1, 4, 0, 15)


@dataclass(frozen=True)
class RadialDirectional(Algorithm):
    """c <- c + RDA(d): per tensor, the mean of the norms times the direction of the mean direction."""

    communication_window: int | None = 4
    synchronous: ClassVar[bool] = True
    needs_tensors: ClassVar[bool] = True

    def combine(self, messages, weights):
        norms = np.array([np.linalg.norm(message) for message in messages], weights.dtype)
        scales = np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0)
        direction = sum(scale * message for scale, message in zip(scales, messages, strict=True))
        length = np.linalg.norm(direction)
        if length < 1e-6:
            return super().combine(messages, weights)
        return direction * (np.dot(weights, norms) / length)

    def apply(self, center, message, commit, state):
        center += message
        return center


def round_of(rule, messages, samples=None, num_shards=None, **options):
    """Return the center, from 0, after a round of `messages`."""
    messages = np.atleast_2d(np.array(messages, np.float32))
    config = CenterConfig(rule, len(messages), **options)
    initial = np.zeros(messages.shape[1], np.float32)
    center = Center(config, initial, clock=lambda: 7.0, num_shards=num_shards)
    for worker in range(len(messages)):
        center.handle(Join(worker))
    for worker, message in enumerate(messages):
        rows = 1 if samples is None else samples[worker]
        answers = center.handle(Exchange(worker, 1, 1, rows, 0, 1, message.copy()))
    assert len(answers) == len(messages)
    return center


def combined(*args, **options):
    return round_of(*args, **options).snapshot()


def old_mean(messages, samples):
    """The sum as it was taken over the whole vector."""
    weights = np.array(samples, np.float32)
    weights /= weights.sum()
    mean = messages[0] * weights[0]
    for message, weight in zip(messages[1:], weights[1:], strict=True):
        mean += message * weight
    return mean


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_a_rule_that_combines_nothing_itself_has_the_mean_by_samples_bit_for_bit(num_shards):
    messages = np.random.default_rng(0).normal(size=(5, SIZE)).astype(np.float32)
    samples = [3, 1, 0, 7, 30]
    center = combined(Averaging(), messages, samples, num_shards, num_trainable=SIZE - 70_000)
    assert center.tobytes() == old_mean(messages, samples).tobytes()
    center = combined(Averaging(), messages[:1], [0], num_shards)
    assert center.tobytes() == messages[0].tobytes()
    center = combined(Averaging(), messages[:2], [0, 0], num_shards)
    assert center.tobytes() == old_mean(messages[:2], [1, 1]).tobytes()
    center = combined(EASGD(alpha=0.2), messages, samples, num_shards)
    assert center.tobytes() == old_mean(messages, [1] * 5).tobytes()


def test_a_trimmed_mean_drops_the_same_number_at_both_ends_of_each_coordinate():
    deltas = [[1, 9, -5], [2, 8, 0], [3, 7, 1e18], [7, 6, 1], [100, 5, 2]]
    for beta, expected in [(0.2, [4, 7, 1]), (0.39, [4, 7, 1]), (0.4, [3, 7, 1]), (0.49, [3, 7, 1])]:
        samples = [1, 50, 2, 3, 9]  # They do not weigh.
        np.testing.assert_array_equal(combined(TrimmedMean(beta=beta), deltas, samples), expected)
    np.testing.assert_array_equal(combined(TrimmedMean(beta=0.2), [[1], [2], [6], [9], [50], [90]]), [16.75])
    squares = np.arange(100)[:, None] ** 2.0  # 0.29 * 100 is 28.999999999999996
    np.testing.assert_allclose(combined(TrimmedMean(beta=0.29), squares), np.mean(squares[29:71]), rtol=1e-6)
    np.testing.assert_array_equal(combined(TrimmedMean(beta=0.4999), [[1], [3]]), [2])


def test_a_trimmed_mean_that_drops_nothing_is_local_sgd_bit_for_bit():
    messages = np.random.default_rng(1).normal(size=(9, 1000))
    expected = combined(LocalSGD(), messages).tobytes()
    for beta in (0, 0.11):  # floor(0.11 * 9) = 0
        assert combined(TrimmedMean(beta=beta), messages).tobytes() == expected
    assert combined(TrimmedMean(beta=0.12), messages).tobytes() != expected


@pytest.mark.parametrize("num_workers", [3, 5, 19])
def test_a_trimmed_mean_is_the_same_in_any_number_of_shards(num_workers):
    messages = np.random.default_rng(num_workers).normal(size=(num_workers, 8195)).astype(np.float32)
    expected = combined(TrimmedMean(beta=0.34), messages, num_shards=1)
    drop = int(0.34 * num_workers)
    kept = np.sort(messages, axis=0)[drop:-drop].astype(np.float64)
    np.testing.assert_allclose(expected, kept.mean(axis=0), atol=1e-6)
    for num_shards in (2, 7, 8195):  # 8195: one element each.
        assert (
            combined(TrimmedMean(beta=0.34), messages, num_shards=num_shards).tobytes() == expected.tobytes()
        )


def test_statistics_of_a_rule_that_combines_are_the_mean_by_its_weights():
    center = combined(TrimmedMean(beta=0.4), [[1, 10], [2, 20], [90, 60]], num_trainable=1)
    np.testing.assert_array_equal(center, [2, 30])


@pytest.mark.parametrize(
    ("deltas", "samples", "expected"),
    [
        ([[2, 0], [0, 2]], [1, 1], [1.41421356, 1.41421356]),
        ([[3, 4], [0, 10]], [3, 1], [2.92430, 5.52367]),
        ([[1, 0], [-1, 0]], [1, 1], [0, 0]),  # The directions cancel: the mean.
        ([[3, 0], [-1, 0]], [1, 1], [1, 0]),
        ([[0, 0], [0, 4]], [1, 1], [0, 2]),
    ],
)
def test_radial_directional_averaging_keeps_the_norm(deltas, samples, expected):
    np.testing.assert_allclose(combined(RadialDirectional(), deltas, samples), expected, atol=1e-5)


def test_a_rule_that_needs_tensors_sees_each_of_them_whole_whatever_the_shards_and_servers():
    sizes = []

    class Watching(RadialDirectional):
        def combine(self, messages, weights):
            sizes.append(messages[0].size)
            return super().combine(messages, weights)

    size, num_trainable = sum(TENSORS) + 2, sum(TENSORS)
    messages = np.random.default_rng(2).normal(size=(3, size)).astype(np.float32)
    options = {"num_trainable": num_trainable, "tensors": TENSORS}
    expected = combined(Watching(), messages, num_shards=1, **options)
    assert sizes == [3, 1, 4, 15, 0]  # The last shard has the statistics alone.
    for low, high in ((0, 3), (3, 4), (4, 8), (8, 23)):
        np.testing.assert_array_equal(
            expected[low:high], combined(RadialDirectional(), messages[:, low:high], num_shards=7)
        )
    for num_shards in (2, 7):
        assert (
            combined(Watching(), messages, num_shards=num_shards, **options).tobytes() == expected.tobytes()
        )
    config = CenterConfig(Watching(), 3, **options)
    for num_servers in (2, 3, 4):
        bounds = server_bounds(size, num_servers, config.whole_tensors(size))
        assert len(bounds) == num_servers
        parts = []
        for low, high in bounds:
            part = config.part(low, high)
            mine = {"num_trainable": part.num_trainable, "tensors": part.tensors}
            parts.append(combined(Watching(), messages[:, low:high], **mine))
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-6)


def test_a_rule_that_needs_no_tensors_is_cut_anywhere():
    config = CenterConfig(LocalSGD(), 2, tensors=TENSORS)
    assert config.whole_tensors(23) == ()
    assert len(round_of(LocalSGD(), np.ones((2, 23)), num_shards=7, tensors=TENSORS).shards) == 7
    assert CenterConfig(RadialDirectional(), 2).whole_tensors(23) == (23,)


def test_servers_parts_begin_at_the_tensors_that_are_nearest_to_equal_parts():
    assert server_bounds(100, 2, (10, 35, 20, 35)) == [(0, 45), (45, 100)]
    assert server_bounds(100, 3, (10, 35, 20, 30)) == [(0, 45), (45, 65), (65, 100)]
    assert server_bounds(100, 3, (97, 1, 2)) == [(0, 97), (97, 98), (98, 100)]
    assert server_bounds(100, 1, (97, 1, 2)) == [(0, 100)]
    with pytest.raises(ValueError, match=r"at most 3 parameter servers.*Received: 4"):
        server_bounds(100, 4, (97, 1, 2))


def test_tensors_that_do_not_make_up_the_vector_are_refused():
    with pytest.raises(ValueError, match=r"6 elements together. Received: tensors=\(3, 1\)"):
        round_of(RadialDirectional(), np.ones((2, 6)), tensors=(3, 1))


def test_a_layout_knows_the_tensors():
    layout = Layout((("a", (2, 3)), ("b", ()), ("c", (4,))), (("mean", (7,)),))
    assert layout.tensors == (6, 1, 4)
    assert layout.num_trainable == 11


@pytest.mark.parametrize(("returned", "received"), [(None, "None"), (np.zeros(3), r"\(3,\)"), (0.0, r"\(\)")])
def test_a_mean_of_another_shape_is_refused(returned, received):
    class Other(LocalSGD):
        def combine(self, messages, weights):
            return returned

    with pytest.raises(TypeError, match=rf"Other\.combine.*\(2,\).*Received: {received}"):
        round_of(Other(), [[1, 2], [3, 4]])


class Tensors(Quadratic):
    """A quadratic of two tensors."""

    tensors = (1, 3)


def test_the_simulator_and_a_record_know_the_tensors(tmp_path):
    path = str(tmp_path / "run.record")
    problem = {"curvature": (0.5, 1.0, 0.7, 0.2), "noise": 0.1}
    options = {"num_workers": 5, "num_commits": 8, "learning_rate": 0.1, "seed": 3}
    faults = Failures(crash=0.05, lost_reply=0.1)
    result = simulate(
        RadialDirectional(), Tensors(**problem), num_shards=1, failures=faults, record=path, **options
    )
    again = simulate(RadialDirectional(), Tensors(**problem), num_shards=7, failures=faults, **options)
    other = simulate(RadialDirectional(), Quadratic(**problem), failures=faults, **options)
    assert result.center.tobytes() == again.center.tobytes() != other.center.tobytes()
    assert replay(path, RadialDirectional()).center.tobytes() == result.center.tobytes()
