"""Where compiled code is kept from one local session to the next, and what a new session is told of it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest
from pyspark import SparkContext

from distkeras import compiled_code
from distkeras.cluster import job, session
from distkeras.compiled_code import features_of_processor, folder_for_compiled_code
from distkeras.worker.environment import _keep_compiled


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the user's cache folder, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def test_the_folder_is_this_user_s_alone(cache):
    before = os.umask(0)
    try:
        folder = folder_for_compiled_code()
    finally:
        os.umask(before)
    assert folder.parent == cache / "distkeras" / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder_for_compiled_code() == folder


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_a_folder_that_others_may_write_is_not_used(which):
    folder = folder_for_compiled_code()
    (folder if which == "folder" else folder.parent).chmod(0o777)
    assert folder_for_compiled_code() is None


def test_a_link_is_not_followed(tmp_path):
    folder = folder_for_compiled_code()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert folder_for_compiled_code() is None


def test_a_cache_folder_that_cannot_be_made_is_no_error(cache):
    cache.write_text("a file")
    assert folder_for_compiled_code() is None


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_COMPILATION_CACHE_DIR", "/else"), ("JAX_ENABLE_COMPILATION_CACHE", "False")]
)
def test_what_the_user_says_to_jax_has_priority(monkeypatch, cache, name, value):
    monkeypatch.setenv(name, value)
    assert folder_for_compiled_code() is None
    assert not cache.exists()


@pytest.mark.parametrize("version", ["0.5.0", "0.6.1", None])
def test_nothing_is_kept_by_a_jax_that_would_train_wrong_with_it(monkeypatch, cache, tmp_path, version):
    def told(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(compiled_code.importlib.metadata, "version", told)
    assert folder_for_compiled_code() is None
    assert not cache.exists()
    environment = {"SPARK_LOCAL_DIRS": str(tmp_path)}
    _keep_compiled(environment)
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


def test_a_processor_without_a_feature_has_a_folder_of_its_own(tmp_path):
    names = []
    for index, flags in enumerate(("sse avx avx512f", "sse avx", "sse avx")):
        info = tmp_path / f"cpuinfo {index}"
        info.write_text(f"processor : 0\nmodel name : Some CPU\ncpu MHz : {index}\nflags : {flags}\n")
        names.append(features_of_processor(info))
    assert names[0] != names[1]
    assert names[1] == names[2]  # The clock rate does not matter.


def test_the_oldest_files_are_deleted_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(compiled_code, "LIMIT", 25)
    folder = folder_for_compiled_code()
    for age, name in enumerate("abc"):
        (folder / name).write_bytes(b"0123456789")
        os.utime(folder / name, (1000 - age, 1000 - age))
    folder_for_compiled_code()
    assert {path.name for path in folder.iterdir()} == {"a", "b"}


def test_a_new_session_forks_its_workers_and_names_the_folder_to_them(monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    assert session._for_workers("jax") == {
        "spark.python.daemon.module": "distkeras.worker.daemon",
        "spark.executorEnv.KERAS_BACKEND": "jax",
        "spark.executorEnv.JAX_COMPILATION_CACHE_DIR": str(folder_for_compiled_code()),
    }
    assert "spark.executorEnv.JAX_COMPILATION_CACHE_DIR" not in session._for_workers("torch")


def said_by(script, **environment):
    """Run `script` on JAX in a process of its own; return its output."""
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "KERAS_BACKEND": "jax"} | environment
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


KEPT_IN_THE_DRIVER = """
import os
from distkeras.cluster.session import local_session

local_session(1, backend="jax").stop()
import keras

keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
import jax

print(jax.config.jax_compilation_cache_dir, os.environ.get("JAX_COMPILATION_CACHE_DIR"))
"""


@pytest.mark.parametrize("given", [None, "own"])
def test_the_driver_s_jax_keeps_its_code_there_too_unless_the_user_says_where(given, cache, tmp_path):
    environment = {}
    folder = cache / "distkeras" / "compiled" / features_of_processor()
    if given is not None:
        folder = tmp_path / given
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    said = said_by(KEPT_IN_THE_DRIVER, **environment)
    assert said.split() == [str(folder), str(environment.get("JAX_COMPILATION_CACHE_DIR"))]
    if given is None:
        assert list(folder.glob("jit_*"))


def test_another_python_may_lack_this_package_and_runs_spark_s_own_daemon(monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", "/usr/bin/python3")
    assert "spark.python.daemon.module" not in session._for_workers("jax")


IMPORTS = """
import sys, threading

class Noting:
    found = {}

    def find_spec(self, name, path=None, target=None):
        own = threading.current_thread().name
        if name == "pandas":
            Noting.children = open(f"/proc/self/task/{threading.get_native_id()}/children").read().split()
        if own == "distkeras-ahead" or any(t.name == "distkeras-import" for t in threading.enumerate()):
            self.found.setdefault(threading.current_thread().name, set()).add(name.partition(".")[0])

sys.meta_path.insert(0, Noting())
from distkeras.cluster.session import local_session

spark = local_session(1, backend="jax")
print(*Noting.found["distkeras-import"])
print(*Noting.found.get("MainThread", ()))
for thread in threading.enumerate():
    if thread.name == "distkeras-ahead":
        thread.join(60)
# It looks for modules that do not exist.
print(*[name for name in Noting.found.get("distkeras-ahead", ()) if name in sys.modules])
print(len(Noting.children))
spark.stop()
"""


def test_packages_are_imported_while_the_jvm_starts_and_none_by_two_threads_at_once():
    aside, main, ahead, children = (set(line.split()) for line in said_by(IMPORTS).split("\n")[:4])
    assert children == {"1"}  # the JVM
    assert {"keras", "jax"} <= aside
    assert not aside & main - {"encodings"}
    assert not ahead  # The caller imports whatever it likes meanwhile.


@pytest.mark.parametrize(("before", "imported"), [(None, ["keras"]), ("jax", ["keras"]), ("torch", [])])
def test_keras_is_imported_while_the_jvm_starts_unless_another_backend_is_set(monkeypatch, before, imported):
    found, really = [], session.importlib.import_module

    def import_module(name, package=None):
        return found.append(name) if name == "keras" else really(name, package)

    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(session.importlib, "import_module", import_module)
    monkeypatch.setenv("KERAS_BACKEND", "jax" if before is None else before)
    if before is None:
        monkeypatch.delenv("KERAS_BACKEND")
    with session._importing_keras("jax"):
        pass
    assert found == imported
    assert os.environ["KERAS_BACKEND"] == (before or "jax")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_stops_the_imports_beside_the_jvm_is_raised_once_it_has_started(error, monkeypatch):
    def stop(names):
        assert not started
        raise error("stopped")

    def start_session():
        with session._importing_keras("jax"):
            # As PySpark starts the JVM. Python would print an error of the code that runs at a fork.
            subprocess.run(["true"], preexec_fn=lambda: None, check=True)
            started.append(True)

    started = []
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(SparkContext, "_gateway", None)
    monkeypatch.setattr(session, "_import_all", stop)
    with pytest.raises(error, match="stopped"):
        start_session()
    assert started


def test_models_of_earlier_trainings_are_freed_once_they_may_fill_much(monkeypatch):
    collected = []
    monkeypatch.setattr(job.gc, "collect", lambda: collected.append(len(sizes)))
    monkeypatch.setattr(job, "_uncollected", 0)
    sizes = []
    for size in (2**20, 2**20, 2**24, 2**20, 2**20):
        sizes.append(size)
        job._collect_models(size)
    assert collected == [4]  # 4 copies of 16 MiB are what may be left.
