"""Which GPU a worker takes. No GPU is needed: it is all in the environment that a backend reads."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distkeras.cluster.worker_stage import gpus_of
from distkeras.worker.gpus import VISIBLE, take_gpu


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
