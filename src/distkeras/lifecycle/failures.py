"""Writes to a run directory that its store refuses: the training goes on without them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distkeras.runs import WriteFailed

if TYPE_CHECKING:
    from distkeras.runs import Run
    from distkeras.runs.event_files import Written


class Failures:
    """What a store has refused. The first failure warns, and each is an event of the run.

    Args:
        write: receives the events.
    """

    def __init__(self, write: Callable[[Written], object]) -> None:
        self._write = write
        self._all: list[str] = []
        self._open: dict[tuple[str, int], tuple[str, OSError]] = {}

    @property
    def all(self) -> tuple[str, ...]:
        """Every failure, in words."""
        return tuple(self._all)

    @contextmanager
    def noted(self, run: Run, what: str, kind: str, member: int) -> Iterator[None]:
        """Note an error of the store in a `with` block, and go on after it.

        An error of another kind propagates: that another driver has taken the run, or that Keras cannot save
        the model.

        Args:
            run: the run.
            what: what is written.
            kind: what sort of thing it is: a later one that is written makes up for it.
            member: in an ensemble, the member.
        """
        try:
            yield
        except OSError as error:
            text = run.hidden(f"{what} could not be written: {type(error).__name__}: {error}")
            if not self._all:
                warnings.warn(
                    f"In the run {run.address}, {text}. The training continues, and writes the next ones.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._all.append(text)
            self._open[kind, member] = text, error
            self._write(WriteFailed(text, time.time()))
        else:
            self._open.pop((kind, member), None)

    def raise_last(self, run: Run) -> None:
        """Raise an error if the last record or checkpoint of a model was refused.

        Raises:
            OSError: it was, and what the run lacks.
        """
        for text, error in self._open.values():
            raise OSError(
                f"The training has ended, but the run {run.address} is not complete: {text}. The model is "
                "not lost: `fit` has put the weights into it, and `trainer.interrupted_model()` returns it."
            ) from error
