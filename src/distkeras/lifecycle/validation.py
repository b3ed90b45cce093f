"""Validation in a process beside the driver, which judges weights while the workers train."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from distkeras.worker.payload import pack
from distkeras.worker.side_evaluation import Answer, Question, Setup, Subject

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from distkeras.algorithms import Vector
    from distkeras.model.spec import ModelSpec
    from distkeras.worker.columns import Columns

TAIL_BYTES = 4000
END_SECONDS = 5.0

logger = logging.getLogger(__name__)


class SideEvaluationFailed(RuntimeError):
    """The process that validates beside the driver failed, or was killed twice."""


@contextlib.contextmanager
def launched_side(backend: str, threads: int | None = None) -> Iterator[list[SideProcess]]:
    """Yield a process that imports Keras while the driver examines the data.

    A `SideEvaluation` takes it out of the list. The block ends it otherwise.

    Args:
        backend: Keras backend.
        threads: cores that the process may use; default: all.
    """
    with tempfile.TemporaryDirectory(prefix="distkeras-validation-") as folder:
        processes = [SideProcess(Path(folder) / "errors", [_setup(backend, threads)])]
        try:
            yield processes
        finally:
            for process in processes:
                process.end()


class SideEvaluation:
    """Evaluates versions of a model in a process of its own, on all rows, on the CPU.

    The process opens model and rows, and compiles the step, while the training begins. If it is killed, it is
    started once more. It has a low priority, and ends with this process at the latest.

    Args:
        model: architecture, weights and compile settings.
        columns: how rows become the model's inputs and labels.
        table: the rows: the prepared frame's `toArrow()`.
        batch_size: rows per minibatch.
        steps: minibatches to evaluate, from the first on; `None` for all.
        backend: Keras backend.
        threads: cores that the process may use; default: all.
        launched: a process of `launched_side` to take, with the same backend and threads; default: start one.

    Attributes:
        batches: results up to and with each minibatch of the last version.

    Example:
        with SideEvaluation(spec, columns, frame.toArrow(), batch_size=32, backend="jax") as side:
            logs = side.judge(center)
    """

    def __init__(
        self,
        model: ModelSpec,
        columns: Columns,
        table: pa.Table,
        *,
        batch_size: int,
        steps: int | None = None,
        backend: str,
        threads: int | None = None,
        launched: list[SideProcess] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="distkeras-validation-")
        self._setup = _setup(backend, threads)
        self._subject = pack(Subject(model, columns, table, batch_size, steps), self._folder.name)
        self._killed = 0
        self.batches: Sequence[dict[str, float]] = ()
        self._process: SideProcess | None = launched.pop() if launched else None
        if self._process is None:
            self._process = self._start()
        else:
            self._process.send(self._subject)

    def judge(
        self, center: Vector, variables: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> dict[str, float]:
        """Return loss and metrics at these weights, as `model.evaluate(..., return_dict=True)` does.

        Waits for the result. A metric of several values is an array.

        Args:
            center: the weights in the model's layout, shape (size,).
            variables: further variables of the model, by path, such as counters; default: as they are.

        Raises:
            SideEvaluationFailed: an exception of the model or of the rows, with its traceback; or the process
                was killed twice.
        """
        question = Question(center, variables or {})
        while True:
            if self._process is None:
                self._process = self._start()
            try:
                answer = self._process.ask(question)
            except (EOFError, BrokenPipeError) as error:
                self._count_death(error)
            except (
                BaseException
            ):  # The answer is still to come, and must not become that of the next question.
                self._end_process()
                raise
            else:
                break
        if answer.error is not None:
            raise SideEvaluationFailed(f"The validation beside the driver failed:\n{answer.error}")
        self.batches = answer.batches
        return answer.logs

    def close(self) -> None:
        """End the process, and delete its files."""
        self._end_process()
        self._folder.cleanup()

    def __enter__(self) -> SideEvaluation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> SideProcess:
        return SideProcess(Path(self._folder.name) / "errors", [self._setup, self._subject])

    def _count_death(self, error: Exception) -> None:
        self._killed += 1
        how = "had ended before" if self._process is None else self._process.how_it_ended()
        self._end_process()
        if self._killed > 1:
            raise SideEvaluationFailed(
                f"The process that validates beside the driver {how}, for the second time. If the system has "
                "no memory for it, validate on fewer rows, or in the workers: validate_on='workers'."
            ) from error
        logger.warning("The process that validates beside the driver %s; it is started again.", how)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class SideProcess:
    """One process and the pipes to it.

    Args:
        errors: file for its standard error.
        first: objects to write to it.
    """

    def __init__(self, errors: Path, first: list[object]) -> None:
        self._errors = errors
        reading, to_process = os.pipe()
        from_process, writing = os.pipe()
        self._questions: IO[bytes] = os.fdopen(to_process, "wb")
        self._answers: IO[bytes] = os.fdopen(from_process, "rb")
        try:
            with open(errors, "wb") as file:
                self._popen = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "distkeras.worker.side_evaluation",
                        str(reading),
                        str(writing),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=file,
                    pass_fds=(reading, writing),
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C reaches only the driver, which ends this process.
                )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(reading)
            os.close(writing)
        for each in first:
            self.send(each)

    def send(self, value: object) -> None:
        """Write an object to the process that it does not answer."""
        with contextlib.suppress(BrokenPipeError):  # The next question tells.
            self._write(value)

    def ask(self, question: Question) -> Answer:
        """Return the answer to `question`.

        Raises:
            EOFError, BrokenPipeError: the process has ended.
        """
        self._write(question)
        answer: Answer = pickle.load(self._answers)
        return answer

    def how_it_ended(self) -> str:
        """Return how the process, which has ended, came to its end, with its last output."""
        code = self._popen.wait(END_SECONDS)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        tail = self._errors.read_bytes()[-TAIL_BYTES:].decode(errors="backslashreplace").strip()
        return f"{how} (the end of its standard error: {tail})" if tail else how

    def end(self) -> None:
        """Kill the process and release its resources."""
        self._popen.kill()
        self._popen.wait()
        self._close_pipes()

    def _write(self, value: object) -> None:
        pickle.dump(value, self._questions, protocol=5)
        self._questions.flush()

    def _close_pipes(self) -> None:
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(BrokenPipeError):  # What a dead process has not read is lost.
                pipe.close()


def _setup(backend: str, threads: int | None) -> Setup:
    return Setup(backend, threads or os.cpu_count() or 1)


def _environment() -> dict[str, str]:
    return os.environ | {
        # The model's code may come from a module that only this process finds, such as one beside its script.
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        # GPUs belong to the workers.
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "PYTHONUNBUFFERED": "1",
    }
