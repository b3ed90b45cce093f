"""The driver's handle of parameter servers that run as Spark tasks on executors."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.delivery import delivered, localized
from distkeras.cluster.executor_side import executor_id
from distkeras.cluster.process import ServerFailed
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.server_setups import address_of, clear, setups_of
from distkeras.cluster.server_task import BEGIN, ServerTask, run
from distkeras.cluster.shared_access import Access
from distkeras.cluster.stage import GRACE_SECONDS, Stage, row_type
from distkeras.cluster.story import Story
from distkeras.wire.group import Group
from distkeras.wire.log import level_of_driver
from distkeras.wire.mailbox import Line, Mailbox
from distkeras.wire.mailbox_files import END, STOP, Seal
from distkeras.wire.server_place import Location, ServerPlace
from distkeras.wire.store import seconds_to_write

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from distkeras.algorithms import Vector
    from distkeras.wire.shared_folder import SharedFolder

LOOK_SECONDS = 0.1
LOST_SECONDS = 10.0
"""Longest time for a server that could not be asked to be seen to start again."""
TELL_SECONDS = 10.0
"""Longest time to wait for a server to hear that its job is over."""


class ServerTasks:
    """Servers on executors that hold one center together, for the duration of one `with` block.

    They are one Spark job, a task each, and keep their slots to its end. The driver asks them by files in the
    shared folder. If a task is lost, Spark starts it elsewhere, and its server goes on from its last
    snapshot; if only the server's process is lost, the task starts another one.

    Args:
        spark: the session.
        parts: what each server holds.
        initial: the first center, shape (size,) or (workers, size).
        folder: the shared folder.
        access: how the driver reaches it.
        abandoned: seconds without a request of the driver after which the servers end.
        resume: number of the next event of an earlier job, at the first server.
        story: the story of the job.

    Attributes:
        pause: least seconds between two polls of the events.

    Raises:
        ServerFailed: a server did not start.
    """

    def __init__(
        self,
        spark: SparkSession,
        parts: ServerParts,
        initial: Vector,
        folder: SharedFolder,
        access: Access,
        *,
        abandoned: float,
        resume: int | None = None,
        story: Story | None = None,
    ) -> None:
        self._story = story or Story()
        self._access, self.pause = access, access.pause
        self._options = parts.setup.options
        self._exit_seconds = GRACE_SECONDS + seconds_to_write(initial.nbytes)
        name = secrets.token_hex(4)
        self._root = folder.under(f"servers/{name}")
        places = [ServerPlace(self._root.under(str(index))) for index in range(len(parts.bounds))]
        setups = setups_of(parts, places)
        if resume is None:
            for setup in setups[1:]:
                access.do(clear, setup.options.snapshots)
        self._seals = [Seal(setup.token, f"{name}/{index}") for index, setup in enumerate(setups)]
        self._story.keep_secret(
            [text for setup in setups for text in (setup.token.hex(), repr(setup.token)[2:-1])]
        )
        self.addresses = tuple(map(address_of, setups, places, parts.sizes))
        self._places = places
        self._stack = ExitStack()
        tasks = []
        for index, (low, high) in enumerate(parts.bounds):
            since = resume if index == 0 or resume is None else 0
            center = self._stack.enter_context(delivered(spark, initial[..., low:high]))
            tasks.append(
                ServerTask(
                    *(setups[index], center, self.addresses[index], self._seals[index], since, abandoned),
                    log_level=level_of_driver(),
                )
            )
        numbers = spark.range(0, len(tasks), 1, len(tasks))
        frame = numbers.mapInArrow(_serving(tasks), row_type(error=T.StringType()))
        self._stage = Stage(
            frame,
            "parameter servers",
            lambda _: self._tell("The task of a parameter server was lost."),
        )
        self._lines = [Line(0) for _ in tasks]
        self._since = [resume or 0, *[0] * (len(tasks) - 1)]
        self._tell(
            f"{len(tasks)} parameter servers start on executors. They are found at {self._root}: "
            f"{access.told}."
        )
        self._stage.start()
        try:
            found = [self._find(index) for index in range(len(tasks))]
        except BaseException:
            self._stage.cancel()
            self._leave_nothing()
            raise
        if len(found) > 1:  # Spark gives the tasks of a job to its executors in turn.
            executors = {location.executor for location in found}
            self._tell(f"{len(found)} parameter servers run on {len(executors)} executors.")

    def client(self) -> Mailbox | Group:
        """Return the driver's conversation with the servers."""
        mailboxes = self._mailboxes(self._options.give_up, self._check)
        return mailboxes[0] if len(mailboxes) == 1 else Group(self.addresses, clients=mailboxes)

    def revive(self, since: int, seconds: float = 0.0) -> bool:
        """Wait for servers that were lost to be started again; return whether there was one.

        Args:
            since: number of the next event to be polled at the first server.
            seconds: 0 if there is no sign that one is lost.

        Raises:
            ServerFailed: a server has ended, and is not started again.
        """
        self._check()
        if not seconds:
            return False
        self._since[0] = since
        deadline = time.monotonic() + max(seconds, LOST_SECONDS)
        while not (lost := self._lost()):
            self._check()
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        for index in lost:
            self._find(index)
        return True

    def _lost(self) -> list[int]:
        """Return the servers in whose place another one is, or is about to be."""
        present = self._access.do(_epochs, self._places)
        return [index for index, line in enumerate(self._lines) if present[index] != line.epoch]

    def stop(self, reason: str) -> None:
        """Answer the next request of every worker with the end of the job. The driver may continue to ask."""
        self._tell_all(STOP, reason)

    def __enter__(self) -> ServerTasks:
        return self

    def __exit__(self, *_: object) -> None:
        heard = not self._stage.wait(0.0) and self._tell_all(END, "The job has ended.")
        self._stage.cancel(self._exit_seconds if heard else 0.0)
        self._leave_nothing()

    def _leave_nothing(self) -> None:
        with self._stack:
            self._access.do(_remove, self._root)

    def _tell_all(self, what: bytes, reason: str) -> bool:
        """Tell all servers; return whether all have heard it."""
        mailboxes = self._mailboxes(TELL_SECONDS, lambda: None)
        with ThreadPoolExecutor(len(mailboxes)) as pool:
            return all(pool.map(lambda mailbox: mailbox.tell(what, reason, TELL_SECONDS), mailboxes))

    def _mailboxes(self, patience: float, look: Callable[[], None]) -> list[Mailbox]:
        return [
            Mailbox(address, seal, self._access.carry, line, patience, look)
            for address, seal, line in zip(self.addresses, self._seals, self._lines, strict=True)
        ]

    def _find(self, index: int) -> Location:
        """Wait until a server is up, let the next requests go to it, and return where it is."""
        line, place = self._lines[index], self._places[index]
        begun = line.epoch
        deadline = time.monotonic() + self._options.give_up
        while True:
            self._check()
            epoch, location = self._access.do(_present, place)
            if location is not None:
                break
            if epoch > max(1, begun):  # The first one knows from its job where it begins.
                self._begin(index, epoch)
                begun = epoch
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"Parameter server {index} was not up after {self._options.give_up:.0f} s. "
                    "See the Spark UI for the cause; ServerOptions(give_up=...) sets this limit."
                )
            time.sleep(LOOK_SECONDS)
        with line.lock:
            line.epoch, line.number = epoch, 0
        self._tell(f"Parameter server {index} is up, for the {_nth(epoch)} time: {location}.")
        return location

    def _begin(self, index: int, epoch: int) -> None:
        name = f"{epoch}/{BEGIN}"
        data = json.dumps({"since": self._since[index]}).encode()
        self._tell(f"Parameter server {index} is started again from its last snapshot.", logging.WARNING)
        folder = self._places[index].folder
        self._access.do(folder.write, name, self._seals[index].seal(name, data))

    def _check(self) -> None:
        """Raise ServerFailed if the job of the servers has ended."""
        if not self._stage.wait(0.0):
            return
        if self._stage.error is not None:
            raise ServerFailed(
                f"The Spark job of the parameter servers has failed: {self._stage.error}"
            ) from self._stage.error
        errors = [row.error for row in self._stage.rows if row.error]
        raise ServerFailed("\n".join(errors) or "The Spark job of the parameter servers has ended.")

    def _tell(self, what: str, level: int = logging.INFO) -> None:
        self._story.tell(what, level, __name__)


def _serving(tasks: Sequence[ServerTask]):  # type: ignore[no-untyped-def]  # pyspark's own type is private
    def serve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            pass
        task = tasks[TaskContext.get().partitionId()]
        error = run(task, localized(task.initial).open(), executor_id())
        yield pa.RecordBatch.from_pydict({"error": [error]})

    return serve


def _present(place: ServerPlace) -> tuple[int, Location | None]:
    epoch = place.epoch()
    return epoch, place.location(epoch)


def _epochs(places: Sequence[ServerPlace]) -> list[int]:
    return [place.epoch() for place in places]


def _remove(folder: SharedFolder) -> None:
    """Remove the folder of a job, and with the last one the folder of all."""
    folder.remove()
    folder.above.remove_if_empty()


def _nth(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
