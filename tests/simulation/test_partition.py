"""How rows are divided among simulated workers, and their minibatches."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from distkeras.simulation import KerasProblem, Replica
from distkeras.simulation.batch_size import BatchSize
from distkeras.simulation.partition import Partition

LABELS = np.random.default_rng(0).integers(0, 10, 4000)


def mixes(shares):
    """Return the share of each label among a worker's rows, shape (workers, 10)."""
    counts = np.array([np.bincount(LABELS[rows], minlength=10) for rows in shares])
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("by", ["rows", "labels"])
@pytest.mark.parametrize("num_workers", [1, 7, 256])
def test_each_row_belongs_to_one_worker_and_each_worker_has_one(by, num_workers):
    shares = Partition(by, alpha=0.05).shares(LABELS, num_workers)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(LABELS.size))
    assert min(rows.size for rows in shares) >= 1
    again = Partition(by, alpha=0.05).shares(LABELS, num_workers)
    assert all(np.array_equal(one, other) for one, other in zip(shares, again, strict=True))


def test_a_small_alpha_gives_workers_few_labels_and_a_large_one_all():
    def largest_label(alpha):
        return float(mixes(Partition("labels", alpha=alpha).shares(LABELS, 10)).max(axis=1).mean())

    assert largest_label(0.05) > 0.6 > largest_label(1.0) > largest_label(1e6)
    assert largest_label(1e6) < 0.2
    sizes = [rows.size for rows in Partition("labels", alpha=1e6).shares(LABELS, 10)]
    assert max(sizes) - min(sizes) <= 20


@functools.cache
def linear():
    import keras

    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def problem(labels=LABELS, **options):
    return KerasProblem(
        linear(), np.arange(labels.shape[0], dtype="float32")[:, None], labels, loss="mse", **options
    )


def test_a_worker_trains_the_rows_of_its_share_once_an_epoch():
    skewed = problem(LABELS[:60], partition="labels", alpha=0.3, batch_size=3)
    shares = Partition("labels", alpha=0.3).shares(LABELS[:60], 4)
    for worker, share in enumerate(shares):
        replica = Replica(worker, 4, 0.1, 0.0, (0, 2, worker, 0))
        steps = skewed.steps_of_share(worker, 4)
        assert steps == -(-share.size // 3)
        seen = np.concatenate([skewed._rows(replica) for _ in range(steps)])
        assert set(share) == set(seen)
        assert len(seen) - share.size < 3


def test_one_hot_labels_divide_as_their_classes_do():
    one, other = (Partition("labels", alpha=0.3).shares(labels, 5) for labels in (LABELS, np.eye(10)[LABELS]))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_a_global_batch_is_divided_among_the_workers():
    assert [BatchSize(None, 256).of(count) for count in (1, 8, 100, 256)] == [256, 32, 2, 1]
    assert BatchSize().of(64) == 32
    _, samples = problem(global_batch_size=40).train(
        np.zeros(2, np.float32), 3, Replica(0, 4, 0.0, 0.0, (0,))
    )
    assert samples == 3 * 10
    assert problem(global_batch_size=40).steps_per_epoch(4) == 100


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: Partition("columns"), "partition='columns'"),
        (lambda: Partition("labels", alpha=0.0), "alpha=0.0"),
        (lambda: BatchSize(0), "batch_size=0"),
        (lambda: BatchSize(None, -1), "global_batch_size=-1"),
        (lambda: BatchSize(8, 8), "not both"),
        (lambda: BatchSize(None, 7).of(8), "num_workers=8"),
        (lambda: Partition("labels").shares(np.zeros((8, 2, 2)), 2), r"shape \(8, 2, 2\)"),
        (lambda: Partition("labels").shares(LABELS[:3], 4), "3 rows are too few for 4 workers"),
    ],
)
def test_numbers_out_of_range_are_named(use, words):
    with pytest.raises(ValueError, match=words):
        use()
