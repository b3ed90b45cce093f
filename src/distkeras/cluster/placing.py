"""Start the parameter servers of a job where they are to run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.sql.utils import is_remote

from distkeras.cluster.options import ServerOptions, addresses
from distkeras.cluster.placement import Placed, Placement, Shared
from distkeras.cluster.reach import ServerUnreachable, check_reachable
from distkeras.cluster.reached import unreached
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.server_tasks import ServerTasks
from distkeras.cluster.servers import Servers
from distkeras.cluster.settings import is_local
from distkeras.cluster.shared_access import NotShared, find_access
from distkeras.cluster.slots import NotEnoughSlots, wait_for_slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from distkeras.algorithms import Vector
    from distkeras.cluster.process import Process
    from distkeras.cluster.server import ServerSetup
    from distkeras.cluster.story import Story


@dataclass(frozen=True)
class Placing:
    """Starts the servers of one job.

    Attributes:
        spark: the session.
        setup: settings of the whole center, without addresses.
        initial: the first center, or centers.
        num_servers: number of servers.
        resume: number of the next event of an earlier job; `None` for a new one.
        launched: processes beside the driver that were launched ahead.
        story: the story of the job.
        check: checks whether the executors can train; it may raise.
    """

    spark: SparkSession
    setup: ServerSetup
    initial: Vector
    num_servers: int
    resume: int | None
    launched: list[Process]
    story: Story
    check: Callable[[], None]

    def start(self, where: Placement, shared: Shared | None) -> tuple[Servers | ServerTasks, Placed]:
        """Return the servers, and where they run.

        Raises:
            NotShared: executors do not share the folder.
            NotEnoughSlots: workers and servers do not fit into the application.
            ServerUnreachable: an executor does not reach a server.
            Exception: what `check` raises, or the start of the servers.
        """
        if where.where == "driver":
            return self.beside_driver(), Placed()
        if where.where == "auto":
            servers, placed = self._where_reached(shared)
        elif shared is not None:
            servers, placed = self.on_executors(shared), Placed("executors")
        else:
            raise NotShared("Servers on executors need a shared folder. Received: shared=None")
        self.story.tell(f"The parameter servers run {placed}.", name=__name__)
        return servers, placed

    def _where_reached(self, shared: Shared | None) -> tuple[Servers | ServerTasks, Placed]:
        """Start the servers beside the driver; if an executor does not reach them there, on executors."""
        if is_local(self.spark):
            return self.beside_driver(), Placed("driver", "all workers run on its machine")
        if is_remote() and self.setup.options.host is None and shared is not None:
            return self.on_executors(shared), Placed(
                "executors", "the driver's address is not known to Spark Connect"
            )
        try:
            return self.beside_driver(), Placed("driver", "the executors reach it")
        except ServerUnreachable as unreachable:
            faults = unreachable.faults
        if shared is None:
            raise NotShared(
                "The executors cannot reach the parameter servers beside the driver, and servers on "
                "executors need a shared folder. Open the ports (see ServerOptions), or pass a run directory "
                "or Placement('auto', shared=...) that all executors reach. Received: " + " ".join(faults[:3])
            )
        # The host, if there is one, is that of the servers beside the driver.
        options = replace(self.setup.options, host=None, bind=None)
        placing = replace(self, setup=replace(self.setup, options=options))
        return placing.on_executors(shared), Placed("executors", faults[0])

    def beside_driver(self) -> Servers:
        """Start the servers' processes, which all executors must reach.

        Raises:
            ServerUnreachable: an executor does not; no server is left.
        """
        servers = self._start_processes()
        try:
            check_reachable(self.spark, servers.addresses, self.setup.center.least_workers)
        except BaseException:
            with servers:
                raise
        return servers

    def _start_processes(self) -> Servers:
        """Start the servers' processes while Spark checks whether its executors can train."""
        host, bind = addresses(self.spark, self.setup.options)
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(
                Servers,
                self.num_servers,
                replace(self.setup, host=host, bind=bind),
                self.initial,
                resume=self.resume,
                launched=self.launched,
                story=self.story,
            )
            try:
                self.check()
            except BaseException:
                with starting.result():
                    raise
            return starting.result()

    def on_executors(self, shared: Shared) -> ServerTasks:
        """Start the job of the servers, after a check of the executors and of the shared folder."""
        check_options(self.setup.options)
        center = self.setup.center
        options = replace(self.setup.options, snapshots=shared.snapshots)
        parts = ServerParts(self.num_servers, replace(self.setup, options=options), self.initial.shape[-1])
        self.check()
        access = find_access(self.spark, shared.folder, center.least_workers + self.num_servers)
        check_room(
            *(self.spark, center.least_workers, len(parts.bounds), access.slots),
            together=center.algorithm.synchronous,
        )
        servers = ServerTasks(
            *(self.spark, parts, self.initial, shared.folder, access),
            abandoned=shared.abandoned,
            resume=self.resume,
            story=self.story,
        )
        try:
            check_reached(self.spark, servers, center.least_workers)
        except BaseException:
            with servers:
                raise
        return servers


def check_reached(spark: SparkSession, servers: ServerTasks, num_tasks: int) -> None:
    """Refuse servers on executors that other executors do not reach.

    Raises:
        ServerUnreachable: there is one.
    """
    if is_local(spark):
        return
    if faults := unreached(spark, servers.addresses, num_tasks):
        raise ServerUnreachable(
            faults,
            "Open the ports between the executors' machines; ServerOptions(ports=(40123, 40124)) fixes them.",
        )


def check_options(options: ServerOptions) -> None:
    """Refuse options that are about the driver's machine.

    Raises:
        ValueError: there is one.
    """
    for name in ("host", "record"):
        value = getattr(options, name)
        if value is not None:
            raise ValueError(
                f"`ServerOptions({name}=...)` concerns the driver's machine, but the parameter servers run "
                'on executors. Leave it out, or set server_placement="driver". '
                f"Received: {name}={value!r}"
            )


def check_room(spark: SparkSession, workers: int, servers: int, couriers: int, *, together: bool) -> None:
    """Refuse a job whose servers would leave no slots to its workers.

    Args:
        spark: the session.
        workers: number of workers.
        servers: number of servers on executors.
        couriers: slots for the driver's requests to them.
        together: whether all workers must run at once.

    Raises:
        NotEnoughSlots: there are too few slots.
    """
    needed = servers + couriers + (workers if together else 1)
    slots = wait_for_slots(spark, needed)
    if slots >= needed:
        return
    kinds = f"{servers} for parameter servers, {workers if together else 'at least 1'} for workers"
    if couriers:
        kinds += f", {couriers} for the driver's requests to the servers"
    raise NotEnoughSlots(
        f"Parameter servers on executors take task slots of their own: this training needs {needed} at once, "
        f"{kinds}. Received: a Spark application with {slots}. Give it more executor cores, lower "
        '`num_workers` or `num_parameter_servers`, or set server_placement="driver".'
    )
