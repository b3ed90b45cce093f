"""Servers in two levels on Spark: the equations, each row once, and what is refused at once."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

import distkeras
from distkeras.algorithms import DelayedNesterov, HALoS

RATE, BATCH, WINDOW, ROWS = 0.05, 8, 2, 80
LOCAL = DelayedNesterov(WINDOW, outer_learning_rate=0.8, outer_momentum=0.3, period=2)
ABOVE = HALoS(3, outer_learning_rate=0.6, outer_momentum=0.5, period=2, alpha=0.25)


@pytest.fixture(scope="module")
def line(spark):
    """Rows of a noisy plane in two partitions."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(2 * ROWS, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.1 * generator.normal(size=2 * ROWS)
    rows = pd.DataFrame(
        {"features": list(x), "label": y.astype(np.float32), "part": np.arange(2 * ROWS) // ROWS}
    )
    frame = spark.createDataFrame(rows).repartitionByRange(2, "part").cache()
    assert frame.groupBy(frame.part).count().count() == 2
    yield frame
    frame.unpersist()


def linear_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])


def trainer_of(**further):
    given = {
        "num_workers": 2,
        "batch_size": BATCH,
        "num_epoch": 3,
        "regions": distkeras.RegionServers(2, ABOVE),
        "seed": 0,
        "verbose": 0,
    } | further
    return distkeras.DistributedTrainer(linear_model(), LOCAL, keras.optimizers.SGD(RATE), "mse", **given)


class Nesterov:
    """The center of a delayed-Nesterov server, as Liu et al. 2024 write it, without activation."""

    def __init__(self, center, rate, momentum, period):
        self.center, self.rate, self.beta, self.n = center.astype(np.float64), rate, momentum, period
        self.momentum = self.buffer = np.zeros(center.size)
        self.count = 0

    def push(self, delta):
        self.buffer, self.count = self.buffer - delta, self.count + 1
        self.center = self.center + self.rate * delta / self.n
        if self.count == self.n:
            self.momentum = self.beta * self.momentum + self.buffer / self.n
            self.center = self.center - self.rate * self.beta * self.momentum
            self.buffer, self.count = np.zeros(delta.size), 0


def two_levels(weights, parts, order):
    """Return the global center after windows of the workers in `order`, by the equations of HALoS.

    Args:
        weights: the first center.
        parts: x and y of each worker, which is alone in its region.
        order: by window its worker and its minibatches.
    """
    top = Nesterov(weights, ABOVE.outer_learning_rate, ABOVE.outer_momentum, ABOVE.period)
    regions = [
        Nesterov(weights, LOCAL.outer_learning_rate, LOCAL.outer_momentum, LOCAL.period) for _ in parts
    ]
    anchors, started = [top.center.copy() for _ in parts], [top.center.copy() for _ in parts]
    commits, place = [0, 0], [0, 0]
    left = [sum(worker == each for each, _ in order) for worker in range(2)]
    for worker, steps in order:
        (x, y), own = parts[worker], started[worker].copy()
        for _ in range(steps):
            low = place[worker] % ROWS
            batch, target = x[low : low + BATCH], y[low : low + BATCH]
            own -= RATE * 2 * batch.T @ (batch @ own - target) / len(batch)
            place[worker] += BATCH
        region = regions[worker]
        region.push(own - started[worker])
        started[worker] = region.center.copy()
        commits[worker], left[worker] = commits[worker] + 1, left[worker] - 1
        if commits[worker] == ABOVE.communication_window or not left[worker]:
            top.push(region.center - anchors[worker])
            region.center = (1 - ABOVE.alpha) * region.center + ABOVE.alpha * top.center
            anchors[worker], commits[worker] = region.center.copy(), 0
    return top.center


@pytest.mark.filterwarnings("ignore::distkeras.UnfairWarning")
def test_the_model_is_the_global_center_of_the_equations(line, tmp_path):
    trainer = trainer_of()
    first = linear_model().get_weights()[0].ravel()
    trained = trainer.train(line, run=str(tmp_path / "run"))
    history = trainer.get_history()
    assert [window.verdict for window in history] == ["take"] * len(history)
    for worker in range(2):
        own = trainer.get_executor_history(worker)
        assert [window.iteration for window in own] == list(range(3 * ROWS // BATCH // WINDOW))
        assert sum(window.samples for window in own) == 3 * ROWS
    assert trainer.num_updates == len(history)
    rows = line.toPandas()
    parts = [
        (np.stack(part["features"]).astype(np.float64), part["label"].to_numpy(np.float64))
        for _, part in sorted(rows.groupby("part"))
    ]
    expected = two_levels(first, parts, [(window.worker, window.steps) for window in history])
    np.testing.assert_allclose(trained.get_weights()[0].ravel(), expected, rtol=2e-5, atol=2e-6)
    assert np.linalg.norm(expected - [1.0, -2.0, 0.5]) < 0.3 * np.linalg.norm(first - [1.0, -2.0, 0.5])
    snapshots = str(tmp_path / "run" / "snapshots")
    saved = distkeras.load_model(snapshots, like=linear_model())
    np.testing.assert_array_equal(saved.get_weights()[0], trained.get_weights()[0])

    with pytest.raises(ValueError, match="num_regions"):
        trainer_of(num_epoch=4, regions=1).train(line, run=str(tmp_path / "run"), resume=True)
    longer = trainer_of(num_epoch=4)
    longer.train(line, run=str(tmp_path / "run"), resume=True)
    windows = list(distkeras.load_run(str(tmp_path / "run")).windows())
    assert sum(window.samples for window in windows) == 4 * 2 * ROWS


def test_regions_with_several_workers_are_validated_after_each_epoch(line):
    trainer = trainer_of(num_workers=4, regions=2, num_epoch=4)
    assert "num_workers=4, regions=2" in repr(trainer)
    trainer.train(line, validation_data=line)
    losses = trainer.get_history().history["val_loss"]
    assert len(losses) == 4
    assert losses[-1] < 0.5 * losses[0]
    assert sum(window.samples for window in trainer.get_history()) == 4 * 2 * ROWS


def test_what_regions_do_not_support_is_refused_before_anything_starts(line):
    for further, message in (
        ({"num_workers": 3}, "2 regions can share equally"),
        ({"num_parameter_servers": 2}, "one process for all their servers"),
        ({"server": distkeras.ServerOptions(record="/nowhere")}, "no record of its requests"),
        ({"num_workers": 2, "max_workers": 4}, "fixed number of workers"),
        ({"regions": 0}, "positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer_of(**further)
    with pytest.raises(ValueError, match="asynchronous algorithm for their workers"):
        distkeras.LocalSGD(linear_model(), "sgd", "mse", regions=2)
    with pytest.raises(ValueError, match="Workers cannot validate here"):
        trainer_of().train(line, validation_data=line, validate_on="workers")
