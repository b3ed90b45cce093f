"""Prepare a Python process for Keras: backend, threads, memory and GPU, before the import of Keras."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import MutableMapping, Sequence

from distkeras.compiled_code import KEEP_ALL, jax_keeps_code_right
from distkeras.worker.gpus import ALONE, Sharing, take_gpu
from distkeras.worker.memory import keep_freed_memory, limit_heaps

_ahead = False
"""Whether the parent process imported Keras before the fork, and the backend has not started yet."""


def prepare_process(
    backend: str,
    threads: int,
    gpus: Sequence[str] = (),
    index: int | None = None,
    sharing: Sharing = ALONE,
) -> None:
    """Import Keras with this backend, limited to `threads` cores. Call it before any other import of Keras.

    A process keeps its first GPU: Spark may run tasks of other workers in it later, but then as many
    processes run as before, each with its own GPU.

    Args:
        backend: the Keras backend.
        threads: number of cores.
        gpus: addresses of the GPUs that Spark gave the task; default: the process takes a visible one.
        index: index of the worker, to choose a visible GPU; default: the process id.
        sharing: how many workers share a GPU.

    Raises:
        RuntimeError: this process has already imported Keras with another backend.
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
    share = take_gpu(gpus, os.getpid() if index is None else index, os.environ, sharing=sharing)
    if backend == "jax" and threads == 1:
        import jax

        # Otherwise JAX computes in a second thread while Python prepares the next step: one worker takes 1.12
        # cores, and workers that share a machine slow each other down by a fifth.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(threads)
        if share is not None and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(share)
    _import_keras()
    import keras

    keras.ops.zeros(1)  # The backend starts at its first array.
    # Otherwise each garbage collection scans all objects of the imported modules: 0.3 s of each training.
    gc.freeze()


def import_ahead(backend: str, threads: int) -> None:
    """Import Keras without starting a backend; processes forked from this one call `prepare_process`.

    Args:
        backend: the Keras backend.
        threads: cores that each forked process may use.
    """
    global _ahead
    _set_variables(os.environ, backend, threads)
    _import_keras()
    _ahead = True
    gc.freeze()  # Otherwise a collection in a forked process copies all of its memory.


def _import_keras() -> None:
    """Import Keras without matplotlib, which Keras imports if it is installed: a fifth of the import's time.

    A worker plots nothing. The user's code may still import matplotlib afterwards.
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
            f"Expected Keras on {backend!r} in this Python worker. Received: it has already imported Keras "
            f"with {keras.backend.backend()!r}. Spark reuses its Python workers: set "
            "`spark.python.worker.reuse` to false, or train with one backend per Spark application. With "
            "`distkeras.worker.daemon`, `spark.executorEnv.KERAS_BACKEND` selects the backend."
        )


def _set_variables(environment: MutableMapping[str, str], backend: str, threads: int) -> None:
    """Select the backend, and limit the thread pools of all libraries to `threads`, before they start."""
    count = str(threads)
    environment["KERAS_BACKEND"] = backend
    environment["NPROC"] = count  # The only setting of XLA's thread pool.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = count
    environment["TF_NUM_INTRAOP_THREADS"] = count
    environment["TF_NUM_INTEROP_THREADS"] = count
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if backend == "jax":
        _keep_compiled(environment)


def _keep_compiled(environment: MutableMapping[str, str]) -> None:
    """Let JAX cache compiled code for other Python workers of this executor and for later trainings.

    The cache holds executable code: it is in this application's own local directory, readable by this user
    only. A cache directory set in the executors' environment has priority; `local_session` sets one.

    Args:
        environment: of the process; changed in place. JAX reads it at import.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in environment:
        if not jax_keeps_code_right():
            return
        local = environment.get("SPARK_LOCAL_DIRS", "").split(",")[0]
        if not local:
            return
        folder = os.path.join(local, "distkeras-compiled")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        environment["JAX_COMPILATION_CACHE_DIR"] = folder
    for name, value in KEEP_ALL.items():
        environment.setdefault(name.upper(), str(value))
