"""`distkeras init`: a project that runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from distkeras.command.answers import Answer, answers
from distkeras.command.project_files import files_of

BACKENDS = ("jax", "tensorflow", "torch")


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--backend", type=click.Choice(BACKENDS), help="Backend of Keras. Default: the first that is installed."
)
@answers
def init(folder: Path, backend: str | None) -> Answer:
    """Write a project that runs.

    FOLDER is a new folder, or one without files; default: this one. `distkeras train` there trains a
    small model on made rows.
    """
    if folder.exists() and any(path.name != ".git" for path in folder.iterdir()):
        raise click.UsageError(f"Expected a new folder, or one without files. Received: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in folder.resolve().name)
    files = files_of(name or "project", backend or installed_backend())
    for file, text in files.items():
        (folder / file).write_text(text)
    train = f"cd {folder} && distkeras train" if folder != Path(".") else "distkeras train"
    document = {"folder": str(folder.resolve()), "files": sorted(files)}
    return Answer(document, f"Wrote {', '.join(sorted(files))}.\nNow: {train}")


def installed_backend() -> str:
    """Return the first backend that is installed; the first of all if none is."""
    return next((name for name in BACKENDS if importlib.util.find_spec(name) is not None), BACKENDS[0])
