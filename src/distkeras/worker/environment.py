"""A Python process made ready for Keras: its backend, threads, memory and GPU, before Keras is imported."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import MutableMapping, Sequence

from distkeras.worker.gpus import take_gpu
from distkeras.worker.memory import keep_freed_memory, limit_heaps

_ahead = False
"""Keras is imported, by the process that this one was forked from, and its backend has not started up yet."""


def prepare_process(backend: str, threads: int, gpus: Sequence[str] = (), index: int | None = None) -> None:
    """Import Keras with this backend, its threads held to `threads` cores. Before anything else imports it.

    A process keeps the GPU that it began with: Spark may hand it tasks of other workers later, but as many
    processes then run, each with a GPU of its own.

    Args:
        backend: of Keras.
        threads: cores.
        gpus: addresses of those that Spark gave the task; default: one of the visible ones is taken.
        index: of the worker, which chooses among the visible ones; default: the number of the process.

    Raises:
        RuntimeError: this process has imported Keras with another backend.
    """
    global _ahead
    if "keras" in sys.modules:
        _check_backend(backend)
        if not _ahead:
            return
    _ahead = False
    limit_heaps(threads)
    keep_freed_memory()
    _set_variables(os.environ, backend, threads)
    take_gpu(gpus, os.getpid() if index is None else index, os.environ)
    if backend == "jax" and threads == 1:
        import jax

        # Else JAX computes in a second thread while Python prepares the next step: 1.12 cores for one worker,
        # and workers that share a machine slow each other down by a fifth.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(threads)
    _import_keras()
    import keras

    keras.ops.zeros(1)  # The backend starts up at its first array.
    # Else every collection looks through all objects of the imported modules: 0.3 s of each training.
    gc.freeze()


def import_ahead(backend: str, threads: int) -> None:
    """Import Keras, but start nothing: the processes that are forked from this one call `prepare_process`.

    Args:
        backend: of Keras.
        threads: cores that each of them may use.
    """
    global _ahead
    _set_variables(os.environ, backend, threads)
    _import_keras()
    _ahead = True
    gc.freeze()  # Else a collection in a process that was forked copies all of it.


def _import_keras() -> None:
    """Import Keras without matplotlib, which it imports where it is there: a fifth of the time.

    A worker plots nothing. Code of the user's that does may import it afterwards.
    """
    hidden = "matplotlib" not in sys.modules
    if hidden:
        sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        import keras  # noqa: F401
    finally:
        if hidden:
            sys.modules.pop("matplotlib", None)


def _check_backend(backend: str) -> None:
    import keras

    if keras.backend.backend() != backend:
        raise RuntimeError(
            f"Expected Keras on {backend!r} in this Python worker. Received: it was imported with "
            f"{keras.backend.backend()!r} before. Spark reuses its Python workers: set "
            "`spark.python.worker.reuse` to false, or train with one backend a Spark application. With "
            "`distkeras.worker.daemon`, `spark.executorEnv.KERAS_BACKEND` says which."
        )


def _set_variables(environment: MutableMapping[str, str], backend: str, threads: int) -> None:
    """Choose the backend, and hold the pools of threads of all libraries to `threads`, before they start."""
    count = str(threads)
    environment["KERAS_BACKEND"] = backend
    environment["NPROC"] = count  # XLA's pool; it has no other setting.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = count
    environment["TF_NUM_INTRAOP_THREADS"] = count
    environment["TF_NUM_INTEROP_THREADS"] = count
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "jax":
        _keep_compiled(environment)


def _keep_compiled(environment: MutableMapping[str, str]) -> None:
    """Have JAX keep what it compiles for the other Python workers of this executor, and for later trainings.

    Compiled code is code: it lies in this application's own local directory, for this user alone. A place
    that the executors' environment names comes first.

    Args:
        environment: the process's; changed in place. JAX reads it when it is imported.
    """
    local = environment.get("SPARK_LOCAL_DIRS", "").split(",")[0]
    if not local or "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    folder = os.path.join(local, "distkeras-compiled")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    environment["JAX_COMPILATION_CACHE_DIR"] = folder
    # Every bit: a small model takes as long to compile as to train for an epoch.
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
