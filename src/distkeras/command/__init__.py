"""The command `distkeras`. It starts without importing Keras, PySpark or a backend.

A subcommand is a module of this package, of the same name, which is imported when the subcommand runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

import distkeras

__all__ = ["Commands", "main"]

COMMANDS: Mapping[str, str] = {
    "init": "Write a project that runs.",
    "train": "Train a model as a job file says.",
    "check": "Check what stands in the way of a job file's training, without starting it.",
    "doctor": "Check Java, Spark, Python, packages, network, clocks, disk, memory and GPUs for a training.",
    "simulate": "Simulate a rule on many workers, in this process.",
    "evaluate": "Print loss and metrics of a saved model on rows.",
    "predict": "Write the rows with the predictions of a saved model.",
    "runs": "List, show and compare runs.",
    "dashboard": "Show the page of RUNS: addresses of runs, or folders of runs, on any filesystem.",
    "submit": "Send this project to where a profile runs jobs.",
    "jobs": "List the jobs that were submitted from here, or show one.",
    "logs": "Print the log of a job.",
    "stop": "End a job or a running training; a training keeps its model.",
    "serve": "Serve jobs to a team: a queue, a page, and a process for each job.",
    "completion": "Print the lines that complete this command in a shell.",
}
"""The subcommands, and the first line of what each says of itself, so that `--help` imports none of them."""


class Commands(click.Group):
    """A group of commands that are imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; `None` if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(distkeras.__version__, prog_name="distkeras")
def main() -> None:
    """Train Keras models on Apache Spark.

    Exit codes: 0 done; 1 failed; 2 wrong arguments, job file or profile; 130 interrupted by Ctrl-C.
    """
