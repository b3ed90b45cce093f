"""Options of a local session's JVM: it starts faster and leaves more processor time to the workers.

If `distkeras.class_archive` has created an archive of Spark's Java classes, the JVM loads them from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from distkeras.compiled_code import user_cache

__all__ = ["archive_options", "archive_path", "java_options"]

# The JVM's second compiler takes seconds of processor time in the first minute, which the workers on the same
# cores need. With these thresholds it compiles only code that runs fifty times as often as by default. Jobs
# on a million rows reach them, and take as long. With the first compiler alone they would take twice as long.
COMPILER_OPTIONS = "-XX:+IgnoreUnrecognizedVMOptions " + " ".join(
    f"-XX:Tier4{name}={count}"
    for name, count in (
        ("InvocationThreshold", 250_000),
        ("MinInvocationThreshold", 30_000),
        ("CompileThreshold", 750_000),
        ("BackEdgeThreshold", 2_000_000),
    )
)

# By default the JVM collects garbage to load classes, long before the heap is full.
CLASSES_OPTION = "-XX:MetaspaceSize=256m"
# The default collector works beside the program, which costs a twentieth of the processor time of a short job
# on two cores. In a heap of 1 GiB, Spark's default, the pauses of this one are short.
COLLECTOR_OPTION = "-XX:+UseParallelGC"
OF_JAVA = (
    "JDK_JAVA_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "SPARK_SUBMIT_OPTS",
    "PYSPARK_SUBMIT_ARGS",
)
"""Environment variables with options of Spark's JVM."""
CHOSEN = re.compile(r"Use\w*GC\b|-Xm|-XX:\S*Heap|driver[.-]memory|properties-file|@")
"""In options: a collector or a size of the heap, or a file that may name one."""


def java_options(settings: Mapping[str, str] | None = None) -> str:
    """Return the options of the JVM of a local session.

    Two collectors, or one made for another heap, would be wrong: the user's choice of either stands.

    Args:
        settings: Spark settings of the session that the user gives.
    """
    options = [COMPILER_OPTIONS, CLASSES_OPTION]
    if not any(CHOSEN.search(text) for text in _options_of_user(settings or {})):
        options.append(COLLECTOR_OPTION)
    return " ".join([*options, archive_options(archive_path())]).strip()


def _options_of_user(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield every text in which a user may have given options to Spark's JVM."""
    import pyspark

    yield from (f"{name} {value}" for name, value in settings.items())
    yield from (os.environ.get(name, "") for name in OF_JAVA)
    if "SPARK_DRIVER_MEMORY" in os.environ:
        yield "driver-memory"
    home = os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent
    folder = Path(os.environ.get("SPARK_CONF_DIR") or Path(home, "conf"))
    for name in ("spark-defaults.conf", "spark-env.sh"):
        if (folder / name).is_file():
            yield (folder / name).read_text(errors="replace")


def archive_path() -> Path | None:
    """Return the path of the archive for this Java and Spark, or None if Java or Spark is not found."""
    import pyspark

    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    if java is None:
        return None
    jars = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent, "jars")
    if not jars.is_dir():
        return None
    # An archive fits one Java program and one list of jars, so the file name depends on both.
    state = [(str(path), path.stat().st_mtime_ns) for path in (Path(java).resolve(), jars.resolve())]
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    return user_cache() / f"spark-{pyspark.__version__}-{key}.jsa"


def archive_options(archive: Path | None) -> str:
    """Return the JVM options to load classes from `archive`; empty if the file does not exist."""
    if archive is None or not archive.is_file() or " " in str(archive):
        return ""
    # An archive that does not fit must not cause an error or print a warning before the user's own output.
    return f"-XX:SharedArchiveFile={archive} -Xlog:cds=off -Xlog:cds+dynamic=off"
