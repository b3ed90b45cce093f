"""What a training asks Spark for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import distkeras
from distkeras.cluster.resources import threads_of


@pytest.mark.parametrize(
    "options",
    [
        {"cores": 0},
        {"cores": True},
        {"cores": 2, "executor_cores": 1},
        {"gpus": -1},
        {"gpus": 0.7},
        {"gpus": 1.5},
        {"gpus": "1"},
        {"executor_memory": "4 gigabytes"},
        {"executor_overhead": 4},
    ],
    ids=str,
)
def test_amounts_that_spark_cannot_give_are_refused(options):
    with pytest.raises(ValueError, match=f"Received: {next(reversed(options))}=|Received: executor_cores="):
        distkeras.Resources(**options)


class Spark:
    """A session of a standalone cluster, as far as its settings go."""

    def __init__(self, **settings):
        settings = {name.replace("_", "."): value for name, value in settings.items()}
        settings["spark.master"] = "spark://somewhere:7077"
        self.conf = SimpleNamespace(get=lambda name, default=None: settings.get(name, default))


def test_executors_of_its_own_need_dynamic_allocation():
    asked = distkeras.Resources(cores=2, gpus=1, executor_memory="4g", gpu_vendor="nvidia.com")
    with pytest.raises(ValueError, match=r"`executor_memory`, `gpu_vendor`.*dynamicAllocation.enabled=true"):
        asked.check(Spark())
    asked.check(Spark(spark_dynamicAllocation_enabled="true"))
    distkeras.Resources(cores=2, gpus=0.5).check(Spark())


def test_threads_of_a_worker_are_the_cores_of_its_task():
    assert threads_of(Spark(spark_task_cpus="3"), None) == 3
    assert threads_of(Spark(spark_task_cpus="3"), distkeras.Resources(cores=2)) == 2
    assert threads_of(Spark(), None) == 1
