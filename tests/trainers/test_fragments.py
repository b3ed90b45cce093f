"""What a trainer says of fragments and of overlaps in steps before it reads any data."""

from __future__ import annotations

import keras
import pytest

import distkeras
from distkeras.algorithms import DOWNPOUR
from distkeras.cluster.resume import Interrupted


def model(num_layers=3):
    layers = [keras.layers.Dense(2) for _ in range(num_layers)]
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fragments": 4}, "from 1 to 3.*layers"),
        ({"fragments": 0}, "fragments"),
        ({"fragments": 2, "num_parameter_servers": 2}, "one parameter server"),
        ({"fragments": 2, "overlap": True}, "a number of steps, not True"),
        ({"fragments": 2, "overlap": 3}, "fewer steps"),
        ({"fragments": 2, "communication_window": None}, "in steps"),
        ({"fragments": 2, "communication_window": 1}, "at least as many as fragments"),
        ({"fragment_pattern": "random"}, "strided"),
        ({"overlap": 6}, "fewer steps"),
        ({"overlap": -1}, "fewer steps"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options, words):
    given = {"communication_window": 6, "num_workers": 2} | options
    with pytest.raises(ValueError, match=words):
        distkeras.StreamingDiLoCo(model(), "sgd", "mse", **given)


def test_an_overlap_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"number of minibatch steps.*overlap=0\.5"):
        distkeras.DOWNPOUR(model(), "sgd", "mse", overlap=0.5)


def test_a_resumed_training_has_the_same_fragments_and_tells_one_step_from_a_whole_window():
    def settings(**options):
        kind = distkeras.StreamingDiLoCo if "fragments" in options else distkeras.DOWNPOUR
        return kind(model(), "sgd", "mse", seed=1, **options)._settings(False, 20)

    with pytest.raises(ValueError, match="overlap=True, which was 1"):
        Interrupted(settings(overlap=1), 0).check(settings(overlap=True))
    Interrupted(settings(overlap=1), 0).check(settings(overlap=1))
    with pytest.raises(ValueError, match="fragments=3, which was 2"):
        Interrupted(settings(fragments=2), 0).check(settings(fragments=3))

    class Parts(DOWNPOUR):
        fragments = 2

    class OtherParts(DOWNPOUR):
        fragments = 3

    OtherParts.__name__ = "Parts"
    before, after = (
        distkeras.DistributedTrainer(model(), kind(), "sgd", "mse", seed=1)._settings(False, 20)
        for kind in (Parts, OtherParts)
    )
    with pytest.raises(ValueError, match="fragments=3, which was 2"):
        Interrupted(before, 0).check(after)
