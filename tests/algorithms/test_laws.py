"""Laws that every rule obeys. A rule is covered by standing in the registry."""

import ast
import copy
import dataclasses
import inspect
import math
import pickle
import textwrap

import cloudpickle
import numpy as np
import pytest
from driving import Job, wander
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.algorithms import (
    ADAG,
    AEASGD,
    DCASGD,
    DOWNPOUR,
    EAMSGD,
    EASGD,
    REGISTRY,
    AdaptiveADAG,
    AdaptiveDCASGD,
    Algorithm,
    Averaging,
    Commit,
    DecoupledDiLoCo,
    DelayedNesterov,
    DiLoCo,
    DynSGD,
    EagerDiLoCo,
    GapAware,
    HALoS,
    LocalSGD,
    RescaledASGD,
    RingleaderASGD,
    Ringmaster,
    SlowMo,
    SparseLoCo,
    StreamingDiLoCo,
    get,
)
from distkeras.center.requests import Leave

RULES = pytest.mark.parametrize("rule", [rule() for rule in REGISTRY.values()], ids=list(REGISTRY))
START = np.linspace(-3, 3, 23).astype(np.float32)


def bits(vector):
    return vector.tobytes()


def some_commit(center, **changes):
    pulled = center + np.float32(0.01)
    values = {"worker": 0, "staleness": 1, "num_steps": 3, "num_samples": 8, "num_workers": 3}
    return Commit(**{**values, "pulled": pulled, **changes})


# Every rule.


@RULES
def test_commit_returns_a_new_array_and_leaves_local_and_anchor_as_they_were(rule):
    local, anchor = START * 2, START.copy()
    message = rule.commit(local, anchor, 3)
    assert message.dtype == np.float32
    assert message.shape == local.shape
    assert not np.shares_memory(message, local)
    assert not np.shares_memory(message, anchor)
    assert bits(local) == bits(START * 2)
    assert bits(anchor) == bits(START)


@RULES
def test_apply_answers_one_float32_an_element_and_leaves_a_finite_center(rule):
    rule, center = rule.for_workers(3), START.copy()
    state = rule.init_with(center, 3)
    for staleness in (0, 1, 7):
        reply = rule.apply(center, 0.1 * START, some_commit(center, staleness=staleness), state)
        assert np.isfinite(center).all()
        if reply is not None:
            assert reply.shape == center.shape
            assert reply.dtype == np.float32


@RULES
def test_weights_stay_finite_after_many_stale_commits(rule):
    job = wander(Job(rule, START, 4), num_commits=80)
    assert np.isfinite(job.weights).all()
    assert all(np.isfinite(local).all() for local in job.local)


@RULES
def test_state_is_arrays_that_keep_their_shape_and_type(rule):
    rule, center = rule.for_workers(3), START.copy()
    state = rule.init_with(center, 3)
    before = {name: (array.shape, array.dtype) for name, array in state.items()}
    for _ in range(4):
        rule.apply(center, 0.1 * START, some_commit(center), state)
    assert all(isinstance(array, np.ndarray) for array in state.values())
    assert {name: (array.shape, array.dtype) for name, array in state.items()} == before


@RULES
def test_center_and_state_are_all_that_a_restart_needs(rule):
    job = wander(Job(rule, START, 3), num_commits=30)
    rule, center, state = job.algorithm, job.weights, copy.deepcopy(job.center.shards[0].state)
    rule.apply(center, 0.1 * START, some_commit(center), state)
    again, kept = job.weights, {name: array.copy() for name, array in job.center.shards[0].state.items()}
    pickle.loads(pickle.dumps(rule)).apply(again, 0.1 * START, some_commit(again), kept)
    assert bits(center) == bits(again)


@RULES
@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_rule_travels_by_pickle(rule, module):
    assert pickle.loads(module.dumps(rule)) == rule


@pytest.mark.parametrize(
    "rule", [rule() for rule in REGISTRY.values() if not rule.needs_tensors], ids=lambda rule: rule.name
)
@pytest.mark.parametrize("num_shards", [2, 7])
def test_shards_do_not_change_a_bit(rule, num_shards):
    whole = wander(Job(rule, START, 3, num_shards=1))
    cut = wander(Job(rule, START, 3, num_shards=num_shards))
    assert len(cut.center.shards) == num_shards
    assert bits(whole.weights) == bits(cut.weights)
    assert [bits(local) for local in whole.local] == [bits(local) for local in cut.local]


@RULES
def test_worker_that_trained_nothing_moves_nothing(rule):
    job = Job(rule, START, 2)
    for _ in range(3):
        job.round()
    assert bits(job.weights) == bits(START)
    assert all(bits(local) == bits(START) for local in job.local)


@RULES
def test_commit_sent_twice_is_applied_once(rule):
    job = Job(rule, START, 2)
    requests = []
    for worker in job.workers:
        job.train(worker)
        requests.append(job.request(worker))
    twice = [dataclasses.replace(request, message=request.message.copy()) for request in requests]
    for request in requests:
        job.hear(job.center.handle(request))
    center, state = job.weights, copy.deepcopy(job.center.shards[0].state)
    counts = job.center.num_updates, job.center.num_commits
    for request in twice:
        ((_, answer),) = job.center.handle(request)
        assert answer.restart
        assert bits(answer.reply) == bits(center)
    assert bits(job.weights) == bits(center)
    assert (job.center.num_updates, job.center.num_commits) == counts
    for name, array in job.center.shards[0].state.items():
        np.testing.assert_array_equal(array, state[name])


@RULES
def test_statistics_are_averaged_whatever_the_rule(rule):
    job = Job(rule, [1.0, 2.0, 10.0], 2, num_trainable=2)
    job.local[0][2], job.local[1][2] = 20.0, 40.0
    job.round()
    # In turn: 10 + (20 - 10) / 2 = 15, then 15 + (40 - 15) / 2 = 27.5. In a round: (20 + 40) / 2.
    # A message that is only buffered moves no statistics: 10 + (40 - 10) / 2.
    expected = 25.0 if rule.name in ("FedBuff", "RingleaderASGD") else 27.5
    assert job.weights[2] == (30.0 if rule.synchronous else expected)
    assert bits(job.weights[:2]) == bits(np.array([1, 2], np.float32))


@RULES
def test_center_comes_nearer_to_the_optimum(rule):
    start = np.array([-1.0, 0.5, 1.0], np.float32)
    job = Job(rule, start, 2)
    for _ in range(4):
        for worker in job.workers:
            job.train(worker, 2)
        job.round(num_steps=2)
    assert (np.abs(job.weights) < 0.95 * np.abs(start)).all()


# Hyper-parameters of every rule.

HYPER_PARAMETERS = [
    pytest.param(rule, field.name, id=f"{rule.__name__}-{field.name}")
    for rule in REGISTRY.values()
    for field in dataclasses.fields(rule)
    if field.name != "communication_window" and not isinstance(field.default, bool)
]


@pytest.mark.parametrize(("rule", "field"), HYPER_PARAMETERS)
@pytest.mark.parametrize("value", [-1, -math.inf, math.nan, "0.1", True, [0.1]])
def test_senseless_hyper_parameter_is_refused_by_name(rule, field, value):
    with pytest.raises((ValueError, TypeError), match=rf"`{field}`.* of {rule.__name__}.* Received: "):
        rule(**{field: value})


@RULES
@pytest.mark.parametrize("window", [0, -1, 2.5, True, "5"])
def test_senseless_communication_window_is_refused(rule, window):
    with pytest.raises(ValueError, match="communication_window=") as error:
        type(rule)(communication_window=window)
    assert repr(window) in str(error.value)


@RULES
def test_docstring_names_every_hyper_parameter_and_the_paper(rule):
    text = inspect.getdoc(type(rule))
    for field in dataclasses.fields(rule):
        assert f"\n    {field.name}: " in text
    assert rule.name == "Sequential" or "Reference: " in text
    assert len(inspect.getmodule(type(rule)).__doc__.splitlines()) == 1


@RULES
def test_rule_has_at_most_twenty_lines(rule):
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(rule))))
    methods = {
        "init",
        "init_with",
        "commit",
        "commit_with",
        "decide",
        "decide_with",
        "combine",
        "apply",
        "adopt",
    }
    methods |= {"adopt_with", "weight"}
    rules = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in methods]
    lines = [n for rule in rules for n in ast.walk(rule) if isinstance(n, ast.stmt) and n is not rule]
    assert len(lines) <= 20


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (EAMSGD, {"momentum": 1.0}),
        (SlowMo, {"outer_momentum": 1}),
        (AEASGD, {"rho": math.inf}),
        (AEASGD, {"rho": 0}),
        (AEASGD, {"alpha": 0}),
        (EAMSGD, {"alpha": 1.5}),
        (EagerDiLoCo, {"share": 0.0}),
        (SparseLoCo, {"residual_decay": 1.1}),
        (AdaptiveDCASGD, {"decay": 1.0}),
        (AdaptiveADAG, {"gamma": 0.0}),
        (EASGD, {"alpha": 0.0}),
        (EASGD, {"alpha": 1.1}),
        (Ringmaster, {"delay_threshold": 0}),
        (DelayedNesterov, {"period": 0}),
    ],
)
def test_bound_that_does_not_belong_to_the_interval_is_refused(rule, values):
    with pytest.raises(ValueError, match="must lie in"):
        rule(**values)


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (EAMSGD, {"momentum": 0}),
        (EASGD, {"alpha": 1}),
        (AEASGD, {"rho": 1, "learning_rate": 1}),
        (AEASGD, {"alpha": 1}),
        (SparseLoCo, {"residual_decay": 0}),
        (AdaptiveDCASGD, {"lambda_0": 0}),
        (AdaptiveADAG, {"gamma": math.inf}),
        (DCASGD, {"lambda_": 0}),
        (Ringmaster, {"delay_threshold": 1}),
    ],
)
def test_bound_that_belongs_to_the_interval_is_taken(rule, values):
    assert dataclasses.asdict(rule(**values)).items() >= values.items()


def test_moving_rate_beyond_one_is_refused_with_both_factors():
    with pytest.raises(ValueError, match=r"learning_rate=0\.5, rho=5\.0"):
        AEASGD(learning_rate=0.5, rho=5.0)
    with pytest.raises(
        ValueError, match=r"pass only one of the two.*alpha=0\.3, learning_rate=0\.1, rho=5\.0"
    ):
        AEASGD(alpha=0.3, rho=5.0)


@pytest.mark.parametrize("rule", [AEASGD, EAMSGD])
def test_rho_is_another_way_to_give_the_moving_rate(rule):
    assert rule(rho=5.0).alpha == rule(alpha=0.5).alpha == 0.5
    assert dataclasses.replace(rule(rho=5.0), communication_window=3).alpha == 0.5


def check_exchange_leaves(rule, num_workers, alpha):
    """An exchange leaves `1 - 2 alpha` of the distance between worker and center."""
    job = Job(rule, [3.0], num_workers)
    job.local[0] = np.array([-5.0], np.float32)
    job.exchange(0)
    np.testing.assert_allclose(job.local[0] - job.weights, (1 - 2 * alpha) * -8.0, rtol=1e-6)


@pytest.mark.parametrize("num_workers", [2, 4, 9])
def test_an_elastic_exchange_leaves_part_of_the_distance_by_default_with_nine_tenths_over_the_workers(
    num_workers,
):
    for rule in (AEASGD(), EAMSGD()):
        check_exchange_leaves(rule, num_workers, 0.9 / num_workers)
    check_exchange_leaves(AEASGD(alpha=0.2), num_workers, 0.2)


class ForceOfOne(AEASGD):
    """The default for one worker, whatever their number."""

    def apply(self, center, message, commit, state):
        return super().apply(center, message, dataclasses.replace(commit, num_workers=1), state)


def test_planted_fault_in_the_default_moving_rate_is_found():
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_exchange_leaves(ForceOfOne(), 4, 0.9 / 4)


def test_eager_diloco_without_share_says_how_to_get_it():
    with pytest.raises(ValueError, match="for_workers"):
        EagerDiLoCo().adopt_with(START, START, START, {})
    assert EagerDiLoCo().for_workers(4).share == 0.25
    assert EagerDiLoCo(share=0.1).for_workers(4).share == 0.1


def test_ringmaster_takes_the_threshold_of_the_theory():
    assert Ringmaster(1, variance=5.0, accuracy=0.5).threshold(3) == 10
    assert Ringmaster(1, variance=5.1, accuracy=0.5).threshold(3) == 11
    assert Ringmaster(1, variance=0.0, accuracy=0.5).threshold(3) == 1
    assert Ringmaster(delay_threshold=7).threshold(3) == 7
    assert Ringmaster().threshold(3) == 6
    for wrong in (
        {"variance": 1.0},
        {"accuracy": 1.0},
        {"variance": 1.0, "accuracy": 1.0},
        {"communication_window": 1, "variance": 1.0, "accuracy": 1.0, "delay_threshold": 3},
    ):
        with pytest.raises(ValueError, match=r"windows of one step.*Received: Ringmaster\("):
            Ringmaster(**wrong)


def test_easgd_without_alpha_says_how_to_get_it():
    with pytest.raises(ValueError, match="for_workers"):
        EASGD().adopt(START, START, START)
    assert EASGD().for_workers(4).alpha == 0.225
    assert EASGD(alpha=0.1).for_workers(4).alpha == 0.1


def test_delayed_nesterov_refuses_to_apply_the_momentum_more_than_once():
    with pytest.raises(ValueError, match=r"\[0, 0.25\]"):
        DelayedNesterov(period=4, activation=0.3)
    with pytest.raises(TypeError, match="an integer"):
        DelayedNesterov(period=2.5)


# The registry.


@RULES
def test_rule_is_found_by_its_name_in_any_case(rule):
    assert get(rule.name) == get(rule.name.lower()) == rule
    assert get(rule) is rule


def test_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean 'DynSGD'\? Received: algorithm='dymsgd'"):
        get("dymsgd")
    with pytest.raises(ValueError, match=r"Known: ADAG, AdagradDOWNPOUR"):
        get("xxxxxxxxxxxxxxxx")
    with pytest.raises(TypeError, match="Received: algorithm=5"):
        get(5)


# One worker.

ALONE = [
    DOWNPOUR(),
    DynSGD(),
    Averaging(),
    LocalSGD(),
    SlowMo(outer_momentum=0.0),
    DiLoCo(outer_learning_rate=1.0, outer_momentum=0.0),
    Ringmaster(),
    DCASGD(),
    AdaptiveDCASGD(),
    GapAware(),
    RescaledASGD(),
    RingleaderASGD(),
    SparseLoCo(),
    DecoupledDiLoCo(outer_learning_rate=1.0, outer_momentum=0.0),
    EagerDiLoCo(outer_learning_rate=1.0, outer_momentum=0.0),
    get("Sequential"),
]


@pytest.mark.parametrize("rule", ALONE, ids=lambda rule: rule.name)
def test_one_worker_equals_sequential_training(rule):
    job, alone = Job(rule, START), START.copy()
    for num_steps in (5, 5, 2):
        job.train(0, num_steps, rate=0.1, optimum=1.5)
        job.exchange(0, num_steps)
        for _ in range(num_steps):
            alone -= np.float32(0.1) * (alone - np.float32(1.5))
    np.testing.assert_allclose(job.weights, alone, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(job.local[0], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", [ADAG(1), AdaptiveADAG(1)], ids=lambda rule: rule.name)
def test_one_worker_that_commits_every_step_equals_sequential_training(rule):
    job, alone = Job(rule, START), START.copy()
    for _ in range(12):
        job.train(0, optimum=1.5)
        job.exchange(0)
        alone -= np.float32(0.1) * (alone - np.float32(1.5))
    np.testing.assert_allclose(job.weights, alone, rtol=1e-6, atol=1e-6)


# Rules that coincide.


@pytest.mark.parametrize(
    ("rule", "other", "num_workers", "num_steps"),
    [
        (DynSGD(), DOWNPOUR(), 1, 2),
        (ADAG(1), DOWNPOUR(1), 4, 1),
        (AdaptiveADAG(gamma=math.inf), ADAG(), 4, 2),
        (SlowMo(outer_learning_rate=1.0, outer_momentum=0.0), LocalSGD(), 4, 2),
        (DiLoCo(outer_learning_rate=1.0, outer_momentum=0.0), LocalSGD(), 4, 2),
        (Ringmaster(delay_threshold=math.inf), DOWNPOUR(), 4, 2),
        (DCASGD(lambda_=0.0), DOWNPOUR(), 4, 2),
        (GapAware(learning_rate=math.inf), DOWNPOUR(), 4, 2),
        (EAMSGD(), AEASGD(), 4, 2),
        (AdaptiveDCASGD(lambda_0=0.0), DOWNPOUR(), 4, 2),
        (AEASGD(), AEASGD(alpha=0.9 / 4), 4, 2),
        (SparseLoCo(), LocalSGD(), 4, 2),
        (RingleaderASGD(), DOWNPOUR(), 1, 2),
        (HALoS(alpha=1), DelayedNesterov(outer_learning_rate=0.3, outer_momentum=0.5, period=2), 4, 2),
        (RescaledASGD(), DOWNPOUR(), 1, 2),
        (DecoupledDiLoCo(), DiLoCo(), 1, 2),
        (StreamingDiLoCo(outer_learning_rate=0.7, alpha=0), DiLoCo(), 4, 2),
    ],
    ids=lambda value: value.name if isinstance(value, Algorithm) else str(value),
)
def test_rules_coincide_bit_for_bit(rule, other, num_workers, num_steps):
    ours = wander(Job(rule, START, num_workers), num_steps=num_steps)
    theirs = wander(Job(other, START, num_workers), num_steps=num_steps)
    assert bits(ours.weights) == bits(theirs.weights)
    assert [bits(local) for local in ours.local] == [bits(local) for local in theirs.local]
    assert bits(ours.weights) != bits(START)


def test_mean_of_weights_is_the_center_plus_the_mean_of_deltas():
    weights = wander(Job(Averaging(), START, 3)).weights
    np.testing.assert_allclose(weights, wander(Job(LocalSGD(), START, 3)).weights, rtol=1e-5, atol=1e-6)


# Elastic rules.

FLOATS = st.floats(-1000, 1000, width=32, allow_subnormal=False)  # Those have no relative precision.


@settings(max_examples=60, deadline=None)
@given(center=FLOATS, local=FLOATS, alpha=st.floats(0.01, 1), rule=st.sampled_from([AEASGD, EAMSGD]))
def test_elastic_exchange_conserves_the_sum_of_center_and_worker(center, local, alpha, rule):
    job = Job(rule(rho=1.0, learning_rate=alpha), [center])
    job.local[0] = np.array([local], np.float32)
    job.exchange(0)
    assert abs(job.weights[0] + job.local[0][0] - (center + local)) <= 4 * 2**-23 * (abs(center) + abs(local))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(FLOATS, min_size=3, max_size=8), alpha=st.floats(0.01, 0.3))
def test_synchronous_elastic_round_conserves_the_sum_of_center_and_workers(values, alpha):
    job = Job(EASGD(alpha=alpha), values[:1], len(values) - 1)
    for worker in job.workers:
        job.local[worker] = np.array(values[1 + worker : 2 + worker], np.float32)
    job.round()
    total = job.weights[0].astype(float) + sum(float(local[0]) for local in job.local)
    assert abs(total - sum(values)) <= 20 * 2**-23 * sum(map(abs, values))


def test_elastic_exchange_swaps_at_one_and_meets_at_one_half():
    swap = Job(AEASGD(rho=1.0, learning_rate=1.0), [3.0])
    swap.local[0] = np.array([-5.0], np.float32)
    swap.exchange(0)
    assert (swap.weights[0], swap.local[0][0]) == (-5.0, 3.0)
    meet = Job(AEASGD(rho=5.0, learning_rate=0.1), [3.0])
    meet.local[0] = np.array([-5.0], np.float32)
    meet.exchange(0)
    assert (meet.weights[0], meet.local[0][0]) == (-1.0, -1.0)


# Momentum on the server.


@pytest.mark.parametrize("num_workers", [1, 3, 5])
def test_delayed_nesterov_from_one_base_equals_a_nesterov_step_on_the_mean(num_workers):
    ours, theirs = Job(DelayedNesterov(), START, num_workers), Job(DiLoCo(), START, num_workers)
    for turn in range(4):
        for job in (ours, theirs):
            for worker in job.workers:
                job.join(worker)
                job.train(worker, 3, optimum=worker - turn)
            job.round(3)
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "moves"),
    [
        (0.0, [0, 0, 0, 0.7 * 0.9 * 0.9]),
        (0.1, [0.7 * 0.1 * 0.9] * 3 + [0.7 * (1 - 3 * 0.1) * 0.9 * 0.9]),
        (0.25, [0.7 * 0.25 * 0.9] * 3 + [0.7 * 0.25 * 0.9 * 0.9]),
    ],
)
def test_delayed_nesterov_hands_out_its_momentum_in_shares(activation, moves):
    # Zero deltas, momentum 1: the fourth commit first lets it decay to 0.9, then applies what is left of it.
    rule, center = DelayedNesterov(period=4, activation=activation), np.zeros(1, np.float32)
    state = rule.init(center)
    state["momentum"][:] = 1
    path = [0.0]
    for _ in moves:
        rule.apply(center, np.zeros(1, np.float32), some_commit(center), state)
        path.append(float(center[0]))
    np.testing.assert_allclose(np.diff(path), moves, rtol=1e-5)


# Discarded messages.


def test_ringmaster_never_discards_for_ever():
    job = Job(Ringmaster(delay_threshold=1), START, 4)
    applied = []
    for _ in range(3):
        for worker in job.workers:
            before = job.weights
            job.train(worker)
            job.exchange(worker)
            applied.append(bits(job.weights) != bits(before))
    # The first commit makes the others stale; it then counts as nobody's delay that theirs are discarded.
    assert applied == [True, False, False, False] * 3


def test_discarded_message_is_answered_with_the_center_and_ages_nobody():
    job = Job(Ringmaster(delay_threshold=2), START, 3)
    for worker in (0, 0, 1):
        job.train(worker)
        job.exchange(worker)
    assert bits(job.local[1]) == bits(job.weights)
    assert (job.center.num_updates, job.center.num_commits) == (2, 3)
    assert job.staleness[1] == 2
    job.train(0)
    job.exchange(0)
    assert job.staleness[0] == 0


def test_leaving_synchronous_worker_lets_easgd_move_the_less():
    job = Job(EASGD(alpha=0.1), [0.0], 2)
    for worker in job.workers:
        job.local[worker] = np.array([1.0], np.float32)
    job.exchange(0)
    job.hear(job.center.handle(Leave(1)))
    np.testing.assert_allclose(job.weights, [0.1], rtol=1e-6)
