"""Which GPU a worker takes. No GPU is needed: it is all in the environment that a backend reads."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distkeras.cluster import resources
from distkeras.cluster.resources import Resources, sharing_of
from distkeras.cluster.worker_stage import gpus_of
from distkeras.worker.gpus import ALONE, VISIBLE, Sharing, take_gpu


@pytest.fixture
def devices(tmp_path):
    """A machine with 12 GPUs, and other devices of the same driver."""
    for name in [*(f"nvidia{number}" for number in range(12)), "nvidiactl", "nvidia-uvm", "null"]:
        (tmp_path / name).touch()
    return tmp_path


def taken(devices, index=0, given=(), **environment):
    take_gpu(given, index, environment, devices)
    return environment.get(VISIBLE)


def test_worker_takes_the_gpus_that_spark_gave_its_task(devices):
    assert taken(devices, 5, ["3"]) == "3"
    assert taken(devices, 5, ["2", "7"], CUDA_VISIBLE_DEVICES="0") == "2,7"


def test_workers_take_visible_gpus_by_turns(devices):
    assert [taken(devices, index) for index in (0, 1, 2, 11, 12)] == ["0", "1", "2", "11", "0"]
    visible = {"CUDA_VISIBLE_DEVICES": "4, GPU-abc"}
    assert [taken(devices, index, **visible) for index in range(3)] == ["4", "GPU-abc", "4"]


def test_no_gpu_is_invented(tmp_path, devices):
    assert taken(tmp_path / "none") is None
    assert taken(devices, CUDA_VISIBLE_DEVICES="") == ""


def test_no_backend_takes_all_memory_of_a_gpu_unless_told_to(devices):
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    take_gpu((), 0, environment, devices)
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    environment = {}
    take_gpu((), 0, environment, devices)
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


@pytest.mark.parametrize(
    ("given", "sharing", "share"),
    [
        ([], Sharing(machine=24), 0.45),  # Two on each of 12 GPUs.
        ([], Sharing(machine=25), 0.3),  # One GPU has three, so the others leave as much.
        ([], Sharing(machine=12), None),
        (["3"], Sharing(gpu=2, machine=99), 0.45),
        (["3"], ALONE, None),
    ],
)
def test_workers_on_one_gpu_divide_its_memory(devices, given, sharing, share):
    environment = {}
    assert take_gpu(given, 0, environment, devices, sharing) == share
    assert environment.get(FRACTION) == (None if share is None else str(share))


def test_without_a_gpu_there_is_no_memory_to_divide(tmp_path):
    environment = {}
    assert take_gpu([], 0, environment, tmp_path, Sharing(machine=2)) is None
    assert FRACTION not in environment


def test_a_share_that_the_executors_set_holds(devices):
    environment = {FRACTION: "0.2"}
    take_gpu([], 0, environment, devices, Sharing(machine=24))
    assert environment[FRACTION] == "0.2"


@pytest.mark.parametrize(
    ("amount", "asked", "local", "expected"),
    [
        ("0.5", None, False, Sharing(gpu=2)),
        ("0.3", None, False, Sharing(gpu=3)),
        ("1", Resources(gpus=0.25), False, Sharing(gpu=4)),
        ("2", None, False, ALONE),
        ("0", None, False, ALONE),  # Nobody knows how many workers a machine of the cluster gets.
        ("0", None, True, Sharing(machine=3)),
    ],
)
def test_spark_says_how_many_workers_share_a_gpu(monkeypatch, amount, asked, local, expected):
    settings = {"spark.task.resource.gpu.amount": amount}
    spark = SimpleNamespace(conf=SimpleNamespace(get=lambda name, default: settings.get(name, default)))
    monkeypatch.setattr(resources, "is_local", lambda _: local)
    monkeypatch.setattr(resources, "registered_slots", lambda _: 8)
    assert sharing_of(spark, asked, num_workers=3) == expected


def test_gpu_is_chosen_before_the_backend_is_imported():
    code = """
import os, sys
from distkeras.worker.environment import prepare_process
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            print(os.environ["CUDA_VISIBLE_DEVICES"], *{"jax", "torch", "tensorflow"} & set(sys.modules))
            sys.exit()
sys.meta_path.insert(0, Watch())
prepare_process("tensorflow", 1, ["6"])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {VISIBLE: "0"}
    )
    assert run.stdout.strip() == "6", run.stderr


def test_addresses_are_those_of_sparks_resource_api():
    context = SimpleNamespace(resources=lambda: {"gpu": SimpleNamespace(addresses=["1"])})
    assert gpus_of(context) == ("1",)
    assert gpus_of(SimpleNamespace(resources=dict)) == ()
