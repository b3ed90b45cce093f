"""The exchanges of one worker: its messages, its anchor, and what it makes of the replies."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center.answers import Exchanged, Refused, Rejoin, Skipped
from distkeras.center.fragments import Behind, Fragments
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Exchange
from distkeras.center.worker_side import WorkerSide
from distkeras.events import Timing
from distkeras.worker.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from distkeras.center.answers import Reply
    from distkeras.center.requests import Request

logger = logging.getLogger(__name__)


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


class UnknownToServer(Exception):
    """The server has restarted and does not know this worker."""


@dataclass
class Window:
    """The minibatches trained since the last exchange.

    Attributes:
        sequence: number of its commit, from 1.
        steps: number of minibatches.
        samples: number of rows.
        behind: minibatches and rows behind its message, set when it ends.
        metrics: Keras's metrics over the window, set when it ends.
        states: the states of these metrics, for the center; set when it ends.
        epoch: epoch in which it ended.
        next_epoch: epoch of the next minibatch.
        next_step: index of the next minibatch in its epoch.
        started: when its training began, in seconds of a monotonic clock.
        seconds: time for training it; 0 for a process's first window, which compiles the step.
        timing: where the time went since the last commit; set when it ends.
    """

    sequence: int
    steps: int = 0
    samples: int = 0
    behind: tuple[int, int] = (0, 0)
    metrics: dict[str, float] = field(default_factory=dict)
    states: bytes = b""
    epoch: int = 0
    next_epoch: int = 0
    next_step: int = 0
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    timing: Timing | None = None


class Exchanges:
    """Makes a worker's messages and takes up the replies, of the whole vector or of fragments in turn.

    Args:
        algorithm: the distributed optimizer.
        call: sends a request to the center and returns the reply; it may overwrite a message with the values
            that the center receives.
        worker: index of this worker.
        num_trainable: number of leading elements of the vector that the algorithm updates.
        fragments: parts of the vector that are exchanged in turn; `None` for the whole vector at once.
        watch: is told for how long the server has held answers back.

    Attributes:
        anchor: the weights from which the algorithm counts the worker's progress, shape (size,).
        orders: the orders in the last reply.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        call: Callable[[Request], Any],
        worker: int,
        num_trainable: int,
        fragments: Fragments | None = None,
        watch: Stopwatch | None = None,
    ) -> None:
        self._watch = Stopwatch() if watch is None else watch
        self._side = WorkerSide(algorithm, num_trainable, fragments)
        self._call = call
        self._worker = worker
        self._fragments = fragments
        self.num_fragments = 1 if fragments is None else len(fragments)
        self.anchor: Vector = np.empty(0, np.float32)
        self.orders = NO_ORDERS
        self._behind = Behind(self.num_fragments)
        self._memory: list[State] = []
        self._told = logger.isEnabledFor(logging.DEBUG)

    def start_from(self, center: Vector) -> None:
        """Make the whole `center` the anchor, and forget what fragments have not exchanged yet."""
        self.anchor = center
        self._memory = [{} for _ in range(self.num_fragments)]
        # Not without fragments: another thread may count its window now.
        if self._fragments is not None:
            self.anchor = center.copy()  # The client's next reply, with one fragment, would overwrite it.
            self._behind = Behind(self.num_fragments)

    def end(self, window: Window) -> None:
        """Count a window that has ended, and set the minibatches and rows behind its message."""
        self._behind.add(window.steps, window.samples)
        window.behind = self._behind.take(self._fragment_of(window))

    def is_due(self, window: Window) -> bool:
        """Return whether anything was trained since the last exchange of the window's fragment."""
        return bool(window.steps or self._behind.steps(self._fragment_of(window)))

    def exchange(self, window: Window, local: Vector) -> Vector:
        """Commit `window`, which ended at the weights `local`; return the weights to continue from."""
        request = self.request(window, local)
        return self.take_up(request, self.ask(request), local)

    def request(self, window: Window, local: Vector) -> Exchange:
        """Return the commit of `window`, which ended at the weights `local`."""
        fragment, (num_steps, num_samples) = self._fragment_of(window), window.behind
        message = self._side.message(local, self.anchor, num_steps, fragment, self._memory[fragment])
        return Exchange(
            worker=self._worker,
            sequence=window.sequence,
            num_steps=num_steps,
            num_samples=num_samples,
            epoch=window.next_epoch,
            step=window.next_step,
            message=message,
            metrics=window.metrics,
            window_epoch=window.epoch,
            seconds=window.seconds,
            fragment=fragment,
            window_steps=window.steps,
            window_samples=window.samples,
            states=window.states,
            timing=window.timing,
        )

    def ask(self, request: Exchange) -> Reply:
        """Send `request` and return the reply."""
        started = time.monotonic() if self._told else 0.0
        reply: Reply = self._call(request)
        if isinstance(reply, Exchanged):
            self._watch.held += reply.held
        if self._told:
            self._tell(request, reply, time.monotonic() - started)
        return reply

    def take_up(self, request: Exchange, reply: Reply, local: Vector) -> Vector:
        """Set the anchor by the `reply` to `request`, and return the weights to continue from.

        Without fragments, neither is a copy: the client keeps a reply until the next call. With fragments,
        `local` gets the new weights of the fragment.

        Raises:
            UnknownToServer: the worker has to join again.
            TrainingDiverged: the server refused the update.
        """
        if isinstance(reply, Rejoin):
            raise UnknownToServer
        if isinstance(reply, Refused):
            where = f"in worker {self._worker}, epoch {request.window_epoch}, window {request.sequence - 1}"
            raise TrainingDiverged(_diverged(f"The server refused the update {where}: {reply.reason}."))
        if isinstance(reply, Exchanged | Skipped):
            self.orders = reply.orders or NO_ORDERS
        if isinstance(reply, Skipped):
            self.start_from(reply.center)
            return reply.center
        if not isinstance(reply, Exchanged):
            raise TypeError(f"Expected the reply to a commit. Received: {type(reply).__name__}")
        memory = self._memory[request.fragment]
        adopted = self._side.adopted(local, request.message, reply, request.fragment, memory)
        anchor = self._side.anchor(adopted, reply)
        if self._fragments is None:
            self.anchor = anchor
            return adopted
        self._fragments.scatter(anchor, request.fragment, self.anchor)
        self._fragments.scatter(adopted, request.fragment, local)
        return local

    def _tell(self, request: Exchange, reply: Reply, seconds: float) -> None:
        logger.debug(
            "Exchange of worker %d: sequence %d, epoch %d, %s, staleness %d, %d bytes, %.6f s.",
            *(self._worker, request.sequence, request.window_epoch, type(reply).__name__),
            *(getattr(reply, "staleness", 0), request.message.nbytes, seconds),
        )

    def _fragment_of(self, window: Window) -> int:
        return (window.sequence - 1) % self.num_fragments


def _diverged(what: str) -> str:
    return (
        f"{what} The center keeps the last finite weights. Lower the learning rate or the communication "
        "window, scale the inputs, or clip the gradients (`clipnorm` of the Keras optimizer)."
    )
