"""The worker's loop: train a window, exchange, report."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.bad_updates import is_finite
from distkeras.center.messages import Exchange, Exchanged, Join, Joined, Leave, Refused, Rejoin, Skipped
from distkeras.wire.codecs import joint_packing
from distkeras.wire.compression import sends_weights
from distkeras.worker.compress import Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distkeras.center.messages import Reply, Request
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


@dataclass(frozen=True)
class Sent:
    """A window on its way.

    Attributes:
        local: the weights at its end, from which the next window began if it did not wait.
        message: what was sent.
        reply: waits for the reply and returns it.
        where: the window, for errors.
    """

    local: Vector
    message: Vector
    reply: Callable[[], Reply]
    where: str


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
        overlap: train the next window while one is exchanged; its reply is taken up at the end of that one.
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
        overlap: bool = False,
    ) -> None:
        self._replica = replica
        self._feed = feed
        self._algorithm = algorithm
        self._call = call
        self._worker = worker
        self._num_epoch = num_epoch
        self._split = replica.layout.num_trainable
        self._feedback: Feedback | None = None
        if compression is not None and not sends_weights(algorithm):  # Those the connection compresses.
            sizes = part_sizes or [replica.layout.size]
            self._feedback = Feedback(joint_packing(compression, sizes, self._split))
        self._anchor: Vector = np.empty(0, np.float32)
        self._sequence = 0
        self._window = Window()
        self._sent: Sent | None = None
        self._sender = ThreadPoolExecutor(1, "distkeras-exchange") if overlap else None

    def run(self, attempt: int = 0, ticket: int = 0) -> None:
        """Train to the end, from the start or from the last committed window of a predecessor.

        Args:
            attempt: 0 for the first process that trains as this worker, more for those that replace it.
            ticket: larger for a process that was started later.

        Raises:
            TrainingDiverged: the loss or the weights are NaN or infinite; they were not committed.
        """
        finished = False
        try:
            while not finished:
                place: Joined = self._call(Join(self._worker, attempt, ticket))
                with contextlib.suppress(_Forgotten):  # Then it joins anew, at a place it may have passed.
                    self._train_from(place)
                    finished = True
        finally:
            if self._sender is not None:  # After an error it may still wait for a reply that nobody wants.
                self._sender.shutdown(wait=finished)

    def _train_from(self, place: Joined) -> None:
        self._sequence, self._window, self._sent = place.sequence, Window(), None
        if self._feedback is not None:  # What windows lost that are trained again would count twice.
            self._feedback.residual[:] = 0
        self._anchor = place.center
        self._replica.write(place.center)
        for epoch in range(place.epoch, self._num_epoch):
            first = place.step if epoch == place.epoch else 0
            self._run_epoch(epoch, first)
        if self._window.steps:
            self._commit(self._num_epoch - 1, self._num_epoch, 0)
        if self._sent is not None:
            self._settle(self._sent)
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
        if self._sent is not None:
            local = self._take_up(local, self._sent)
        message = self._message(local, window.steps)
        request = Exchange(
            worker=self._worker,
            sequence=self._sequence,
            num_steps=window.steps,
            num_samples=window.samples,
            epoch=next_epoch,
            step=next_step,
            message=message,
            metrics=metrics,
            window_epoch=epoch,
            encoded=None if self._feedback is None else self._feedback.encode(message),
        )
        if self._sender is not None:
            if not is_finite(local):  # It will be refused: the next window must not begin there.
                local = self._anchor.copy()
                self._replica.write(local)
            self._sent = Sent(local, message, self._sender.submit(self._call, request).result, where)
            return
        reply = self._call(request)
        weights = self._settle(Sent(local, message, lambda: reply, where))
        if weights is not local:
            self._replica.write(weights)

    def _take_up(self, local: Vector, sent: Sent) -> Vector:
        """Return what the late reply to `sent` makes of `local`, and let the replica go on from there."""
        # In place: fresh memory for a large model takes longer than the sums.
        with np.errstate(invalid="ignore"):  # The center refuses what is not finite.
            local -= sent.local
            local += self._settle(sent)
        self._replica.write(local)
        return local

    def _message(self, local: Vector, num_steps: int) -> Vector:
        split = self._split
        if split == local.size:
            return self._algorithm.commit(local, self._anchor, num_steps)
        message = np.empty_like(local)
        message[:split] = self._algorithm.commit(local[:split], self._anchor[:split], num_steps)
        message[split:] = local[split:]
        return message

    def _settle(self, sent: Sent) -> Vector:
        """Wait for the reply to `sent`; return the weights that it leads to, the anchor from now on.

        They are not copied: the client keeps a reply until the next call.
        """
        self._sent = None
        reply: Reply = sent.reply()
        if isinstance(reply, Rejoin):
            raise _Forgotten
        if isinstance(reply, Refused):
            raise TrainingDiverged(_diverged(f"The server refused the update {sent.where}: {reply.reason}."))
        if isinstance(reply, Skipped):
            if self._feedback is not None:  # It has what was wrong with the message.
                self._feedback.residual[:] = 0
            self._anchor = reply.center
            return reply.center
        if not isinstance(reply, Exchanged):
            raise TypeError(f"Expected the reply to a commit. Received: {type(reply).__name__}")
        self._anchor = self._adopted(sent, reply)
        return self._anchor

    def _adopted(self, sent: Sent, reply: Exchanged) -> Vector:
        if reply.restart:  # The rule's reply is lost with the connection that carried it.
            return reply.reply
        split = self._split
        if split == sent.local.size:
            return self._algorithm.adopt(sent.local, sent.message, reply.reply)
        weights = reply.reply.copy()
        weights[:split] = self._algorithm.adopt(sent.local[:split], sent.message[:split], reply.reply[:split])
        return weights


def _diverged(what: str) -> str:
    return (
        f"{what} The center keeps the last finite weights. Lower the learning rate or the communication "
        "window, scale the inputs, or clip the gradients (`clipnorm` of the Keras optimizer)."
    )
