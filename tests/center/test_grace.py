"""The grace after a quorum: what arrives in it counts in the round, what arrives after it in the next one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD, TrimmedMean
from distkeras.center import Center, CenterConfig, Independent, take_snapshot
from distkeras.center.answers import Done, Exchanged, Joined
from distkeras.center.requests import Exchange, Join, Leave
from distkeras.events import RoundClosed, Window
from distkeras.record import GraceOver, Recorded, Step, read_record, replay
from distkeras.simulation import Constant, Exponential, Failures, Network, Outages, Quadratic, simulate


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


class Rounds:
    """A center of four workers, quorum 2 and a grace of one second, whose clock stands still."""

    def __init__(self, rule=None, **options):
        self.clock = Clock(100.0)
        config = CenterConfig(rule or LocalSGD(), 4, **{"quorum": 2, "grace": 1.0, **options})
        self.center = Center(config, np.zeros(1, np.float32), clock=self.clock)
        self.sequence = [0] * 4
        for worker in range(4):
            self.center.handle(Join(worker))

    def at(self, time, worker=None, value=None):
        """Handle a message of `worker` at 100 s + `time`, or look; return who is answered."""
        self.clock.now = 100.0 + time
        if worker is None:
            return self.hear(self.center.look())
        request = Exchange(worker, self.sequence[worker] + 1, 1, 1, 0, 0, np.array([value], np.float32))
        return self.hear(self.center.handle(request))

    def hear(self, answers):
        for worker, answer in answers:
            if isinstance(answer, Exchanged):
                assert answer.sequence == self.sequence[worker] + 1
                self.sequence[worker] += 1
        return [worker for worker, _ in answers]

    @property
    def value(self):
        return float(self.center.snapshot()[0])


def test_a_round_stays_open_for_its_grace_after_the_message_that_completes_the_quorum():
    rounds = Rounds()
    assert rounds.center.seconds_left() is None
    assert rounds.at(0.0, 0, 1.0) == []
    assert rounds.center.seconds_left() is None  # One message is no quorum: nothing is due.
    assert rounds.at(5.0, 1, 2.0) == []
    assert rounds.center.seconds_left() == 1.0
    assert rounds.at(5.75, 2, 6.0) == []
    assert rounds.center.seconds_left() == 0.25
    assert rounds.at(5.9) == []
    assert rounds.center.num_updates == 0
    assert rounds.at(6.0) == [0, 1, 2]
    assert rounds.value == (1 + 2 + 6) / 3
    assert rounds.center.seconds_left() is None
    assert rounds.at(9.0) == []
    # The late message opens the next round; its grace begins with the second message.
    assert rounds.at(9.5, 3, 10.0) == []
    assert rounds.at(20.0, 0, 20.0) == []
    assert rounds.at(21.0) == [0, 3]
    assert rounds.value == 3 + 15


def test_a_round_closes_at_once_when_every_live_worker_has_sent():
    rounds = Rounds()
    for worker in range(3):
        assert rounds.at(0.0, worker, 1.0) == []
    assert rounds.at(0.5, 3, 5.0) == [0, 1, 2, 3]
    assert rounds.value == 2.0
    rounds.hear(rounds.center.handle(Leave(3)))
    rounds.at(1.0, 0, 1.0)
    rounds.at(1.0, 1, 1.0)
    (left, *answers) = rounds.center.handle(Leave(2))
    assert left == (2, Done())
    assert rounds.hear(answers) == [0, 1]


def test_a_lost_worker_ends_the_grace_where_rounds_leave_it_out():
    rounds = Rounds(without_lost=True)
    for worker in range(3):
        rounds.at(0.0, worker, 1.0)
    assert rounds.hear(rounds.center.mark_lost(3, 30.0)) == [0, 1, 2]
    rounds = Rounds(without_lost=True)
    rounds.at(0.0, 0, 1.0)
    assert rounds.center.mark_lost(3, 30.0) == rounds.center.mark_lost(2, 30.0) == []
    rounds.clock.now = 107.0
    assert rounds.hear(rounds.center.mark_lost(1, 30.0)) == [0]


def test_a_message_after_the_grace_counts_in_the_next_round_though_nobody_looked():
    rounds = Rounds()
    rounds.at(0.0, 0, 1.0)
    rounds.at(0.0, 1, 2.0)
    assert rounds.at(1.0, 2, 30.0) == [0, 1]  # A second is over: it is late.
    assert rounds.value == 1.5
    assert list(rounds.center._rounds.messages) == [2]
    assert rounds.center.seconds_left() is None
    rounds.at(3.0, 0, 0.5)
    assert rounds.at(3.999, 1, 5.5) == []
    assert rounds.at(4.0, 1, 5.5) == [0, 1, 2]  # It was there already, and is sent again after the grace.
    assert rounds.value == 1.5 + 12


@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_is_killed_in_the_grace_takes_its_message_back(late):
    rounds = Rounds()
    rounds.at(0.0, 0, 100.0)
    rounds.at(0.0, 1, 2.0)
    rounds.clock.now = 101.0 if late else 100.75
    answers = rounds.center.handle(Join(0, attempt=1))
    worker, joined = answers[-1]
    assert worker == 0
    assert isinstance(joined, Joined)
    if late:  # The round was over before it joined.
        assert (rounds.hear(answers[:-1]), joined.sequence, joined.center.tolist()) == ([0, 1], 1, [51.0])
        return
    assert (len(answers), joined.sequence) == (1, 0)
    assert rounds.center.seconds_left() is None  # One message is left: the round waits for its quorum again.
    assert rounds.at(7.0, 2, 4.0) == []
    assert rounds.at(7.5) == []
    assert rounds.at(8.0) == [1, 2]
    assert rounds.value == 3.0


def test_a_worker_that_is_killed_in_the_grace_of_others_does_not_end_it():
    rounds = Rounds()
    for worker, value in enumerate((100.0, 2.0, 4.0)):
        rounds.at(0.0, worker, value)
    rounds.clock.now = 100.5
    rounds.center.handle(Join(0, attempt=1))
    assert rounds.center.seconds_left() == 0.5
    assert rounds.at(1.0) == [1, 2]
    assert rounds.value == 3.0


def test_a_clock_that_is_set_back_makes_no_round_wait_for_longer_than_a_second_grace():
    rounds = Rounds()
    rounds.at(0.0, 0, 1.0)
    rounds.at(0.0, 1, 1.0)
    rounds.clock.now = 40.0
    assert rounds.center.seconds_left() == 0
    assert rounds.at(-60.0) == []
    assert rounds.center.seconds_left() == 1.0
    assert rounds.at(-59.0) == [0, 1]


def test_a_grace_of_zero_is_a_quorum_as_it_was():
    rounds = Rounds(grace=0)
    rounds.at(0.0, 0, 1.0)
    assert rounds.at(0.0, 1, 3.0) == [0, 1]
    assert rounds.value == 2.0


def test_the_event_names_all_who_were_in_time():
    rounds = Rounds()
    for worker in (2, 0, 3):
        rounds.at(0.0, worker, 1.0)
    rounds.at(1.0)
    events = rounds.center.event_log.read(0).events
    (closed,) = [event for event in events if isinstance(event, RoundClosed)]
    assert (closed.workers, closed.live) == ([0, 2, 3], 4)
    assert [event.worker for event in events if isinstance(event, Window)] == [0, 2, 3]


def test_an_open_round_is_not_in_a_snapshot_and_its_grace_ends_with_the_server():
    rounds, other = Rounds(), Rounds()
    rounds.at(0.0, 0, 1.0)
    rounds.at(0.0, 1, 1.0)
    snapshot = take_snapshot(rounds.center, {})
    other.center.restore(snapshot.members[0])
    assert other.center.seconds_left() is None
    assert other.value == 0.0


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (LocalSGD(), {"grace": 1.0}),
        (LocalSGD(), {"grace": -1.0, "quorum": 1}),
        (LocalSGD(), {"grace": float("inf"), "quorum": 1}),
        (LocalSGD(), {"grace": float("nan"), "quorum": 1}),
        (LocalSGD(), {"grace": "1", "quorum": 1}),
        (LocalSGD(), {"grace": True, "quorum": 1}),
        (DOWNPOUR(), {"grace": 1.0}),
    ],
)
def test_a_senseless_grace_is_refused(rule, options):
    with pytest.raises(ValueError, match=r"`grace` must be a number of seconds.*Received: grace="):
        CenterConfig(rule, 2, **options)


def test_centers_without_rounds_are_never_due():
    config = CenterConfig(DOWNPOUR(), 2)
    for center in (
        Center(config, np.zeros(2, np.float32), clock=Clock()),
        Independent(config, np.zeros((2, 2), np.float32), clock=Clock()),
    ):
        assert center.seconds_left() is None
        assert center.look() == []


class Running:
    """A clock that goes on with every look at it, as real ones do."""

    def __init__(self, seed):
        self.now, self._random = 1.7e9, np.random.default_rng(seed)

    def __call__(self):
        self.now += float(self._random.exponential(0.05))
        return self.now


@pytest.mark.parametrize("seed", range(6))
def test_a_replay_closes_the_same_rounds_though_the_clock_went_on_meanwhile(seed, tmp_path):
    path = str(tmp_path / "server-0.record")
    config = CenterConfig(LocalSGD(), 5, quorum=2, grace=0.15)
    clock, random = Running(seed), np.random.default_rng(seed)
    center = Center(config, np.zeros(3, np.float32), clock=clock)
    recorded = Recorded(center, path)
    for worker in range(5):
        recorded.handle(Join(worker))
    sequence, waiting = [1] * 5, set()
    for _ in range(150):
        ready = [worker for worker in range(5) if worker not in waiting]
        if recorded.seconds_left() == 0 and random.random() < 0.7:
            answers = recorded.look()
        else:
            worker = int(random.choice(ready))
            message = random.normal(size=3).astype(np.float32)
            answers = recorded.handle(Exchange(worker, sequence[worker], 1, 1, 0, 0, message))
            waiting.add(worker)
        for worker, _ in answers:
            sequence[worker] += 1
            waiting.discard(worker)
        if len(waiting) == 5:
            raise AssertionError("Everybody waits.")
    steps = [step for step in read_record(path) if isinstance(step, Step)]
    looks = [step for step in steps if isinstance(step.request, GraceOver)]
    late = [step for step in steps if isinstance(step.request, Exchange) and len(step.told) in (2, 3, 4)]
    assert looks
    assert late  # They closed a round that nobody had looked at.
    replayed = replay(path)
    assert replayed.center.tobytes() == center.snapshot().tobytes()
    assert replayed.num_updates == center.num_updates > 20


def closed_at(**options):
    """Workers of 1, 2, 4 and 8 seconds a window."""
    return simulate(
        LocalSGD(communication_window=1),
        Quadratic(noise=0.1),
        num_workers=4,
        step_time=Speeds((1.0, 2.0, 4.0, 8.0)),
        **options,
    )


class Speeds:
    """A constant step time for each worker."""

    def __init__(self, seconds):
        self.seconds = seconds

    def windows(self, num_workers, rng):
        return lambda worker, num_steps: self.seconds[worker] * num_steps


def test_the_simulator_closes_rounds_by_the_virtual_clock():
    result = closed_at(quorum=1, grace=1.5, num_commits=5)
    # 0 sends at 1, 1 at 2: the round closes at 2.5. They send at 3.5 and 4.5, 2 at 4: all in time for 5.
    # 0 sends at 6, 1 at 7: 7.5. 3 sends at 8, 0 at 8.5, 2 at 9, 1 at 9.5, when the grace is over: 9.5.
    # 1 at 9.5, then 0 at 10.5: 11.
    assert result.times.tolist() == [0, 2.5, 5, 7.5, 9.5, 11]
    assert np.diff(result.samples).tolist() == [2, 3, 2, 3, 2]
    assert result.staleness.tolist() == [0, 1, 0, 3, 1]


def test_the_simulator_without_a_grace_is_as_it_was():
    options = {"quorum": 2, "num_commits": 12, "seed": 5}
    assert closed_at(**options).times.tolist() == closed_at(grace=0.0, **options).times.tolist()


def test_a_simulation_ends_in_a_grace_at_its_last_second():
    result = closed_at(quorum=1, grace=1.5, num_commits=5, until=2.25)
    assert result.times.tolist() == [0]


@pytest.mark.parametrize("seed", range(4))
def test_no_fault_holds_up_a_round_with_a_grace_and_its_record_leads_to_the_same_bits(seed, tmp_path):
    path = str(tmp_path / "run.record")
    result = simulate(
        TrimmedMean(communication_window=3, beta=0.3),
        Quadratic(curvature=(0.5, 1.0), noise=0.1),
        num_workers=6,
        num_commits=60,
        quorum=3,
        grace=1.0,
        learning_rate=0.1,
        step_time=Exponential(),
        network=Network(latency=0.2, service=0.1),
        failures=Failures(crash=0.1, restart=2.0, lost_reply=0.1, timeout=1.0, straggle=0.1),
        outages=Outages(server=40.0, server_restart=1.0, snapshot=5.0),
        seed=seed,
        record=path,
    )
    assert len(result.workers) == 60
    assert result.num_restored > 0
    assert replay(path).center.tobytes() == result.center.tobytes()
    kinds = [type(step.request) for step in read_record(path) if isinstance(step, Step)]
    assert kinds.count(GraceOver) > 5
    assert len(set(itertools.pairwise(result.samples.tolist()))) > 10


def test_a_grace_lets_more_messages_into_a_round():
    def rows(grace):
        return closed_at(quorum=1, grace=grace, num_commits=20).samples[-1]

    assert rows(0.0) == 20 < rows(1.0) < rows(4.0) < rows(100.0) == 80
    assert simulate(
        LocalSGD(1), Quadratic(), num_workers=4, num_commits=3, quorum=2, grace=5.0, step_time=Constant(1.0)
    ).times.tolist() == [0, 1, 2, 3]
