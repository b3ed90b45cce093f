"""A single worker whose process, or whose server, is killed goes on exactly as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import keras
import numpy as np
import psutil

import distkeras
from distkeras.events import EpochEnded, ServerRestored, Window, WorkerJoined
from distkeras.trainers import jobs
from distkeras.trainers.training import Training
from distkeras.worker.epochs import EpochPlan
from distkeras.worker.settings import Task

ROWS, BATCH, EPOCHS = 200, 8, 3


def make_model():
    """Everything that a worker keeps besides its weights: a schedule, moments, draws without a seed, sums."""
    keras.utils.set_random_seed(5)
    layers = [
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.4),
        keras.layers.Dense(1, "sigmoid"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    rate = keras.optimizers.schedules.CosineDecay(0.05, ROWS // BATCH * EPOCHS)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


def rows_that_kill(marker, pause):
    """Return a `preprocess` that kills its own process, once, in the middle of the second epoch."""
    number = [0]

    def given(columns):
        number[0] += 1
        time.sleep(pause)
        if number[0] == 40 and marker is not None and not os.path.exists(marker):
            with open(marker, "x"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return np.stack(list(columns["x"])).astype(np.float32)

    return given


class KillServer:
    """Kills the server after the tenth window, once: it may come again."""

    def __init__(self):
        self.is_done = False

    def __call__(self, event):
        if isinstance(event, Window) and event.iteration == 9 and not self.is_done:
            (server,) = [
                process
                for process in psutil.Process().children(recursive=True)
                if process.status() != psutil.STATUS_ZOMBIE
                and "distkeras.wire" in " ".join(process.cmdline())
            ]
            server.kill()
            self.is_done = True


def train(monkeypatch, marker=None, pause=0.0, on_event=lambda event: None, **options):
    """Train as one worker that leaves its state now and then; return the model, and all events."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(ROWS, 4)).astype(np.float32)
    y = (x[:, 0] + draw.normal(size=ROWS) > 0).astype(np.float32)
    events, taken = [], Training._take

    def take(self, event):
        events.append(event)
        on_event(event)
        taken(self, event)

    def exact(**settings):
        task = Task(**settings)
        plan = EpochPlan(windows_end=True, state="seconds")
        return replace(task, center=replace(task.center, epoch_rows=ROWS), epochs=plan)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_take", take)
        patch.setattr(jobs, "Task", exact)
        return trainer_of(marker, pause, options).train((x, y), shuffle=True), events


def trainer_of(marker, pause, options):
    return distkeras.DistributedTrainer(
        make_model(),
        distkeras.algorithms.Sequential(4),
        batch_size=BATCH,
        num_workers=1,
        num_epoch=EPOCHS,
        seed=2,
        preprocess=rows_that_kill(marker, pause),
        **options,
    )


def state_of(model):
    """Everything that `fit` leaves in a model, as bytes by name."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.asarray(variable).tobytes() for variable in variables]


def epochs_in(events):
    ended = [event for event in events if isinstance(event, EpochEnded)]
    return {event.epoch: (event.samples, event.steps, event.states) for event in ended}


def test_a_single_worker_goes_on_bit_for_bit_after_its_death_and_after_that_of_the_server(
    spark, monkeypatch, tmp_path
):
    expected, events = train(monkeypatch)
    epochs = epochs_in(events)
    assert list(epochs) == list(range(EPOCHS))
    killed, events = train(monkeypatch, str(tmp_path / "killed"))
    (_, again) = [event for event in events if isinstance(event, WorkerJoined)]
    assert again.epoch == 1
    assert 0 < again.step < ROWS // BATCH
    assert state_of(killed) == state_of(expected)
    assert epochs_in(events) == epochs
    options = distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(commits=3))
    killed, events = train(monkeypatch, pause=0.02, on_event=KillServer(), server=options)
    (restored,) = [event for event in events if isinstance(event, ServerRestored)]
    assert 0 < restored.samples < 3 * ROWS
    assert state_of(killed) == state_of(expected)
    assert epochs_in(events) == epochs
