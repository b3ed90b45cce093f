"""Options of a local session's JVM, by which it starts fast and leaves the processor to the workers.

Where `distkeras.class_archive` has made an archive of Spark's Java classes, the JVM loads them from it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

__all__ = ["archive_options", "archive_path", "java_options"]

# The JVM's second compiler takes seconds of processor time in the first minute, which the workers on the same
# cores need: it is to compile only what runs ten times as often as by default, as long jobs do all the same.
COMPILER_OPTIONS = "-XX:+IgnoreUnrecognizedVMOptions " + " ".join(
    f"-XX:Tier4{name}={count}"
    for name, count in (
        ("InvocationThreshold", 50_000),
        ("MinInvocationThreshold", 6_000),
        ("CompileThreshold", 150_000),
        ("BackEdgeThreshold", 400_000),
    )
)


def java_options() -> str:
    """Return the options of the JVM of a local session."""
    return f"{COMPILER_OPTIONS} {archive_options(archive_path())}".strip()


def archive_path() -> Path | None:
    """Return where the archive for this Java and Spark belongs; `None` where one of them is not found."""
    import pyspark

    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    if java is None:
        return None
    jars = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent, "jars")
    if not jars.is_dir():
        return None
    # A java program and a list of jars have an archive of their own: when one changes, it no longer fits.
    state = [(str(path), path.stat().st_mtime_ns) for path in (Path(java).resolve(), jars.resolve())]
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distkeras"
    return folder / f"spark-{pyspark.__version__}-{key}.jsa"


def archive_options(archive: Path | None) -> str:
    """Return options of a JVM that loads its classes from `archive`, if there is one; else none."""
    if archive is None or not archive.is_file() or " " in str(archive):
        return ""
    # An archive that does not fit is no reason to fail, nor to print a warning before the user's own output.
    return f"-XX:SharedArchiveFile={archive} -Xlog:cds=off -Xlog:cds+dynamic=off"
