"""The exchanges of simulated workers: their training, their messages, and what they make of the replies."""

from __future__ import annotations

from distkeras.center import CenterConfig
from distkeras.center.answers import Exchanged
from distkeras.center.fragments import steps_before
from distkeras.center.requests import Exchange
from distkeras.center.worker_side import WorkerSide
from distkeras.simulation.begun import Begun
from distkeras.simulation.problem import Problem
from distkeras.simulation.state import Worker


class Exchanges:
    """Trains windows, makes commits and takes up replies, as a worker's loop does.

    Args:
        problem: the problem to train.
        config: settings of the center.
        safe: whether no worker whose message has arrived can lose its reply for good.

    Attributes:
        late: steps that a worker trains from a message to the use of its reply.
    """

    def __init__(self, problem: Problem, config: CenterConfig, safe: bool) -> None:
        self._side = WorkerSide(config.algorithm, config.trainable_of(problem.initial.size), config.fragments)
        self._fragments = config.fragments
        self._num_fragments, self.late = config.num_fragments, config.overlap_steps
        late_steps = self._steps_after_next if self.late and safe else None
        self._begun = Begun(problem, late_steps, in_turn=config.algorithm.stops)

    def next_steps(self, state: Worker) -> int:
        """Return the steps from the worker's last commit to the next."""
        if self._num_fragments == 1 and not self.late:
            return state.next_window
        return steps_before(state.sequence + 1, state.next_window, self._num_fragments, self.late)

    def _steps_after_next(self, state: Worker) -> int:
        """Return the steps that the worker trains from its next message to its reply."""
        following = steps_before(state.sequence + 2, state.next_window, self._num_fragments, self.late)
        return min(self.late, following)

    def begin(self, worker: int, state: Worker) -> None:
        """Expect the worker's window, whose start and length `state` has."""
        self._begun.begin(worker, state)

    def drop(self) -> None:
        """Forget the windows that have begun: all workers have failed."""
        self._begun.drop()

    def give_up(self, worker: int, state: Worker) -> None:
        """Make the commit that says that the worker drops its window."""
        self._begun.forget(worker)
        # No progress and no rows, as on Spark: the center discards it.
        state.local, state.samples = state.anchor, 0
        state.message = self._side.message(state.anchor, state.anchor, state.window, 0, state.memory[0])
        self._send(worker, state, 0, state.window, 0)

    def train(self, worker: int, state: Worker) -> None:
        """Train the worker's window and make its commit."""
        fragment = state.sequence % self._num_fragments
        local, samples = self._begun.window(worker)
        if state.weights is not state.adopted:  # The window began before the reply, which has come since.
            local = state.adopted + (local - state.weights)
        state.samples += samples
        num_steps, num_samples = state.window, state.samples
        if self._num_fragments > 1:
            state.behind.add(num_steps, num_samples)
            num_steps, num_samples = state.behind.take(fragment)
        memory = state.memory[fragment]
        state.local = local
        state.message = self._side.message(local, state.anchor, num_steps, fragment, memory)
        state.step += state.window
        self._send(worker, state, state.window, num_steps, num_samples)

    def _send(self, worker: int, state: Worker, window_steps: int, num_steps: int, num_samples: int) -> None:
        """Make the commit of `state.message`, with the minibatches and rows behind it."""
        message = state.message
        if message is None:
            raise RuntimeError(f"Worker {worker} has nothing to send.")
        if self._side.adopts_by_message:
            message = message.copy()  # The center overwrites it.
        fragment = state.sequence % self._num_fragments
        state.sequence += 1
        # By place: names take a quarter of a microsecond, a hundredth of a small commit.
        sent = Exchange(worker, state.sequence, num_steps, num_samples, 0, state.step, message)
        sent.seconds, sent.fragment = state.seconds if window_steps else 0.0, fragment
        sent.window_steps, sent.window_samples = window_steps, state.samples
        state.sent = sent

    def take_up(self, worker: int, state: Worker, answer: Exchanged) -> None:
        """Set what the worker continues from and its anchor; before, train the steps that overlap."""
        if state.local is None or state.message is None:
            raise RuntimeError("A reply arrived for a commit that was never sent.")
        fragment = answer.fragment
        state.trained = state.samples = 0
        if self.late:
            state.trained = min(self.late, self.next_steps(state))
            state.local, state.samples = self._begun.late(worker, state.local, state.trained, state)
        memory = state.memory[fragment]
        adopted = self._side.adopted(state.local, state.message, answer, fragment, memory)
        anchor = self._side.anchor(adopted, answer)
        if self._fragments is None:
            state.adopted, state.anchor = adopted, anchor
            return
        state.adopted, state.anchor = state.local.copy(), state.anchor.copy()
        self._fragments.scatter(adopted, fragment, state.adopted)
        self._fragments.scatter(anchor, fragment, state.anchor)
