"""One backend a process, from the environment; before anything imports Keras."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "worker"))
from backend_suites import ENVIRONMENT  # noqa: E402
from starting import XLA_FLAGS, without_tensorflow  # noqa: E402

backend = os.environ.setdefault("KERAS_BACKEND", "jax")
scratch = tempfile.TemporaryDirectory(prefix="distkeras-parity-")
paths = [str(HERE)]  # The workers import the cases' classes, as a user's executors do.
if backend != "tensorflow":
    without_tensorflow(Path(scratch.name))
    paths.append(scratch.name)
    sys.path.insert(0, scratch.name)
os.environ.update(ENVIRONMENT)
if os.environ.get("PARITY", "") == "all":  # As users compile: it takes twice as long.
    flags = os.environ.pop("XLA_FLAGS").replace(XLA_FLAGS, "").strip()
    if flags:  # XLA takes a blank for the name of a file.
        os.environ["XLA_FLAGS"] = flags
os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
# What `fit` and the worker compile alike is compiled once.
os.environ["JAX_COMPILATION_CACHE_DIR"] = scratch.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
