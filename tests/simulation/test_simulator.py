"""The event loop: clock, network, faults, rounds, and what a result holds."""

import dataclasses
import doctest

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from counting import CountRounds, CountSteps

from distkeras.algorithms import DCASGD, DOWNPOUR, EAMSGD, EASGD, REGISTRY, DynSGD, LocalSGD
from distkeras.record import replay
from distkeras.simulation import (
    Constant,
    Exponential,
    Failures,
    Gamma,
    Heterogeneous,
    Network,
    Outages,
    Quadratic,
    Seconds,
    simulate,
)


@dataclasses.dataclass(frozen=True)
class Speeds:
    """Worker i takes `seconds[i]` for a step."""

    seconds: tuple[float, ...]

    def windows(self, num_workers, rng):
        return lambda worker, num_steps: self.seconds[worker] * num_steps


class Watched(Quadratic):
    """Notes what it is asked to train."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        object.__setattr__(self, "seen", [])

    def train(self, weights, num_steps, replica):
        self.seen.append((replica.worker, weights))
        return super().train(weights, num_steps, replica)


def run(rule=None, problem=None, **options):
    defaults = {"num_workers": 4, "num_commits": 50, "learning_rate": 0.1}
    return simulate(
        DOWNPOUR(communication_window=2) if rule is None else rule,
        Quadratic() if problem is None else problem,
        **defaults | options,
    )


def short(name):
    rule = REGISTRY[name]()
    return rule if rule.communication_window is None else dataclasses.replace(rule, communication_window=3)


# --- Determinism ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REGISTRY)
def test_same_seed_gives_the_same_trajectory_bit_for_bit(name):
    def trajectory(seed):
        return run(
            short(name),
            Quadratic([1.0, 2.0, 0.5], noise=0.3),
            num_workers=1 if name == "Sequential" else 5,
            step_time=Heterogeneous(),
            network=Network(latency=0.1, bandwidth=1e3, service=0.05),
            failures=Failures(crash=0.1, restart=2.0, straggle=0.1, lost_reply=0.1, timeout=1.0),
            seed=seed,
        )

    first, again, other = trajectory(3), trajectory(3), trajectory(4)
    assert first.num_commits == 50
    for field in ("centers", "times", "samples", "workers", "staleness", "losses"):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert first.bytes_sent == again.bytes_sent
    assert first.centers.tobytes() != other.centers.tobytes()


@pytest.mark.parametrize("num_shards", [2, 7])
def test_shards_do_not_change_the_trajectory(num_shards):
    problem = Quadratic(np.linspace(0.1, 1, 10), noise=0.1)
    whole, cut = (run(DynSGD(), problem, num_shards=count) for count in (1, num_shards))
    assert whole.centers.tobytes() == cut.centers.tobytes()


# --- Training ---------------------------------------------------------------------------------------------


def test_one_worker_is_plain_gradient_descent():
    result = run(num_workers=1, num_commits=20)
    expected = np.float32(0.9) ** (2 * np.arange(21))
    np.testing.assert_allclose(result.centers[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(result.losses, result.centers[:, 0].astype(float) ** 2 / 2, rtol=1e-6)
    assert result.samples.tolist() == list(range(0, 42, 2))


def test_momentum_of_a_rule_is_nesterovs_inner_step():
    rule = EAMSGD(communication_window=3, rho=1e-6, learning_rate=0.1, momentum=0.5)
    problem = Watched(curvature=2.0)
    result = run(rule, problem, num_workers=1, num_commits=2)
    x, velocity, before = 1.0, 0.0, []
    for step in range(6):
        if step % 3 == 0:
            before.append(x)
        velocity = 0.5 * velocity - 0.1 * 2.0 * (x + 0.5 * velocity)
        x += velocity
    np.testing.assert_allclose([weights[0] for _, weights in problem.seen], before, rtol=1e-5)
    assert result.num_commits == 2


def test_learning_rate_is_the_rules_own_unless_another_is_given():
    rule = DCASGD(communication_window=1, learning_rate=0.25)
    assert run(rule, num_workers=1, num_commits=1, learning_rate=None).center[0] == 0.75
    assert run(rule, num_workers=1, num_commits=1, learning_rate=0.5).center[0] == 0.5
    plain = run(DOWNPOUR(communication_window=1), num_workers=1, num_commits=1, learning_rate=None)
    assert plain.center[0] == np.float32(0.99)


def test_gradient_noise_has_the_standard_deviation_asked_for():
    result = run(problem=Quadratic(np.zeros(20_000), noise=0.5), num_workers=1, num_commits=1)
    assert result.center.std() == pytest.approx(0.1 * 0.5 * 2**0.5, rel=0.02)


def test_window_of_none_is_an_epoch_of_the_problem():
    class TenSteps(Quadratic):
        def steps_per_epoch(self, num_workers):
            return 10 * num_workers

    result = run(CountSteps(communication_window=None), TenSteps(), num_commits=3)
    assert result.centers[:, 0].tolist() == [1, 41, 81, 121]


def test_workers_that_hold_one_version_share_one_array():
    problem = Watched()
    run(problem=problem, num_workers=6, num_commits=6, step_time=Constant())
    assert [worker for worker, _ in problem.seen] == list(range(6))
    assert all(weights is problem.seen[0][1] for _, weights in problem.seen)


# --- Time -------------------------------------------------------------------------------------------------


def test_latency_and_bandwidth_delay_each_way():
    network = Network(latency=0.25, bandwidth=1600.0)  # 100 weights, 400 bytes: 0.25 s more
    result = run(
        problem=Quadratic(np.ones(100)), num_workers=1, num_commits=3, step_time=Constant(), network=network
    )
    # A window of 2 s, half a second up, half a second down.
    assert result.times.tolist() == [0.0, 2.5, 5.5, 8.5]
    assert result.bytes_sent == result.bytes_received == 3 * 400


def test_server_serves_one_message_at_a_time():
    result = run(num_workers=3, num_commits=6, step_time=Constant(), network=Network(service=0.75))
    assert result.times.tolist() == [0.0, 2.75, 3.5, 4.25, 5.5, 6.25, 7.0]
    assert result.workers.tolist() == [0, 1, 2, 0, 1, 2]


def test_commits_are_applied_in_the_order_of_their_arrival():
    result = run(num_workers=2, num_commits=6, step_time=Speeds((1.0, 2.5)))
    assert result.times.tolist() == [0, 2, 4, 5, 6, 8, 10]
    assert result.workers.tolist() == [0, 0, 1, 0, 0, 1]  # at 10, worker 1 had sent first
    assert result.staleness.tolist() == [0, 0, 2, 1, 0, 2]


@pytest.mark.parametrize(
    ("step_time", "variation"), [(Constant(2.0), 0), (Exponential(2.0), 1), (Gamma(2.0), 0.1)]
)
def test_steps_have_the_mean_and_variation_of_their_distribution(step_time, variation):
    seconds = step_time.windows(1, np.random.default_rng(0))
    for num_steps in (1, 4):
        draws = np.array([seconds(0, num_steps) for _ in range(20_000)])
        assert draws.mean() == pytest.approx(2.0 * num_steps, rel=0.03)
        assert draws.std() / draws.mean() == pytest.approx(variation / num_steps**0.5, rel=0.03)


def test_machines_of_a_heterogeneous_cluster_differ_by_what_was_asked_for():
    seconds = Heterogeneous(mean=3.0).windows(4000, np.random.default_rng(0))
    draws = np.array([[seconds(worker, 1) for _ in range(20)] for worker in range(4000)])
    means = draws.mean(1)
    assert means.mean() == pytest.approx(3.0, rel=0.05)
    assert means.std() / means.mean() == pytest.approx(0.6, rel=0.05)
    assert (draws.std(1) / means).mean() == pytest.approx(0.1, rel=0.05)


# --- Rounds -----------------------------------------------------------------------------------------------


def test_a_round_takes_as_long_as_its_slowest_worker():
    result = run(LocalSGD(communication_window=2), num_commits=5, step_time=Speeds((1.0, 4.0, 2.0, 3.0)))
    assert result.times.tolist() == [0, 8, 16, 24, 32, 40]
    assert result.workers.tolist() == [-1] * 5
    assert result.samples.tolist() == [0, 8, 16, 24, 32, 40]
    np.testing.assert_allclose(result.centers[:, 0], 0.9 ** (2 * np.arange(6)), rtol=1e-5)


def test_a_quorum_does_not_wait_for_the_slowest():
    rule = LocalSGD(communication_window=1)
    result = run(rule, num_workers=3, num_commits=4, quorum=2, step_time=Speeds((1.0, 2.0, 3.0)))
    # 0 and 1 close a round at 2; 2 (sent first) and 0 at 3; 1 and 0 at 4; 0 waits from 5 for 1 and 2 at 6.
    assert result.times.tolist() == [0, 2, 3, 4, 6]
    assert result.staleness.tolist() == [0, 1, 1, 1]
    assert result.samples.tolist() == [0, 2, 4, 6, 8]


# --- Faults -----------------------------------------------------------------------------------------------

FAULTS = {
    "crash": Failures(crash=0.3, restart=1.0),
    "lost_reply": Failures(lost_reply=0.3, timeout=0.5),
    "straggle": Failures(straggle=0.3, slowdown=5.0),
    "all": Failures(crash=0.2, restart=1.0, straggle=0.2, lost_reply=0.2, timeout=0.5),
}


@pytest.mark.parametrize("failures", FAULTS.values(), ids=FAULTS)
def test_no_fault_loses_a_window_or_counts_one_twice(failures):
    problem = Watched()
    result = run(CountSteps(3), problem, num_commits=300, step_time=Exponential(), failures=failures)
    assert result.centers[:, 0].tolist() == [1 + 3 * commit for commit in range(301)]
    assert len(problem.seen) == 300  # a duplicate that was applied would be a commit without training
    assert result.samples.tolist() == [3 * commit for commit in range(301)]
    assert (result.num_crashes > 20) == (failures.crash > 0)
    assert (result.num_duplicates > 20) == (failures.lost_reply > 0)


@pytest.mark.parametrize("failures", FAULTS.values(), ids=FAULTS)
def test_no_fault_puts_a_worker_into_a_round_twice(failures):
    problem = Watched()
    result = run(CountRounds(3), problem, num_commits=80, step_time=Exponential(), failures=failures)
    assert result.centers[:, 0].tolist() == [1 + 3 * commit for commit in range(81)]
    assert len(problem.seen) == 80 * 4
    for start in range(0, 320, 4):
        assert sorted(worker for worker, _ in problem.seen[start : start + 4]) == [0, 1, 2, 3]


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    num_workers=st.integers(1, 9),
    synchronous=st.booleans(),
    step_time=st.sampled_from([Constant(), Exponential(), Gamma(), Heterogeneous()]),
    network=st.builds(Network, latency=st.floats(0, 5), service=st.floats(0, 2)),
    failures=st.builds(
        Failures,
        crash=st.floats(0, 0.5),
        restart=st.floats(0, 9),
        straggle=st.floats(0, 0.5),
        lost_reply=st.floats(0, 0.5),
        timeout=st.floats(0, 9),
    ),
    seed=st.integers(0, 1000),
)
def test_whatever_befalls_each_window_counts_once_and_time_goes_forward(
    num_workers, synchronous, step_time, network, failures, seed
):
    problem = Watched()
    result = run(
        (CountRounds if synchronous else CountSteps)(2),
        problem,
        num_workers=num_workers,
        num_commits=40,
        step_time=step_time,
        network=network,
        failures=failures,
        seed=seed,
    )
    assert result.centers[:, 0].tolist() == [1 + 2 * commit for commit in range(41)]
    assert len(problem.seen) * 2 == result.samples[-1] == 80 * (num_workers if synchronous else 1)
    assert np.all(np.diff(result.times) >= network.service - 1e-9)
    assert result.times[1] >= network.latency + network.service


def test_a_worker_that_died_starts_from_the_center_as_it_then_is():
    problem = Watched()
    result = run(
        EASGD(communication_window=1, alpha=0.1),
        problem,
        num_workers=1,
        num_commits=40,
        failures=Failures(crash=0.4, restart=1.0),
    )
    centers = result.centers[:, 0]
    starts = np.array([weights[0] for _, weights in problem.seen])
    at_center = [start == center for start, center in zip(starts, centers[:-1], strict=True)]
    # Without a crash the elastic worker runs ahead of the center.
    assert 5 < sum(at_center) < 30


def test_a_replacement_has_forgotten_its_predecessors_velocity():
    rule = EAMSGD(communication_window=1, rho=1e-6, learning_rate=0.1, momentum=0.9)

    class Memory(Quadratic):
        def train(self, weights, num_steps, replica):
            remembered.append("velocity" in replica.memory)
            return super().train(weights, num_steps, replica)

    remembered = []
    result = run(rule, Memory(), num_workers=1, num_commits=40, failures=Failures(crash=0.4))
    assert remembered.count(False) >= 5
    assert remembered.count(True) >= 5
    assert result.num_crashes >= remembered.count(False) - 1


def test_crashes_and_stragglers_cost_time():
    calm, crashed, slow = (
        run(num_workers=1, num_commits=200, step_time=Constant(), failures=failures)
        for failures in (None, Failures(crash=0.5, restart=3.0), Failures(straggle=0.5, slowdown=3.0))
    )
    assert calm.times[-1] == 400.0
    # A death costs half a window and the restart; half of the windows take three times as long.
    assert crashed.times[-1] == pytest.approx(400 + crashed.num_crashes * 4, rel=0.05)
    assert slow.times[-1] == pytest.approx(800, rel=0.1)
    assert crashed.num_crashes == pytest.approx(200, rel=0.25)


def test_a_lost_reply_costs_its_timeout_and_a_second_message():
    failures = Failures(lost_reply=0.3, timeout=5.0)
    result = run(num_workers=1, num_commits=100, step_time=Constant(), failures=failures)
    answered = result.num_duplicates
    assert result.bytes_sent == 4 * (100 + answered)
    # What is lost after the last commit does not count.
    assert result.times[-1] == 200 + 5 * answered


# --- Results ----------------------------------------------------------------------------------------------


def test_divergence_is_a_result_without_a_warning(recwarn):
    result = run(learning_rate=5.0, num_commits=500, problem=Quadratic(np.ones(3)))
    assert result.diverged
    assert 5 < result.num_commits < 500
    assert result.centers.shape == (result.num_commits + 1, 3)
    assert len(result.times) == len(result.losses) == result.num_commits + 1
    assert not recwarn.list


class OneByOne(Quadratic):
    """It evaluates centers in its own way, so that none waits for others."""

    def evaluate(self, weights):
        return super().evaluate(weights) | {"calls": 1.0}


@pytest.mark.parametrize("options", [{}, {"evaluate_every": Seconds(0.7)}, {"keep_centers": False}])
def test_centers_that_are_evaluated_together_have_the_same_metrics_bit_for_bit(options):
    settings = {"curvature": (0.5, 1.0, 0.3), "noise": 0.1}
    options = options | {"outages": Outages(server=20, snapshot=3), "step_time": Exponential()}
    together, alone = (
        simulate(DynSGD(1), problem, num_workers=4, num_commits=400, learning_rate=0.02, **options)
        for problem in (Quadratic(**settings), OneByOne(**settings))
    )
    assert together.num_restored > 1
    for name in ("losses", "evaluated", "versions", "centers"):
        assert getattr(together, name).tobytes() == getattr(alone, name).tobytes(), name
    assert alone.metrics["calls"].size == alone.losses.size > 100


def test_center_is_evaluated_at_the_start_every_so_often_and_at_the_end():
    result = run(num_commits=50, evaluate_every=20)
    full = run(num_commits=50)
    assert result.versions.tolist() == [0, 20, 40, 50]
    assert result.centers.tolist() == full.centers[[0, 20, 40, 50]].tolist()
    assert result.losses.tolist() == full.losses[[0, 20, 40, 50]].tolist()
    last = run(num_commits=50, evaluate_every=20, keep_centers=False)
    assert last.centers.tolist() == [full.center.tolist()]
    assert last.losses.tolist() == result.losses.tolist()


def test_to_pandas_has_a_row_a_version():
    result = run(num_commits=6, evaluate_every=4)
    frame = result.to_pandas()
    assert list(frame.columns) == ["commit", "time", "samples", "worker", "staleness", "loss"]
    assert frame["commit"].tolist() == list(range(7))
    assert frame["time"].tolist() == result.times.tolist()
    assert frame["worker"].isna().tolist() == [True] + [False] * 6
    assert frame["staleness"][1:].tolist() == result.staleness.tolist()
    assert frame["loss"].dropna().index.tolist() == [0, 4, 6]
    assert frame.dtypes["worker"] == pd.Int64Dtype()


def test_plot_shows_loss_against_time_and_samples_and_the_staleness():
    result = run()
    by_time, by_samples, histogram = result.plot().axes
    np.testing.assert_array_equal(by_time.lines[0].get_xdata(), result.times)
    np.testing.assert_array_equal(by_samples.lines[0].get_xdata(), result.samples)
    np.testing.assert_array_equal(by_samples.lines[0].get_ydata(), result.losses)
    assert [bar.get_height() for bar in histogram.patches] == np.bincount(result.staleness).tolist()


def test_progress_shows_the_rule_and_how_far_it_is(capsys):
    run(num_commits=30, progress=True)
    assert "DOWNPOUR" in (shown := capsys.readouterr().out)
    assert "100%" in shown


# --- Errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_workers": 0}, "num_workers=0"),
        ({"num_commits": 2.5}, "num_commits=2.5"),
        ({"evaluate_every": True}, "evaluate_every=True"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"quorum": 2}, "quorum=2"),
        ({"num_commits": 10**9}, "keep_centers=False"),
    ],
)
def test_a_number_out_of_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        run(**options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(0.0), "seconds=0.0"),
        (lambda: Exponential(float("inf")), "mean=inf"),
        (lambda: Gamma(shape=-1.0), "shape=-1.0"),
        (lambda: Heterogeneous(machine_variation=0.0), "machine_variation=0.0"),
        (lambda: Network(latency=-1.0), "latency=-1.0"),
        (lambda: Network(bandwidth=0.0), "bandwidth=0.0"),
        (lambda: Failures(crash=1.0), "crash=1.0"),
        (lambda: Failures(timeout=float("nan")), "timeout=nan"),
        (lambda: Failures(slowdown=0.5), "slowdown=0.5"),
        (lambda: Quadratic(noise=-1.0), "noise=-1.0"),
        (lambda: Quadratic([1.0, 2.0], start=[1.0, 2.0, 3.0]), "same length"),
        (lambda: Quadratic(np.ones((2, 2))), "same length"),
    ],
)
def test_conditions_out_of_range_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("rule", [DynSGD(), EASGD(), LocalSGD()], ids=lambda rule: rule.name)
def test_a_recorded_run_is_replayed_bit_for_bit(rule, tmp_path):
    path = str(tmp_path / "run.record")
    failures = Failures(crash=0.05, lost_reply=0.05)
    result = simulate(
        rule,
        Quadratic(),
        num_workers=5,
        num_commits=40,
        failures=failures,
        overlap=not rule.synchronous,
        record=path,
    )
    replayed = replay(path)
    assert replayed.center.tobytes() == result.centers[-1].tobytes()
    assert replayed.num_updates == 40
    with pytest.raises(FileExistsError, match="a record holds one run"):
        simulate(rule, Quadratic(), num_workers=5, num_commits=40, record=path)


def test_example_in_the_docstring_runs():
    from distkeras.simulation import simulator

    assert doctest.testmod(simulator) == doctest.TestResults(failed=0, attempted=4)
