"""Checks of a trainer's arguments, before it reads any data: errors and warnings."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from distkeras.algorithms import Algorithm
from distkeras.algorithms.stability import warn_if_unstable
from distkeras.center import BadUpdates, CenterConfig, Fragments, RegionServers
from distkeras.center.elastic import Elastic
from distkeras.center.layout import Layout
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resources import Resources
from distkeras.cluster.user_line import levels_to_user
from distkeras.model.kinds import is_model
from distkeras.trainers.defaults import ChangedDefaultWarning, changed_default
from distkeras.wire.codecs import Codec
from distkeras.worker.nesterov import check_no_momentum


class UnstableWarning(UserWarning):
    """By the theory of the algorithm, training diverges at these parameters."""


def check_kinds(keras_model: Any, algorithm: Any) -> None:
    """Raise TypeError unless the arguments are a Keras model and an algorithm."""
    check_model("keras_model", keras_model)
    if not isinstance(algorithm, Algorithm):
        raise TypeError(
            "`algorithm` must be an instance of a distkeras.algorithms.Algorithm, such as "
            f"algorithms.ADAG(communication_window=12). Received: algorithm={algorithm!r}"
        )


def check_model(name: str, model: Any) -> None:
    """Raise TypeError unless `model` is a Keras model."""
    if not is_model(model):
        raise TypeError(f"`{name}` must be a Keras model. Received: {type(model)}")


def check_positive_integer(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


def batch_size_of(given: int | None, together: int | None, workers: int) -> int | None:
    """Return the rows of a minibatch of one worker; `None` if neither number is given.

    Args:
        given: `batch_size`, of one worker.
        together: `global_batch_size`, of all workers together.
        workers: number of workers.

    Raises:
        ValueError: both are given, one is not a positive integer, or the workers cannot share it equally.
    """
    if together is not None:
        check_positive_integer("global_batch_size", together)
        if given is not None:
            raise ValueError(
                "Expected `batch_size` (of one worker) or `global_batch_size` (of all workers together), not "
                "both. "
                f"Received: batch_size={given!r}, global_batch_size={together!r}"
            )
        if together % workers:
            raise ValueError(
                f"Expected a `global_batch_size` that {workers} workers can share equally, such as "
                f"{together + workers - together % workers}. Received: global_batch_size={together!r}"
            )
        return together // workers
    if given is not None:
        check_positive_integer("batch_size", given)
    return given


def check_choice(name: str, value: object, choices: tuple[str, str]) -> None:
    """Raise ValueError unless `value` is one of two choices."""
    if value not in choices:
        words = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"`{name}` must be {words}. Received: {name}={value!r}")


def check_servers(num_servers: int, bad_updates: BadUpdates) -> None:
    """Raise ValueError for an option that does not work with several parameter servers."""
    if num_servers > 1 and bad_updates.max_norm is not None:
        raise ValueError(
            "`max_norm` needs one parameter server: each of several servers sees only a part of the message. "
            f"Received: on_bad_update={bad_updates!r}, num_parameter_servers={num_servers}"
        )


def check_regions(regions: RegionServers | None, num_servers: int, options: ServerOptions | None) -> None:
    """Raise ValueError for options that do not work with servers in two levels."""
    record = None if options is None else options.record
    if regions is not None and (num_servers > 1 or record is not None):
        raise ValueError(
            "Regions need one process for all their servers, and no record of its requests. Received: "
            f"regions={regions!r}, num_parameter_servers={num_servers}, record={record!r}"
        )


def check_tensors(num_servers: int, algorithm: Algorithm, layout: Layout) -> None:
    """Raise ValueError if an algorithm needs whole tensors, and there are more servers than tensors."""
    num_tensors = sum(size > 0 for size in layout.tensors)
    if algorithm.needs_tensors and num_servers > max(1, num_tensors):
        raise ValueError(
            f"{algorithm.name} needs every tensor on one parameter server, and the model has {num_tensors} "
            f"trainable tensors. Received: num_parameter_servers={num_servers}"
        )


def elastic_of(
    min_workers: int | None, max_workers: int | None, num_workers: int, default: int = 2
) -> Elastic | None:
    """Return how many workers may train at once; `None` for a fixed number.

    Raises:
        ValueError: a number is out of range, or a fixed number is given as well.
    """
    if max_workers is None:
        if min_workers is not None:
            raise ValueError(
                f"`min_workers` needs `max_workers`: the number of workers varies between the two. "
                f"Received: min_workers={min_workers}, max_workers=None"
            )
        return None
    elastic = Elastic(1 if min_workers is None else min_workers, max_workers)
    if num_workers != default:
        raise ValueError(
            "Expected either `num_workers` or `max_workers`: a fixed number of workers, or one that changes. "
            f"Received: num_workers={num_workers}, max_workers={max_workers}"
        )
    return elastic


def at_once(trainer: Any) -> int:
    """Return how many workers of a trainer may train at one time with one center."""
    elastic: Elastic | None = trainer.elastic
    regions: RegionServers | None = trainer.regions
    if regions is not None:
        return int(trainer.num_workers) // regions.num_regions
    return int(trainer.num_workers) if elastic is None else elastic.max_workers


def check_resources(resources: object) -> None:
    """Raise TypeError unless `resources` are `Resources` or None."""
    if not isinstance(resources, Resources | None):
        raise TypeError(
            "`resources` must be a distkeras.Resources, such as Resources(cores=4, gpus=1), or None for the "
            f"application's settings. Received: resources={resources!r}"
        )


def check_overlap(overlap: bool | int) -> bool | int:
    """Return `overlap`.

    Raises:
        TypeError: it is neither True or False nor a number of steps.
    """
    if not isinstance(overlap, int):
        raise TypeError(
            "`overlap` must be True or False, or the number of minibatch steps to train during an exchange. "
            f"Received: overlap={overlap!r}"
        )
    return overlap


def check_fragments(
    fragments: Fragments | None,
    algorithm: Algorithm,
    num_workers: int,
    overlap: bool | int,
    num_servers: int,
) -> None:
    """Raise ValueError for options that do not work with fragments of the weights."""
    CenterConfig(algorithm, num_workers, overlap=overlap, fragments=fragments)
    if fragments is not None and num_servers > 1:
        raise ValueError(
            "Fragments need one parameter server: each exchange is a part of the weights already. "
            f"Received: num_parameter_servers={num_servers}, fragments={len(fragments)}"
        )


def check_codec(codec: Codec | None, layout: Layout) -> None:
    """Raise ValueError if a codec is given for weights in double precision."""
    if layout.dtype != "float32" and codec is not None:
        raise ValueError(
            "Weights of float64 cannot be compressed: use `compression=None`, or a model of float32. "
            f"Received: compression={codec!r}"
        )


def warn_without_codec(algorithm: Algorithm, codec: Codec | None) -> None:
    """Warn of an algorithm whose residual fades where nothing leaves one: it is then another one."""
    if codec is None and algorithm.residual_decay < 1:
        warnings.warn(
            f"{algorithm.name} decays what compression drops, but without compression nothing is dropped: "
            'pass `compression="chunktopk"`, or choose LocalSGD. Received: compression=None',
            UserWarning,
            stacklevel=levels_to_user(),
        )


def check_optimizer(
    model: keras.Model,
    worker_optimizer: str | keras.optimizers.Optimizer | None,
    algorithm: Algorithm,
    num_workers: int,
    overlap: bool | int = False,
) -> None:
    """Refuse an optimizer whose momentum would be applied twice; warn about one that will hardly learn.

    Raises:
        ValueError: both the optimizer and the algorithm have momentum.

    Warns:
        ChangedDefaultWarning, UnstableWarning: as `DistributedTrainer`.
    """
    optimizer = model.optimizer if worker_optimizer is None else keras.optimizers.get(worker_optimizer)
    check_no_momentum(optimizer, algorithm)
    changed = changed_default(worker_optimizer)
    if changed is not None:
        warnings.warn(changed, ChangedDefaultWarning, stacklevel=levels_to_user())
    rate = optimizer.get_config().get("learning_rate") if optimizer is not None else None
    if isinstance(rate, float | int):  # A schedule has no single rate.
        warn_of_rate(algorithm, num_workers, float(rate), overlap)


def warn_of_rate(algorithm: Algorithm, num_workers: int, rate: float, overlap: bool | int = False) -> None:
    """Warn if training diverges at the learning `rate`, by the theory of the algorithm.

    Warns:
        UnstableWarning: as `DistributedTrainer`.
    """
    warning = warn_if_unstable(algorithm, num_workers, rate, overlap=overlap)
    if warning is not None:
        warnings.warn(warning, UnstableWarning, stacklevel=levels_to_user())
