"""The worker's loop: train a window, exchange, report."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.messages import Exchange, Exchanged, Join, Joined, Leave, Refused, Rejoin, Skipped
from distkeras.wire.codecs import joint_packing
from distkeras.worker.compress import Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distkeras.center.messages import Request
    from distkeras.wire.codecs import Codec
    from distkeras.worker.feed import Feed
    from distkeras.worker.replica import Replica


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


class _Forgotten(Exception):
    """The server was started again and does not know this worker."""


@dataclass
class Window:
    """The minibatches trained since the last exchange."""

    steps: int = 0
    samples: int = 0


class Loop:
    """Trains one replica on its feed, and exchanges with the center once a communication window.

    Windows run on across epochs; the last one of the job may be partial and is committed like the others.

    Args:
        replica: the model's copy of this worker.
        feed: its minibatches.
        algorithm: the rule.
        call: sends a request to the center and returns the reply.
        worker: index of this worker.
        num_epoch: passes over the feed.
        compression: the codec of its messages, as the server has it; `None` for none.
        part_sizes: elements that each server has, in order; default: one has them all.
    """

    def __init__(
        self,
        replica: Replica,
        feed: Feed,
        algorithm: Algorithm,
        call: Callable[[Request], Any],
        *,
        worker: int,
        num_epoch: int,
        compression: Codec | None = None,
        part_sizes: Sequence[int] = (),
    ) -> None:
        self._replica = replica
        self._feed = feed
        self._algorithm = algorithm
        self._call = call
        self._worker = worker
        self._num_epoch = num_epoch
        self._split = replica.layout.num_trainable
        self._feedback: Feedback | None = None
        if compression is not None:
            sizes = part_sizes or [replica.layout.size]
            self._feedback = Feedback(joint_packing(compression, sizes, self._split))
        self._anchor: Vector = np.empty(0, np.float32)
        self._sequence = 0
        self._window = Window()

    def run(self, attempt: int = 0) -> None:
        """Train to the end, from the start or from the last committed window of a predecessor.

        Raises:
            TrainingDiverged: the loss or the weights are NaN or infinite; they were not committed.
        """
        finished = False
        while not finished:
            place: Joined = self._call(Join(self._worker, attempt))
            with contextlib.suppress(_Forgotten):  # Then it joins anew, at a place that it may have passed.
                self._train_from(place)
                finished = True

    def _train_from(self, place: Joined) -> None:
        self._sequence, self._window = place.sequence, Window()
        if self._feedback is not None:  # What windows lost that are trained again would count twice.
            self._feedback.residual[:] = 0
        self._continue_from(place.center)
        for epoch in range(place.epoch, self._num_epoch):
            first = place.step if epoch == place.epoch else 0
            self._run_epoch(epoch, first)
        if self._window.steps:
            self._commit(self._num_epoch - 1, self._num_epoch, 0)
        if isinstance(self._call(Leave(self._worker)), Rejoin):
            raise _Forgotten

    def _run_epoch(self, epoch: int, first: int) -> None:
        step = first
        for batch in self._feed.epoch(epoch, first):
            self._replica.train(batch.x, batch.y, batch.sample_weight)
            step += 1
            self._window.steps += 1
            self._window.samples += batch.num_samples
            if self._window.steps == self._algorithm.communication_window:
                self._commit(epoch, epoch, step)
        if self._algorithm.communication_window is None and self._window.steps:
            self._commit(epoch, epoch + 1, 0)

    def _commit(self, epoch: int, next_epoch: int, next_step: int) -> None:
        """Send the window that ended in `epoch`; the next minibatch is `next_step` of `next_epoch`."""
        window, self._window = self._window, Window()
        metrics = self._replica.metrics()
        self._sequence += 1
        where = f"in worker {self._worker}, epoch {epoch}, window {self._sequence - 1}"
        local = self._replica.read()
        message = self._message(local, window.steps)
        encoded = None if self._feedback is None else self._feedback.encode(message)
        reply = self._call(
            Exchange(
                worker=self._worker,
                sequence=self._sequence,
                num_steps=window.steps,
                num_samples=window.samples,
                epoch=next_epoch,
                step=next_step,
                message=message,
                metrics=metrics,
                window_epoch=epoch,
                encoded=encoded,
            )
        )
        if isinstance(reply, Rejoin):
            raise _Forgotten
        if isinstance(reply, Refused):
            raise TrainingDiverged(_diverged(f"The server refused the update {where}: {reply.reason}."))
        if isinstance(reply, Skipped):
            if self._feedback is not None:  # It has what was wrong with the message.
                self._feedback.residual[:] = 0
            self._continue_from(reply.center)
            return
        self._adopt(local, message, reply)

    def _message(self, local: Vector, num_steps: int) -> Vector:
        split = self._split
        if split == local.size:
            return self._algorithm.commit(local, self._anchor, num_steps)
        message = np.empty_like(local)
        message[:split] = self._algorithm.commit(local[:split], self._anchor[:split], num_steps)
        message[split:] = local[split:]
        return message

    def _adopt(self, local: Vector, message: Vector, reply: Exchanged) -> None:
        if reply.restart:  # The rule's reply is lost with the connection that carried it.
            self._continue_from(reply.reply)
            return
        split = self._split
        if split == local.size:
            adopted = self._algorithm.adopt(local, message, reply.reply)
            if adopted is local:
                self._anchor = local
            else:
                self._continue_from(adopted)
            return
        weights = reply.reply.copy()
        weights[:split] = self._algorithm.adopt(local[:split], message[:split], reply.reply[:split])
        self._continue_from(weights)

    def _continue_from(self, weights: Vector) -> None:
        # Not copied: the client keeps a reply until the call after the next, as long as an anchor lives.
        self._anchor = weights
        self._replica.write(weights)


def _diverged(what: str) -> str:
    return (
        f"{what} The center keeps the last finite weights. Lower the learning rate or the communication "
        "window, scale the inputs, or clip the gradients (`clipnorm` of the Keras optimizer)."
    )
