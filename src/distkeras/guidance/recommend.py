"""`recommend`: the rule that did best in the measurements nearest to a user's machines, data and network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from distkeras.algorithms import REGISTRY, Algorithm, Sequential, is_fair
from distkeras.guidance.measured import Data, Machines, Measured, measurements

BYTES_PER_WEIGHT = 4
SHARE = 0.2
"""The part of a worker's time that its exchanges may take."""
CODEC, SAVED = "int8", 4.0
"""What compresses an exchange without a rule of its own, and by which factor."""


class Model(Protocol):
    """What `recommend` asks of a model: any `keras.Model` that is built."""

    def count_params(self) -> int:
        """Return its number of weights."""
        ...


@dataclass(frozen=True)
class Recommendation:
    """A rule, its settings, and why. `print` shows it as text.

    Attributes:
        algorithm: the rule, with its communication window.
        learning_rate: of the worker's optimizer in the measurement. It fits plain gradient descent on MNIST.
            Divided by `single_rate`, it is the factor by which to change the rate of one worker.
        single_rate: best learning rate of one worker in the measurement.
        options: further arguments of a trainer: `num_workers`, `batch_size`, `compression` where it helps,
            and what the rule needs.
        measured: the measurement that decided.
        others: the next best under the same conditions, best first.
        reasons: why, in sentences.
    """

    algorithm: Algorithm
    learning_rate: float
    single_rate: float
    options: dict[str, Any]
    measured: Measured
    others: tuple[Measured, ...]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """Return the recommendation as lines of text."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        lines = [f"{self.algorithm!r}", f"with {settings}", *(f"- {reason}" for reason in self.reasons)]
        if self.others:
            told = ", ".join(f"{each.rule} {100 * each.in_time:.1f} %" for each in self.others)
            lines.append(f"Next best: {told}.")
        return "\n".join(lines)


def recommend(
    *,
    num_workers: int,
    model: Model | None = None,
    network: float | Literal["fast", "slow"] = "fast",
    machines: Machines = "alike",
    data: Data = "alike",
    step_seconds: float = 0.01,
    synchronous: bool | None = None,
) -> Recommendation:
    """Recommend a rule and its settings, from the measurements of `benchmarks/convergence.py`.

    The measurements are of one task, a small network on MNIST, in the simulator: docs/choosing.md shows them
    all. Take the answer as the first rule to try on your own data.

    Args:
        num_workers: workers that will train.
        model: the built Keras model. Its size says how long an exchange takes on `network`.
        network: bytes a second of the server's network card (1 GbE: 125e6), or "fast" (exchanges take no time
            worth mentioning) or "slow" (long windows whatever the model).
        machines: "alike", or "unequal" where some workers take several times as long for a step as others.
        data: "alike", or "skewed" where the workers' rows have labels in different proportions.
        step_seconds: how long a worker takes for a minibatch; used with `model` and `network` in bytes.
        synchronous: only rules in rounds (`True`), or only those whose workers never wait (`False`).

    Returns:
        The recommendation.

    Raises:
        ValueError: an argument is out of range, or `network` is in bytes and `model` is missing.

    Example:
        ```python
        advice = distkeras.recommend(num_workers=64, machines="unequal")
        print(advice)
        trainer = distkeras.DistributedTrainer(
            model, advice.algorithm, keras.optimizers.SGD(0.1), "mse", **advice.options
        )
        ```
    """
    _check(num_workers, model, network, machines, data, step_seconds)
    needed, compress, why = _window(num_workers, model, network, step_seconds)
    single = _single()
    if num_workers == 1:
        return Recommendation(
            Sequential(),
            single.learning_rate,
            single.learning_rate,
            {"num_workers": 1, "batch_size": single.batch_size},
            single,
            (),
            ("One worker has nobody to exchange with: `SingleTrainer` trains by this rule.",),
        )
    found = _candidates(num_workers, needed, machines, data, synchronous)
    best = found[0]
    window = max(best.window, needed)
    algorithm = REGISTRY[best.rule](communication_window=window)
    options: dict[str, Any] = {"num_workers": num_workers, "batch_size": best.batch_size}
    options |= options_of(best.rule, num_workers)
    if compress and "compression" not in options:
        options["compression"] = CODEC
    reasons = [*_reasons(best, num_workers, single), *why]
    if window > best.window:
        reasons.append(f"Windows of {window} steps were not measured: {best.window} is the longest that was.")
    if (best.machines, best.data) != (machines, data):
        reasons.append(
            f"Such windows were measured on machines {best.machines} and data {best.data} alone. Rules that "
            f"are known not to suit machines {machines} and data {data} are left out."
        )
    return Recommendation(
        algorithm, best.learning_rate, single.learning_rate, options, best, tuple(found[1:4]), tuple(reasons)
    )


def options_of(rule: str, num_workers: int) -> dict[str, Any]:
    """Return the arguments of a trainer or of `simulate` that a rule was measured with."""
    if rule == "SparseLoCo":
        return {"compression": "chunktopk"}
    if rule == "DecoupledDiLoCo":
        return {"quorum": max(1, int(0.75 * num_workers)), "grace": 2.0}
    return {}


def _check(
    num_workers: int, model: Model | None, network: float | str, machines: str, data: str, step_seconds: float
) -> None:
    """Raise an error for an argument out of range."""
    if num_workers < 1:
        raise ValueError(f"Expected at least one worker. Received: num_workers={num_workers!r}")
    for name, value, known in (
        ("machines", machines, ("alike", "unequal")),
        ("data", data, ("alike", "skewed")),
    ):
        if value not in known:
            raise ValueError(f"Expected {name} to be one of {', '.join(known)}. Received: {name}={value!r}")
    if isinstance(network, str):
        if network not in ("fast", "slow"):
            raise ValueError(
                f"Expected `network` to be 'fast', 'slow' or bytes a second. Received: network={network!r}"
            )
    elif not network > 0 or not step_seconds > 0:
        raise ValueError(
            "Expected positive bytes a second and seconds a step. "
            f"Received: network={network!r}, step_seconds={step_seconds!r}"
        )
    elif model is None:
        raise ValueError(
            "A network in bytes a second says something only beside a model's size. Give `model`, or "
            f"network='fast' or 'slow'. Received: network={network!r}"
        )


def _single() -> Measured:
    """Return the measurement of one worker."""
    return next(each for each in measurements().measured if each.num_workers == 1)


def _window(
    num_workers: int, model: Model | None, network: float | str, step_seconds: float
) -> tuple[int, bool, list[str]]:
    """Return the least window that the network allows, whether compression helps, and why."""
    if network == "fast":
        return 1, False, []
    longest = max(each.window for each in measurements().measured)
    if isinstance(network, str) or model is None:
        return (
            longest,
            True,
            ["The network is slow: windows are long, and `compression` makes messages small."],
        )
    size = 2 * BYTES_PER_WEIGHT * model.count_params()  # Both ways.
    window = math.ceil(num_workers * size / network / (SHARE * step_seconds))
    if window <= 1:
        return 1, False, []
    smaller = math.ceil(num_workers * size / SAVED / network / (SHARE * step_seconds))
    seconds = num_workers * size / SAVED / network
    return (
        smaller,
        True,
        [
            f"An exchange moves {size / 1e6:,.1f} MB, {size / SAVED / 1e6:,.1f} with compression={CODEC!r}. "
            f"All {num_workers} workers together keep the server's network busy for {seconds:.2g} s, so "
            f"windows of at least {smaller} steps of {step_seconds:g} s leave exchanges "
            f"{100 * SHARE:.0f} % of the time."
        ],
    )


def _candidates(
    num_workers: int, needed: int, machines: Machines, data: Data, synchronous: bool | None
) -> list[Measured]:
    """Return one measurement of each rule under the nearest conditions, best first."""
    table = [
        each
        for each in measurements().measured
        if each.num_workers > 1 and synchronous in (None, each.synchronous)
    ]
    # Every window was measured on fewer rows; only each rule's best on more. The two are not compared.
    sizes = {each.rows for each in table}
    table = [each for each in table if each.rows == (max(sizes) if needed <= 1 else min(sizes))]
    windows = sorted({each.window for each in table})
    least = max((window for window in windows if window <= needed), default=1)
    table = [each for each in table if each.window >= least]
    counts = {each.num_workers for each in table}
    nearest = min(counts, key=lambda count: abs(math.log(count / num_workers)))
    table = [each for each in table if each.num_workers == nearest]
    # Long windows were measured on machines and data alike alone.
    for wanted in ((machines, data), (machines, "alike"), ("alike", "alike")):
        if here := [each for each in table if (each.machines, each.data) == wanted]:
            break
    else:
        raise RuntimeError(f"Nothing was measured with {nearest} workers.")
    if (here[0].machines, here[0].data) != (machines, data):
        here = [each for each in here if _suits(each, machines, data)] or here
    best: dict[str, Measured] = {}
    for each in here:
        if each.rule not in best or each.in_time > best[each.rule].in_time:
            best[each.rule] = each
    return sorted(best.values(), key=lambda each: -each.in_time)


def _suits(each: Measured, machines: Machines, data: Data) -> bool:
    """Return whether a rule suits conditions under which it was not measured, by what is known of it."""
    waits = each.synchronous and each.rule != "DecoupledDiLoCo"
    fair = is_fair(REGISTRY[each.rule]())
    return not (machines == "unequal" and (waits or (data == "skewed" and not fair)))


def _reasons(best: Measured, num_workers: int, single: Measured) -> list[str]:
    """Return why the measurement decided."""
    where = f"{best.num_workers} workers, machines {best.machines}, data {best.data}"
    reasons = [
        f"{best.rule} reached {100 * best.in_time:.1f} % on {measurements().task} ({where}, {best.rows:,} "
        f"rows, window {best.window}, batch {best.batch_size}, rate {best.learning_rate:g}). One worker "
        f"reached {100 * single.accuracy:.1f} % after {single.rows:,} rows, at batch {single.batch_size} and "
        f"rate {single.learning_rate:g}."
    ]
    if best.num_workers != num_workers:
        reasons.append(f"{best.num_workers} is the measured number of workers nearest to {num_workers}.")
    flight = num_workers * best.batch_size * best.window
    reasons.append(
        f"{flight:,} rows are in flight (workers x batch x window). They decide more than the rule. With "
        "more workers take smaller batches and shorter windows."
    )
    return reasons
