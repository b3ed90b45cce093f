"""What makes the many short processes of the tests start fast."""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

from distkeras.compiled_code import KEEP_ALL


def _faster_where_known() -> str:
    """Return flags with which XLA compiles in a third of the time. It ends a process for a flag it lacks."""
    known = importlib.metadata.version("jaxlib").startswith("0.10.")
    return " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1" if known else ""


# Tiny models: for XLA, compiling takes longer than running.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true" + _faster_where_known()
)
CLASS_ARCHIVE = Path(__file__).parents[1] / ".pytest_cache" / "spark.jsa"
"""An archive of Spark's Java classes, which test_class_archive.py makes before other tests start a JVM."""
# For every JVM: Spark's, its executors', those of scripts. They live for seconds, and compiling their code
# well costs more than it saves. With the archive one starts in half the processor time; one that does not
# find it, or that it does not fit, starts without it.
JAVA_OPTIONS = (
    f'-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "-XX:SharedArchiveFile={CLASS_ARCHIVE}" '
    "-Xlog:cds=off -Xlog:cds+dynamic=off"
)


def start_fast() -> None:
    """Set what this process and all that it starts take from the environment."""
    # Hundreds of processes import the package: without its bytecode each compiles it anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    os.environ["JDK_JAVA_OPTIONS"] = JAVA_OPTIONS
    given = os.environ.get("XLA_FLAGS", "")  # `make rounding` sets some.
    if XLA_FLAGS not in given:
        os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} {given}"

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _keep_compiled_code()


def _keep_compiled_code() -> None:
    """Let all processes of this run share the code that JAX compiles: the same small models come again."""
    folder, process = tempfile.mkdtemp(prefix="distkeras-tests-"), os.getpid()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ |= {name.upper(): str(value) for name, value in KEEP_ALL.items()}

    def remove() -> None:
        if os.getpid() == process:  # Not in a process that was forked from this one.
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def without_tensorflow(folder: Path) -> dict[str, str]:
    """Return the variable of the environment of a process that finds no TensorFlow, since `folder` hides it.

    `keras.utils.set_random_seed`, which most scripts of the tests call, imports it: seconds in every process.
    """
    (folder / "tensorflow.py").write_text("raise ImportError('not in this test')")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}
