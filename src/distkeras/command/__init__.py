"""The command `distkeras`. It starts without importing Keras, PySpark or a backend."""

from __future__ import annotations

import click

import distkeras
from distkeras.command.dashboard import dashboard
from distkeras.command.doctor import doctor
from distkeras.command.serve import serve

__all__ = ["main"]


@click.group()
@click.version_option(distkeras.__version__, prog_name="distkeras")
def main() -> None:
    """Train Keras models on Apache Spark."""


main.add_command(dashboard)
main.add_command(doctor)
main.add_command(serve)
