"""Runs validation and callbacks of one model at the ends of the center's epochs, and gives orders by them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from distkeras.center.orders import FOREVER
from distkeras.events import (
    CenterKept,
    EpochEnded,
    Event,
    Reported,
    ServerRestored,
    UpdateRefused,
    Window,
)
from distkeras.lifecycle.running_means import RunningMeans
from distkeras.worker.metric_states import add_states

if TYPE_CHECKING:
    from distkeras.algorithms import Vector
    from distkeras.lifecycle.callbacks import Callbacks
    from distkeras.lifecycle.control import Control
    from distkeras.lifecycle.judge import Judge
    from distkeras.lifecycle.live_model import LiveModel, Logs
    from distkeras.lifecycle.plan import Plan, Stop
    from distkeras.lifecycle.stop_when import StopWhen
    from distkeras.worker.final_state import FinalState

logger = logging.getLogger(__name__)


class Conductor:
    """Follows one model's training by the events, and runs what goes around it, in the caller's thread.

    `begin` and `begin_epoch` come before the job, `start`, `take` and `look` during it, `end` after it. An
    epoch of the center is closed once it has ended: the model takes the center as it was then, is validated,
    and the callbacks run. The last epoch is closed after the job, when the model is complete.

    Args:
        live: the model.
        callbacks: its callbacks.
        plan: its epochs.
        stop: the reason to end, which others may set too.
        judge: validates; `None` for no validation.
        stop_when: conditions to end; `None` for none.
        on_epoch: receives the number of each closed epoch, its logs and its event, before the next one is
            ordered; `None` for an event that did not come.
        on_rate: receives each new learning rate.
        save: saves the model, after the number and the logs of a closed epoch. Workers train on meanwhile, if
            no callback may change the model at the beginning of the next epoch.
        clock: returns seconds from any origin.
    """

    def __init__(
        self,
        live: LiveModel,
        callbacks: Callbacks,
        plan: Plan,
        stop: Stop,
        *,
        judge: Judge | None = None,
        stop_when: StopWhen | None = None,
        on_epoch: Callable[[int, Logs, EpochEnded | None], None] = lambda epoch, logs, ended: None,
        on_rate: Callable[[float], None] = lambda rate: None,
        save: Callable[[int, Logs], None] = lambda epoch, logs: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.live = live
        self.callbacks = callbacks
        self.plan = plan
        self.stop = stop
        self._judge = judge
        self._stop_when = stop_when
        self._on_epoch = on_epoch
        self._on_rate = on_rate
        self._save = save
        self._unsaved: int | None = None  # The epoch after which the model is to be saved.
        self._clock = clock
        self._started = clock()
        self._control: Control | None = None
        self._next = 0  # The next epoch of the center to close.
        self._later: deque[Event] = deque()  # Events after the end of an epoch that is not closed yet.
        self._ended: EpochEnded | None = None  # That epoch.
        self._last: EpochEnded | None = None
        self._kept: set[int] = set()
        self._judged: dict[int, set[int]] = {}
        self._missed: Sequence[EpochEnded] = ()
        self._tag = 0
        self._samples = self._steps = 0
        self._metrics: dict[str, float] = {}
        self._means = RunningMeans()
        self._logs: Logs = {}
        self._is_complete = self._has_weights = self._stops = self._workers_ended = False

    @property
    def next_epoch(self) -> int:
        """The next epoch of the center to close."""
        return self._next

    @property
    def needs_weights(self) -> bool:
        """Whether the model needs the center at the end of each epoch."""
        return self.callbacks.see_weights or self._judge is not None

    @property
    def needs_copies(self) -> bool:
        """Whether the center has to keep a copy at the end of each epoch."""
        return self._evaluating or (self.needs_weights and not self.plan.holds)

    @property
    def _evaluating(self) -> bool:
        return self._judge is not None and self._judge.workers > 0

    def begin(self, next_epoch: int = 0, missed: Sequence[EpochEnded] = ()) -> None:
        """Run the callbacks before the first epoch. They may change the model.

        Args:
            next_epoch: number of epochs of the center that are closed, in a resumed training.
            missed: the ends of epochs that the center has behind it, and that are not closed.
        """
        self._next, self._missed = next_epoch, missed
        self.live.model.stop_training = False
        self.callbacks.list.on_train_begin()

    def move(self, first: int, num_epoch: int) -> None:
        """Let callbacks count epochs from `first`, and the training have `num_epoch` of them."""
        self.plan = replace(self.plan, first=first, num_epoch=num_epoch)

    def begin_epoch(self) -> None:
        """Run the callbacks at the beginning of the next epoch. They may change the model."""
        self._steps, self._metrics = 0, {}
        self._means.begin_epoch(self.live.lasting_names())
        self.live.model.reset_metrics()
        self.callbacks.list.on_epoch_begin(self.plan.first + self._next)

    def start(self, control: Control) -> None:
        """Take the running job, whose center is that of the model, unless it is resumed."""
        self._control, self._started = control, self._clock()
        self._samples = self.plan.end_of(self._next - 1)
        if self._next and self.needs_weights:  # A resumed training, whose center is not that of the model.
            self.live.take(control.pull(), None)
        self.live.remember()
        if self._next and (rate := self.live.rate()) is not None:
            control.order(learning_rate=rate)
        if self.needs_copies:
            for epoch in (self._next, self._next + 1):
                control.keep(self.plan.end_of(epoch))
        self._release(control)
        for event in self._missed:
            self.take(event)
        self.look()

    def take(self, event: Event) -> None:
        """Handle an event of this model's workers."""
        match event:
            case CenterKept():
                self._kept.add(event.samples)
            case Reported(kind="evaluation"):
                self._judged.setdefault(event.tag, set()).add(event.worker)
            case Reported() if event.worker == self.plan.worker:
                self._tag = event.tag
            case ServerRestored():
                self._restored(event)
            case _ if self._ended is not None:
                self._later.append(event)
            case Window():
                self._window(event)
            case UpdateRefused():
                self._refused(event)
            case EpochEnded():
                self._epoch_ended(event)
        self.look()

    def look(self) -> None:
        """Close an epoch whose data has arrived, and order the end if there is a reason to."""
        while self._ended is not None and (self._workers_ended or self._is_ready(self._ended)):
            ended, self._ended = self._ended, None
            self._close(ended)
            later, self._later = self._later, deque()
            for event in later:
                self.take(event)
        if self.live.model.stop_training:
            self.stop.set("callback", "a callback set `model.stop_training`")
        if self._stop_when is not None and (over := self._stop_when.over(self._clock() - self._started)):
            self.stop.set("time", over)
        if self.stop.reason is not None and not self._stops and self._control is not None:
            self._stops = True
            logger.info("The training will end: %s.", self.stop.detail)
            self._control.order(stop=True, until=FOREVER)

    def finish(self) -> None:
        """Close the epochs that still wait, when all workers have ended and the server still runs."""
        self._workers_ended = True
        self.look()

    def end(self, center: Vector, own: FinalState | None) -> Logs:
        """Complete the model after the job and close the last epoch; return its logs.

        Args:
            center: the last center, shape (size,).
            own: the final state of the model's worker, if it ended by itself.
        """
        self._control = None
        self.live.take(None if self._has_weights else center, own)
        if not self._is_complete and (self._last is not None or self._steps):
            self._run_callbacks(self._last)
        self._save_model()
        self.live.finalize()
        self.callbacks.list.on_train_end(self._logs)
        return self._logs

    def _window(self, window: Window) -> None:
        """Call the methods for batches: a window counts like one execution of several steps in Keras."""
        self._metrics = dict(window.metrics)
        self._samples += window.samples
        control = self._control
        if control is None or self._stops or not window.steps:
            return
        if self.plan.by_steps:
            self._tag = window.iteration + 1  # The event of the state comes after that of its window.
            self._take_center(control)
        self._means.add(window.metrics, window.samples)
        if self.callbacks.see_windows:
            # The last execution of an epoch counts as whole, as in Keras.
            steps = self.live.model.steps_per_execution if self.plan.by_steps else window.steps
            self._show_batch(self._steps + max(steps, window.steps) - 1, self._means.logs())
        self._steps += window.steps
        self._send_rate()
        if self.live.model.stop_training:
            return
        if self.plan.by_steps:
            self._send_weights(control)  # After the last window of an epoch, too.
            if self._samples < self.plan.end_of(self._next):
                self._release(control)

    def _show_batch(self, last: int, logs: Logs) -> None:
        """Call the methods for batches, for the minibatches from the next one up to number `last`.

        Windows of several workers may reach over the end of an epoch: no number is above its last one.
        """
        end = last if self.plan.by_steps else self.callbacks.steps - 1
        self.callbacks.list.on_train_batch_begin(min(self._steps, end))
        self.callbacks.list.on_train_batch_end(min(last, end), logs)

    def _refused(self, event: UpdateRefused) -> None:
        """Show a loss that is not finite to the callbacks, one of which may end the training for it."""
        self._metrics = {"loss": float("nan")}
        if not self.callbacks.see_windows or self._stops:
            return
        self._show_batch(self._steps, dict(self._metrics))
        self._steps += 1
        if self.live.model.stop_training:
            self.stop.set("not finite", f"a callback ended it: {event.reason}")

    def _epoch_ended(self, event: EpochEnded) -> None:
        if event.epoch < self._next or self._is_complete:
            return  # It was closed before the server restarted, or the training has ended.
        if self.plan.is_last(event.epoch) or not event.whole:
            self._last = event
            if self.plan.by_steps and self._control is not None:
                self._control.order(until=FOREVER)
            return
        self._ended = event
        if self._evaluating and self._is_due(event) and self._control is not None:
            self._control.order(evaluate=self.plan.end_of(event.epoch))

    def _restored(self, event: ServerRestored) -> None:
        """Forget what the restored server reports again."""
        self._ended, self._samples, self._tag = None, event.samples, 0
        self._later.clear()
        self._kept.clear()
        self._judged.clear()

    def _is_due(self, event: EpochEnded) -> bool:
        return self._judge is not None and self._judge.is_due(self.plan.first + event.epoch)

    def _is_ready(self, event: EpochEnded) -> bool:
        end = self.plan.end_of(event.epoch)
        if self.needs_copies and end not in self._kept:
            return False
        if not self._evaluating or not self._is_due(event) or self._judge is None:
            return True
        # A worker that has left cannot evaluate: the epoch then waits for the end of all workers.
        return len(self._judged.get(end, set())) >= self._judge.workers

    def _close(self, event: EpochEnded) -> None:
        """Run what follows an epoch that is not the last one, and what precedes the next; give the orders."""
        control = self._control
        if control is None:
            raise RuntimeError("The training has not started.")
        if self.needs_weights:
            end = self.plan.end_of(event.epoch)
            self._take_center(control, end if not self.plan.holds and end in self._kept else 0)
            self._has_weights = True
        self._run_callbacks(event)
        self._next = event.epoch + 1
        if self.live.model.stop_training or self.stop.reason is not None:
            self._is_complete = True
            self._save_model()
            return
        self._has_weights = False
        if self.needs_copies:
            control.keep(self.plan.end_of(self._next + 1))
        if self.callbacks.act_at_begin:
            self._save_model()
        self.begin_epoch()
        self._send_rate()
        self._send_weights(control)
        self._release(control)
        self._save_model()

    def _save_model(self) -> None:
        """Save the model of the epoch that was closed last, unless it is saved."""
        epoch, self._unsaved = self._unsaved, None
        if epoch is not None:
            self._save(epoch, self._logs)

    def _take_center(self, control: Control, kept: int = 0) -> None:
        """Let the model take the center, or its copy for `kept` rows, and the worker's last state."""
        own = (
            control.state_of(self.plan.worker, self._tag) if self.callbacks.see_state and self._tag else None
        )
        self.live.take(control.pull(kept), own)
        self.live.remember()

    def _run_callbacks(self, event: EpochEnded | None) -> None:
        """Validate, and run the callbacks at the end of an epoch."""
        epoch = self.plan.first + (self._next if event is None else event.epoch)
        logs = self.live.logs_of(b"" if event is None else event.states, self._metrics)
        if self._judge is not None and self._judge.is_due(epoch):
            logs |= self._validated(self._judge, event)
        self._logs = logs
        before = {name: len(values) for name, values in self.callbacks.history.history.items()}
        self.callbacks.list.on_epoch_end(epoch, logs)
        # Callbacks may have added to the logs, such as the learning rate.
        seen = {
            name: values[-1]
            for name, values in self.callbacks.history.history.items()
            if len(values) > before.get(name, 0)
        }
        if self._stop_when is not None and (reached := self._stop_when.reached(seen)):
            self.stop.set("target", reached)
        self._on_epoch(epoch, seen, event)
        self._unsaved = epoch

    def _validated(self, judge: Judge, event: EpochEnded | None) -> Logs:
        """Return the logs of the validation, between the callbacks of a test."""
        calls = self.callbacks.list
        calls.on_test_begin()
        results = None if event is None else self._results_of_workers(judge, event)
        if results is None:
            # Read after `on_test_begin`, where a callback may exchange the weights for their average.
            results = judge.judge(self.live.vector(), self.live.variables())
        if self.callbacks.see_tests:
            by_workers = self._control is not None and event is not None and judge.workers
            self._show_tests([results] if by_workers or judge.batches is None else judge.batches())
        calls.on_test_end(results)
        return {f"val_{name}": value for name, value in results.items()}

    def _show_tests(self, batches: Sequence[Logs]) -> None:
        """Call the methods for batches of a validation: an execution of several is one batch, as in Keras."""
        together = self.live.model.steps_per_execution
        for first in range(0, len(batches), together):
            self.callbacks.list.on_test_batch_begin(first)
            last = min(first + together, len(batches)) - 1
            self.callbacks.list.on_test_batch_end(first + together - 1, dict(batches[last]))

    def _results_of_workers(self, judge: Judge, event: EpochEnded) -> Logs | None:
        """Return what the workers' evaluations give together; `None` if there is not one of each."""
        end = self.plan.end_of(event.epoch)
        if self._control is None or not judge.workers or len(self._judged.get(end, set())) < judge.workers:
            return None
        parts = [self._control.report(worker, "evaluation", end) for worker in range(judge.workers)]
        states = [part for part in parts if part is not None]
        return self.live.results_of(add_states(states)) if len(states) == len(parts) else None

    def _send_rate(self) -> None:
        """Order the learning rate if a callback has changed it."""
        rate = self.live.changed_rate()
        if rate is not None and self._control is not None:
            self._on_rate(rate)
            self._control.order(learning_rate=rate)

    def _send_weights(self, control: Control) -> None:
        """Put weights that a callback has written into the center.

        Raises:
            ValueError: workers would not take them.
        """
        changed = self.live.changed_weights() if self.needs_weights else None
        if changed is not None and not self.plan.holds:
            raise ValueError(
                "A callback has changed the weights at the end of an epoch, but workers would not take "
                "them: they continue from their own. Train with one worker or with a synchronous algorithm, "
                f"without `overlap` and fragments. Received: callbacks={', '.join(self.callbacks.names)}"
            )
        if changed is not None:
            control.write(changed)

    def _release(self, control: Control) -> None:
        """Let the workers train to the end of the next epoch; past it if that is the last one."""
        if self.plan.holds:
            control.order(until=self.plan.until(self._next, self._samples))
