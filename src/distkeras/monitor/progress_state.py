"""How far a training is, by its events: what the progress bar shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from distkeras.events import (
    EpochEnded,
    Event,
    ServerRestored,
    Window,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
    WorkerPhase,
)

STILL_SECONDS = 10.0
"""Seconds without a window, beyond five times the usual, after which the bar says so."""

SPEED_SECONDS = 30.0
"""The speed is that of the last windows, over so many seconds at most."""

PHASES = {
    "starting": "starting",
    "importing": "importing Keras",
    "loading": "loading the model",
    "waiting": "waiting for the others",
    "compiling": "compiling",
    "joined": "compiling",  # It has the weights, and its first window has not come.
    "lost": "lost",
}
"""What a worker does that does not train."""

WITHOUT_SLOT = "without a task slot"


@dataclass(frozen=True)
class Aim:
    """What a training is to come to.

    Attributes:
        ends: for each model, of which each has a center of its own: returns the rows of the center at the end
            of an epoch, counted from 0.
        num_epoch: number of epochs of the center.
        first: number of the first of them.
        workers: number of workers.
    """

    ends: tuple[Callable[[int], int], ...]
    num_epoch: int
    first: int = 0
    workers: int = 1


@dataclass
class Model:
    """How far one model is.

    Attributes:
        end_of: one of the `ends` of `Aim`.
        num_epoch: as in `Aim`.
        rows: rows of the center.
        epoch: the epoch that it is in, counted from 0; the last one also after its end.
        logs: means of the metrics over the rows of the epoch so far, as Keras's bar shows them.
        validated: the results of the last validation.
    """

    end_of: Callable[[int], int]
    num_epoch: int
    rows: int = 0
    epoch: int = 0
    logs: dict[str, float] = field(default_factory=dict)
    validated: dict[str, float] = field(default_factory=dict)
    _weights: dict[str, int] = field(default_factory=dict)
    _is_over: bool = False  # Whether the means are those of an epoch that has ended.

    def add(self, window: Window) -> None:
        """Count the rows of a window, and add its metrics to the means."""
        if self._is_over:
            self.forget()
        self.rows += window.samples
        for name, value in window.metrics.items():
            weight = self._weights.get(name, 0) + window.samples
            if weight:
                mean = self.logs.get(name, 0.0)
                self.logs[name] = mean + (value - mean) * window.samples / weight
                self._weights[name] = weight
        self._is_over = self.rows >= self.end_of(self.epoch)

    def close(self, logs: Mapping[str, float]) -> None:
        """Take Keras's own metrics of the epoch that has ended, unless windows of the next one have come."""
        if self._is_over:
            self.logs = {name: logs.get(name, mean) for name, mean in self.logs.items()}

    def go_on(self) -> None:
        """Go to the epoch that the rows belong to."""
        while self.epoch + 1 < self.num_epoch and self.rows >= self.end_of(self.epoch):
            self.epoch += 1

    def go_back(self, rows: int) -> None:
        """Take the rows of a restored center."""
        self.rows, self.epoch = rows, 0
        self.forget()
        self.go_on()

    def forget(self) -> None:
        """Begin the means anew."""
        self.logs, self._weights, self._is_over = {}, {}, False

    @property
    def share(self) -> float:
        """Share of the rows that is trained, from 0 to 1."""
        return min(1.0, self.rows / max(1, self.end_of(self.num_epoch - 1)))


class Progress:
    """Follows one training by its events.

    Args:
        clock: returns seconds from any origin.

    Attributes:
        models: the model, or the members of an ensemble; empty before `begin`.
        aim: what the training is to come to; `None` before `begin`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started = clock()
        self.models: list[Model] = []
        self.aim: Aim | None = None
        self._phases: dict[int, str] = {}
        self._left: set[int] = set()
        self._recent: deque[tuple[float, int]] = deque()
        self._recent_rows = 0
        self._wait = "", self.started
        self._without_slot: int | None = None

    def waits(self, what: str) -> None:
        """Learn what the training waits for, in words."""
        if what != self._wait[0]:
            self._wait = what, self._clock()

    def lack_slots(self, workers: int | None) -> None:
        """Learn how many workers wait for a task slot; `None` if Spark does not tell."""
        self._without_slot = workers

    def begin(self, aim: Aim) -> None:
        """Learn what the training is to come to."""
        self.aim = aim
        self.models = [Model(end_of, aim.num_epoch) for end_of in aim.ends]

    def take(self, event: Event) -> None:
        """Take an event, in the center's order."""
        match event:
            case Window():
                self._window(event)
            case WorkerPhase():
                self._left.discard(event.worker)
                self._phases[event.worker] = event.phase
            case WorkerJoined():
                self._left.discard(event.worker)
                self._phases[event.worker] = "joined"
            case WorkerBack():
                self._phases[event.worker] = "training"
            case WorkerLost():
                self._phases[event.worker] = "lost"
            case WorkerFailed() | WorkerLeft():
                self._left.add(event.worker)
            case EpochEnded():
                self._model_of(event.member).go_on()
            case ServerRestored():
                self._restored(event)

    def epoch(self, logs: Mapping[str, float], member: int = 0) -> None:
        """Take the logs of an epoch that the driver has closed."""
        model = self._model_of(member)
        model.validated = {name: value for name, value in logs.items() if name.startswith("val_")}
        model.close(logs)

    def logs(self, member: int) -> dict[str, float]:
        """Return the means of the metrics over the epoch that has ended last, or is under way."""
        return self._model_of(member).logs

    @property
    def trains(self) -> bool:
        """Whether a window has come."""
        return bool(self._recent)

    @property
    def all_train(self) -> bool:
        """Whether every worker trains or has ended."""
        workers = 1 if self.aim is None else self.aim.workers
        training = {worker for worker, phase in self._phases.items() if phase == "training"}
        return len(training | self._left) >= workers

    @property
    def speed(self) -> float:
        """Rows a second, of all workers together; 0 if it is not known."""
        if len(self._recent) < 2:
            return 0.0
        seconds = self._clock() - self._recent[0][0]
        return (self._recent_rows - self._recent[0][1]) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end at this speed; `None` if it is not known."""
        speed = self.speed
        if not speed:
            return None
        total = sum(model.end_of(model.num_epoch - 1) for model in self.models)
        return max(0.0, (total - sum(model.rows for model in self.models)) / speed)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self.started

    def waiting(self) -> tuple[str, float]:
        """Return what the training waits for while nothing trains, and for how many seconds."""
        text, since = self._wait
        workers = self._workers()
        return f"waits for workers: {workers}" if workers else text, self._clock() - since

    def missing(self) -> str:
        """Return what is missing while workers train: some of them, or windows; empty if nothing is."""
        if self.aim is None or not self._recent:
            return ""
        still = self._clock() - self._recent[-1][0]
        usual = (self._recent[-1][0] - self._recent[0][0]) / len(self._recent)
        texts = [] if self.all_train else [self._workers()]
        if still > STILL_SECONDS + 5 * usual and len(self._left) < self.aim.workers:
            texts.append(f"no window for {still:.0f} s")
        return ", ".join(text for text in texts if text)

    def _workers(self) -> str:
        """Return how many workers do what before they train, such as "2 importing Keras, 1 compiling"."""
        counts = Counter(
            PHASES.get(phase, phase)
            for worker, phase in self._phases.items()
            if phase != "training" and worker not in self._left
        )
        if self._without_slot is not None and self.aim is not None:
            counts[WITHOUT_SLOT] = self._without_slot
            counts["starting"] += max(0, self.aim.workers - self._without_slot - len(self._phases))
        names = dict.fromkeys((WITHOUT_SLOT, *PHASES.values()))
        return ", ".join(f"{counts[what]} {what}" for what in names if counts[what])

    def _model_of(self, member: int) -> Model:
        return self.models[member if len(self.models) > 1 else 0]

    def _window(self, window: Window) -> None:
        now = self._clock()
        model = self._model_of(window.worker)
        model.go_on()
        model.add(window)
        self._phases[window.worker] = "training"
        self._left.discard(window.worker)
        self._recent.append((now, window.samples))
        self._recent_rows += window.samples
        while len(self._recent) > 2 and self._recent[1][0] < now - SPEED_SECONDS:
            self._recent_rows -= self._recent.popleft()[1]

    def _restored(self, event: ServerRestored) -> None:
        if len(self.models) == 1:
            self.models[0].go_back(event.samples)
            return
        # The event has the windows of each member, and the rows of all together.
        windows = max(1, sum(event.commits))
        for model, commits in zip(self.models, event.commits, strict=True):
            model.go_back(event.samples * commits // windows)
