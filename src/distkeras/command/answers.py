"""How a command answers: text or one JSON document on stdout, errors without a traceback, an exit code."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

import click

FAILED, WRONG, INTERRUPTED = 1, 2, 130
"""Exit codes besides 0: it failed; what was given is wrong; Ctrl-C ended it."""


@dataclass(frozen=True)
class Answer:
    """What a command answers.

    Attributes:
        document: the answer with `--json`: dicts, lists, texts and numbers.
        text: the answer without it.
        exit_code: exit code of the process.
    """

    document: Any
    text: str
    exit_code: int = 0


def answers(function: Callable[..., Answer]) -> Callable[..., None]:
    """Make a function that returns an `Answer` the function of a click command.

    The command gets `--json` and `--traceback`. With `--json` stdout has one document, also of an error, and
    everything else that is printed goes to stderr.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("--traceback", is_flag=True, help="Show where in the code an error came from.")
    @functools.wraps(function)
    def command(*given: Any, as_json: bool, traceback: bool, **options: Any) -> None:
        try:
            with _stdout_kept() if as_json else nullcontext():
                answer = function(*given, **options)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # For click, which ends quietly where nobody reads on, as in `distkeras logs ID | head`.
        except KeyboardInterrupt:
            answer = Answer({"error": "interrupted"}, "", INTERRUPTED)
            click.echo("Interrupted.", err=True)
        except Exception as error:
            if traceback:
                raise
            answer = _answer_of(error, as_json)
        if as_json:
            click.echo(json.dumps(_plain(answer.document), indent=2, default=str, allow_nan=False))
        elif answer.text:
            click.echo(answer.text)
        sys.stdout.flush()
        click.get_current_context().exit(answer.exit_code)

    return command


def _answer_of(error: Exception, as_json: bool) -> Answer:
    from distkeras.jobs import JobFileError, PackError, ProfileError

    told = str(error).strip() or type(error).__name__
    if not as_json:
        click.echo(f"Error: {told}", err=True)
        click.echo("(--traceback shows where it came from.)", err=True)
    wrong = isinstance(error, JobFileError | PackError | ProfileError)
    return Answer({"error": told, "type": type(error).__name__}, "", WRONG if wrong else FAILED)


def _plain(value: Any) -> Any:
    """Return a document with `None` for numbers that JSON does not have: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Send what this process and its children print to stderr, so that stdout has the answer alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as columns of text, with the names above; `None` is shown as nothing."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names, *([_shown(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
