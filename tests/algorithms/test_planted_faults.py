"""Faults planted in the newer rules: the golden numbers of each find them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import test_golden_numbers as golden

from distkeras.algorithms import (
    GPA,
    TAKE,
    AdagradDOWNPOUR,
    AdaptiveDCASGD,
    EagerDiLoCo,
    HALoS,
    RescaledASGD,
    RingleaderASGD,
    SparseLoCo,
)


class ForgetsTheSquares(AdagradDOWNPOUR):
    def apply(self, center, message, commit, state):
        state["square"][:] = 0
        return super().apply(center, message, commit, state)


class CompensatesNothing(AdaptiveDCASGD):
    def apply(self, center, message, commit, state):
        return super().apply(center, message, replace(commit, pulled=center.copy()), state)


class ForgetsTheMeanSquare(AdaptiveDCASGD):
    def apply(self, center, message, commit, state):
        state["square"][:] = 0
        return super().apply(center, message, commit, state)


class ByStalenessAlone(RescaledASGD):
    def apply(self, center, message, commit, state):
        state["commits"][:] = 0
        return super().apply(center, message, commit, state)


class StepsAlways(RingleaderASGD):
    def decide_with(self, commit, memory, training):
        super().decide_with(commit, memory, training)
        return TAKE


class KeepsWhatHasBeenUsed(RingleaderASGD):
    def apply(self, center, message, commit, state):
        before = message.copy()
        reply = super().apply(center, message, commit, state)
        if commit.verdict is TAKE:
            state["table"][commit.worker], state["counts"][commit.worker] = before, 1
        return reply


@dataclass(frozen=True)
class LosesNothing(SparseLoCo):
    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "residual_decay", 1.0)


class WithoutItsOwnPart(EagerDiLoCo):
    def adopt_with(self, local, message, reply, memory):
        return reply


class ForgetsItsMomentum(EagerDiLoCo):
    def adopt_with(self, local, message, reply, memory):
        memory.clear()
        return super().adopt_with(local, message, reply, memory)


class AnswersWithTheRound(EagerDiLoCo):
    def apply(self, center, message, commit, state):
        super().apply(center, message, commit, state)
        return center


class MergesTheOtherPart(HALoS):
    def adopt(self, local, message, reply):
        return self.alpha * local + (1 - self.alpha) * reply


class AveragesTheOtherWay(GPA):
    @property
    def inner_averaging(self):
        return self.mu_y, self.mu_x


FAULTS = [
    (golden.test_adagrad_at_the_server_gives_every_weight_a_rate_that_falls, ForgetsTheSquares),
    (golden.test_adaptive_dcasgd_divides_the_compensation_by_the_usual_gradient, CompensatesNothing),
    (golden.test_adaptive_dcasgd_divides_the_compensation_by_the_usual_gradient, ForgetsTheMeanSquare),
    (golden.test_rescaled_asgd_weighs_by_the_commits_from_one_of_a_worker_to_its_next, ByStalenessAlone),
    (golden.test_ringleader_steps_by_the_mean_of_the_workers_means, StepsAlways),
    (golden.test_ringleader_steps_by_the_mean_of_the_workers_means, KeepsWhatHasBeenUsed),
    (golden.test_sparseloco_sends_the_largest_and_lets_the_residual_fade, LosesNothing),
    (golden.test_eager_diloco_steps_by_the_round_before_with_its_own_fresh_part, WithoutItsOwnPart),
    (golden.test_eager_diloco_steps_by_the_round_before_with_its_own_fresh_part, AnswersWithTheRound),
    (golden.test_eager_diloco_has_the_steps_of_the_paper, ForgetsItsMomentum),
    (golden.test_halos_merges_the_center_into_what_the_worker_has, MergesTheOtherPart),
    (golden.test_gpa_adds_the_mean_and_averages_in_the_worker, AveragesTheOtherWay),
]


@pytest.mark.parametrize(("check", "fault"), FAULTS, ids=lambda value: value.__name__)
def test_golden_numbers_find_a_planted_fault(check, fault, monkeypatch):
    check()
    monkeypatch.setattr(golden, fault.__mro__[1].__name__, fault)
    with pytest.raises(AssertionError):
        check()
