import os
import subprocess
import sys

from distkeras.worker.task import _keep_compiled


def test_compiled_steps_lie_in_a_folder_of_this_user_alone(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": f"{tmp_path},/elsewhere"}
    _keep_compiled(environment)
    folder = tmp_path / "distkeras-compiled"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_place_that_the_executors_name_for_compiled_steps_comes_first(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": "/theirs"}
    _keep_compiled(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/theirs"
    assert list(tmp_path.iterdir()) == []


def test_nothing_compiled_is_kept_outside_spark():
    environment = {}
    _keep_compiled(environment)
    assert environment == {}


def test_a_second_process_compiles_nothing_anew(tmp_path):
    code = """
from distkeras.worker.task import prepare_process
prepare_process("jax", 1)
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event.rsplit("/", 1)[-1]))
print(float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0))))
print("cache_hits" in found, "cache_misses" in found)
"""
    environment = os.environ | {"SPARK_LOCAL_DIRS": str(tmp_path)}
    for expected in (["14.0", "False True"], ["14.0", "True False"]):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert run.stdout.splitlines() == expected, run.stderr
