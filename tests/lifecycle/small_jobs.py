"""A job without processes, for conductors: events go in, and orders are recorded."""

from __future__ import annotations

import keras
import numpy as np

from distkeras.events import EpochEnded, Window
from distkeras.lifecycle.callbacks import Callbacks
from distkeras.lifecycle.conductor import Conductor
from distkeras.lifecycle.live_model import LiveModel
from distkeras.lifecycle.plan import Plan, Stop
from distkeras.model.weights import layout_of

ROWS = 8


class RecordedControl:
    """Records orders; its center is set by tests."""

    def __init__(self, center):
        self.center, self.orders, self.kept, self.written = center, [], [], []
        self.copies = {}
        self.reports = {}

    def order(self, **changes):
        self.orders.append(changes)

    def keep(self, samples):
        self.kept.append(samples)

    def pull(self, kept=0):
        return np.array(self.copies[kept] if kept else self.center)

    def write(self, center):
        self.written.append(center)
        self.center = center

    def report(self, worker, kind, tag):
        return self.reports.get((worker, kind, tag))

    def state_of(self, worker, tag):
        return None


def small_model(rate=0.5):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


class SmallJob:
    """One conductor and its control; `window` and `epoch` send events."""

    def __init__(self, callbacks=(), *, num_epoch=3, holds=True, first=0, by_steps=False, **options):
        self.model = small_model()
        self.layout = layout_of(self.model)
        live = LiveModel(self.model, self.layout, None, 4)
        live.logs_of = lambda states, last=None: dict(last or {})  # The states are tested with real workers.
        self.rates, self.closed = [], []
        self.conductor = Conductor(
            live,
            Callbacks(list(callbacks), self.model, num_epoch + first, 2),
            Plan((ROWS,), num_epoch, first, holds, by_steps),
            Stop(),
            on_rate=self.rates.append,
            on_epoch=lambda epoch, logs, ended: self.closed.append((epoch, logs)),
            **options,
        )
        self.conductor.begin()
        self.conductor.begin_epoch()
        self.control = RecordedControl(live.vector())
        self.conductor.start(self.control)
        self.samples = self.number = 0

    def window(self, loss=1.0, samples=4):
        self.samples += samples
        self.number += 1
        self.conductor.take(Window(0, 0, self.number - 1, 1, samples, {"loss": loss}, 0, 0.0, self.number))

    def epoch(self, epoch, loss=1.0, *, whole=True):
        while whole and self.samples < (epoch + 1) * ROWS:
            self.window(loss)
        self.conductor.take(
            EpochEnded(epoch, self.samples, self.number, self.number, 2, b"", 2, 0.0, 0, whole, 0.0)
        )

    def end(self, center=None):
        return self.conductor.end(self.control.center if center is None else center, None)

    @property
    def until(self):
        return [order["until"] for order in self.control.orders if "until" in order]

    @property
    def stopped(self):
        return any(order.get("stop") for order in self.control.orders)
