"""`distkeras simulate`: a rule on many workers, in this process, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distkeras.command.answers import FAILED, Answer, answers, table
from distkeras.command.flags import Entry

if TYPE_CHECKING:
    from distkeras.simulation import Problem, Result, StepTime

CLOCKS = ("gamma", "constant", "exponential", "heterogeneous")


@click.command()
@click.argument("rule")
@click.option("--rule-argument", type=Entry(), multiple=True, help="Argument of the rule.")
@click.option("--workers", default=16, show_default=True, type=click.IntRange(1), help="Simulated workers.")
@click.option(
    "--commits", default=1000, show_default=True, type=click.IntRange(1), help="Commits to the center."
)
@click.option(
    "--learning-rate", type=float, help="Learning rate of the workers. Default: the rule's, or 0.01."
)
@click.option(
    "--step-time",
    "clock",
    type=click.Choice(CLOCKS),
    default="gamma",
    show_default=True,
    help="Distribution of a step's time.",
)
@click.option("--step-seconds", default=1.0, show_default=True, help="Mean seconds of a step.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that a message is in transit.")
@click.option("--bandwidth", type=float, help="Bytes a second of a worker's link. Default: no limit.")
@click.option(
    "--dimensions", default=10, show_default=True, type=click.IntRange(1), help="Size of the quadratic."
)
@click.option("--curvature", default=1.0, show_default=True, help="Curvature of the quadratic.")
@click.option("--noise", default=0.1, show_default=True, help="Standard deviation of the gradient's noise.")
@click.option(
    "--problem", help="Function that returns another problem, such as a KerasProblem: `module:function`."
)
@click.option("--problem-argument", type=Entry(), multiple=True, help="Argument of that function.")
@click.option(
    "--evaluations", default=10, show_default=True, type=click.IntRange(1), help="Evaluations of the center."
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything that is random.")
@click.option("--run", help="Write a run to this folder, for the dashboard.")
@answers
def simulate(**options: Any) -> Answer:
    """Simulate a rule on many workers, in this process.

    RULE is a name such as ADAG. It trains a noisy quadratic, or a problem of your own; only time is virtual.
    The exit code is 1 if the run diverges.
    """
    from distkeras import algorithms
    from distkeras.simulation import Network
    from distkeras.simulation import simulate as simulated

    rule = type(algorithms.get(options["rule"]))(**dict(options["rule_argument"]))
    link = {} if options["bandwidth"] is None else {"bandwidth": options["bandwidth"]}
    result = simulated(
        rule,
        _problem(options),
        num_workers=options["workers"],
        num_commits=options["commits"],
        learning_rate=options["learning_rate"],
        step_time=_clock(options["clock"], options["step_seconds"]),
        network=Network(latency=options["latency"], **link),
        evaluate_every=max(1, options["commits"] // options["evaluations"]),
        keep_centers=False,
        seed=options["seed"],
        run=options["run"],
    )
    return _answer(result, options["run"])


def _problem(options: dict[str, Any]) -> Problem:
    import numpy as np

    from distkeras.simulation import Quadratic

    if options["problem"] is None:
        return Quadratic(options["curvature"], options["noise"], np.ones(options["dimensions"]))
    from distkeras.command.working import function_of, prepare

    prepare(None, Path.cwd())
    problem: Problem = function_of(options["problem"])(**dict(options["problem_argument"]))
    return problem


def _clock(name: str, seconds: float) -> StepTime:
    from distkeras.simulation import Constant, Exponential, Gamma, Heterogeneous

    kinds: dict[str, Any] = {
        "gamma": Gamma,
        "constant": Constant,
        "exponential": Exponential,
        "heterogeneous": Heterogeneous,
    }
    made: StepTime = kinds[name](seconds)
    return made


def _answer(result: Result, run: str | None) -> Answer:
    rows = [
        {"commits": int(version), "seconds": float(at), "loss": float(loss)}
        | {name: float(values[place]) for name, values in result.metrics.items()}
        for place, (version, at, loss) in enumerate(
            zip(result.versions, result.evaluated, result.losses, strict=True)
        )
    ]
    staleness = {"mean": 0.0, "max": 0.0}
    if result.num_commits:
        staleness = {"mean": float(result.staleness.mean()), "max": float(result.staleness.max())}
    document = {
        "rule": repr(result.algorithm),
        "workers": result.num_workers,
        "evaluations": rows,
        "staleness": staleness,
        "seconds": float(result.times[-1]),
        "bytes_sent": result.bytes_sent,
        "diverged": result.diverged,
        "run": run,
    }
    lines = [
        f"{result.algorithm!r}, {result.num_workers} workers",
        table(rows),
        f"staleness: mean {staleness['mean']:.2f}, at most {staleness['max']:.0f}",
        f"{result.num_commits} commits in {document['seconds']:.1f} virtual seconds",
        *(["It diverged: the center refused a message that is not finite."] if result.diverged else []),
        *([f"run: {run}"] if run else []),
    ]
    return Answer(document, "\n".join(lines), FAILED if result.diverged else 0)
