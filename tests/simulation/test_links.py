"""What the messages of a simulation weigh: the bytes of the wire, and the effect of its codecs."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from distkeras.algorithms import ADAG, AEASGD, DOWNPOUR, Averaging, LocalSGD, StreamingDiLoCo
from distkeras.simulation import Constant, Exponential, Failures, Network, Outages, Quadratic, simulate
from distkeras.simulation.links import Links
from distkeras.wire import codecs, frames

SIZE = 512
QUADRATIC = Quadratic(curvature=np.linspace(0.1, 1.0, SIZE), noise=0.1)


def run(rule, **options):
    settings = {
        "num_workers": 3,
        "num_commits": 60,
        "learning_rate": 0.05,
        "step_time": Exponential(),
        "evaluate_every": 60,
    }
    return simulate(rule, QUADRATIC, **settings | options)


@pytest.fixture
def carried(monkeypatch):
    """Return a list to which every message that is carried adds its direction, vector and bytes."""
    messages = []
    for name in ("send", "receive"):
        whole = getattr(Links, name)

        def counted(self, *args, whole=whole, name=name):
            arrived, num_bytes = whole(self, *args)
            messages.append((name, frames.vector_of(arrived).copy(), num_bytes))
            return arrived, num_bytes

        monkeypatch.setattr(Links, name, counted)
    return messages


@pytest.mark.parametrize("codec", [None, *codecs.REGISTRY])
@pytest.mark.parametrize(
    "rule", [DOWNPOUR(), AEASGD(), LocalSGD(), StreamingDiLoCo(fragments=2, communication_window=6)]
)
def test_bytes_are_the_sum_over_messages_and_those_that_the_network_was_asked_for(carried, codec, rule):
    result = run(rule, compression=codec, failures=Failures(lost_reply=0.1), outages=Outages(cut=40.0))
    for name, total in (("send", result.bytes_sent), ("receive", result.bytes_received)):
        assert total == sum(num_bytes for direction, _, num_bytes in carried if direction == name) > 0


@pytest.mark.parametrize("codec", ["fp16", "int8", "topk"])
@pytest.mark.parametrize("rule", [DOWNPOUR(), AEASGD()])
def test_the_time_of_a_message_is_that_of_its_bytes(codec, rule, monkeypatch):
    expected, sent = {}, []
    commit_bytes, send = Links.commit_bytes, Links.send

    def asked(self, worker, sequence):
        expected[worker, sequence] = commit_bytes(self, worker, sequence)
        return expected[worker, sequence]

    def counted(self, request):
        arrived, num_bytes = send(self, request)
        assert expected[request.worker, request.sequence] == num_bytes
        sent.append(num_bytes)
        return arrived, num_bytes

    monkeypatch.setattr(Links, "commit_bytes", asked)
    monkeypatch.setattr(Links, "send", counted)
    result = run(
        rule, compression=codec, network=Network(latency=0.1, bandwidth=1e4), outages=Outages(cut=9.0)
    )
    assert result.num_duplicates > 3  # After a cut, weights travel whole.
    assert sum(sent) == result.bytes_sent
    if codec != "topk":  # It sends a weight once in a hundred messages: too late for this rate.
        assert result.losses[-1] < result.losses[0]


@dataclasses.dataclass(frozen=True)
class Heard(DOWNPOUR):
    """Keeps what its workers take as their message when the reply comes."""

    messages: ClassVar[list[np.ndarray]] = []

    def adopt(self, local, message, reply):
        self.messages.append(message.copy())
        return reply


def test_a_worker_knows_what_the_center_has_decoded(carried):
    Heard.messages.clear()
    run(Heard(), compression="int8")
    # Whoever sets up the compression asks the rule too, with short vectors.
    heard = [message for message in Heard.messages if message.size == SIZE]
    assert len(heard) == 60
    decoded = {vector.tobytes() for name, vector, _ in carried if name == "send"}
    assert {message.tobytes() for message in heard} == decoded


def test_compressed_messages_hold_what_the_codec_leaves_of_them(carried):
    plain = run(ADAG(communication_window=4))
    assert plain.bytes_sent == 60 * 4 * SIZE
    carried.clear()
    result = run(ADAG(communication_window=4), compression="topk")
    codec = codecs.get("topk")
    messages = [vector for name, vector, _ in carried if name == "send"]
    assert result.bytes_sent == 60 * codec.encoded_bytes(SIZE)
    assert {np.count_nonzero(message) for message in messages} <= set(range(1, codec.kept(SIZE) + 1))
    assert result.bytes_received == 60 * 4 * SIZE  # Replies have no error feedback.
    assert result.losses[-1] != plain.losses[-1]


def test_error_feedback_lets_a_compressed_run_learn_as_much_and_sum_up_to_the_same(carried):
    """One worker, no noise: the center is what the messages sum up to, and the rest is in the residual."""
    quadratic = Quadratic(curvature=np.linspace(0.1, 1.0, SIZE))
    settings = {"num_workers": 1, "num_commits": 300, "learning_rate": 0.1, "step_time": Constant()}
    results = [
        simulate(
            DOWNPOUR(communication_window=2), quadratic, **settings, compression=codec, evaluate_every=300
        )
        for codec in (None, "int8")
    ]
    sums = [
        np.sum([vector for name, vector, _ in carried[part] if name == "send"], axis=0)
        for part in (slice(0, 600), slice(600, None))
    ]
    for result, total in zip(results, sums, strict=True):
        assert np.allclose(quadratic.initial + total, result.center, atol=1e-4)
    assert results[1].losses[-1] < 1.05 * results[0].losses[-1] < 0.1 * results[0].losses[0]


def test_near_lossless_replies_travel_compressed_and_arrive_rounded():
    plain, half = (run(DOWNPOUR(), compression=codec) for codec in (None, "fp16"))
    assert half.bytes_sent == plain.bytes_sent // 2
    assert half.bytes_received == plain.bytes_received // 2
    assert np.allclose(half.center, plain.center, atol=0.2)


def test_frames_add_the_length_of_the_real_frames_once_for_each_server():
    plain, framed, servers = (
        run(DOWNPOUR(), network=Network(frames=flag, servers=count))
        for flag, count in ((False, 1), (True, 1), (True, 4))
    )
    from distkeras.center.requests import Exchange

    message = Exchange(2, 20, 5, 160, 0, 100, np.zeros(SIZE, np.float32), seconds=4.9)
    header, _ = frames.encode(message)
    assert framed.bytes_sent - plain.bytes_sent == 60 * len(header)
    assert servers.bytes_sent - plain.bytes_sent == 4 * (framed.bytes_sent - plain.bytes_sent)
    assert framed.center.tobytes() == plain.center.tobytes()  # Without a bandwidth, bytes take no time.


def test_a_server_that_fails_and_a_job_that_fails_leave_both_ends_in_agreement():
    for rule in (DOWNPOUR(), AEASGD(), LocalSGD()):
        result = run(
            rule,
            num_commits=200,
            compression="fp16",
            failures=Failures(crash=0.05),
            outages=Outages(server=60.0, snapshot=10.0, job=90.0, cut=15.0),
        )
        assert result.num_restored > 0
        assert result.losses[-1] < 0.6 * result.losses[0]


def test_weights_of_rules_that_would_lose_them_are_not_compressed():
    with pytest.raises(ValueError, match="compression would lose parts"):
        run(Averaging(), compression="int8")
    with pytest.raises(ValueError, match="No codec has that name"):
        run(DOWNPOUR(), compression="zip")
