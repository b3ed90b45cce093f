"""An archive of Spark's Java classes in their in-memory form. With it, a local session starts twice as fast.

`python -m distkeras.class_archive` creates the file, once per installation of Java and Spark: 190 MB in the
user's cache folder, `~/.cache/distkeras` unless XDG_CACHE_HOME is set. `local_session` uses the file if it
exists; a JVM that it does not fit ignores it. Without it, every JVM reads, verifies and links about 20,000
classes, on all cores, for seconds. Java calls this class data sharing (JEP 350).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from distkeras.cluster.session import local_session
from distkeras.jvm import archive_path

__all__ = ["make_class_archive"]

LIMIT = 300.0
"""Seconds that the JVM may take to write the file."""


def make_class_archive() -> Path:
    """Run Spark on the jobs of a training, archive the classes that it loads, and return the file.

    This takes less than a minute.

    Raises:
        RuntimeError: there is no Java, or the JVM did not write the file.
    """
    archive = archive_path()
    if archive is None:
        raise RuntimeError(
            "Expected Java 17 or newer, at JAVA_HOME or on the PATH, and the jars of Spark, at SPARK_HOME "
            "or in the package pyspark. Received: not both."
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        # In a new process, because this one may already have a JVM. Its output ends when its JVM has ended.
        fresh = Path(folder) / "classes.jsa"
        command = [sys.executable, "-m", "distkeras.class_archive", "--record", str(fresh)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        if run.returncode or not fresh.is_file():
            raise RuntimeError(f"The JVM did not write the archive of its classes:\n{run.stderr}{run.stdout}")
        fresh.replace(archive)
    return archive


def _record(archive: str) -> None:
    """Run a session that loads the classes of a training's jobs; its JVM writes them to `archive` at exit."""
    # These options replace those that use an existing archive, since a JVM that uses one cannot write one.
    # Logging is off, because the JVM prints hundreds of warnings about classes that cannot be archived.
    recording = f"-XX:ArchiveClassesAtExit={archive} -Xlog:disable"
    spark = local_session(2, spark_driver_defaultJavaOptions=recording)
    rows = spark.range(2000).selectExpr("array(cast(id AS float)) AS features", "cast(id AS int) AS label")
    table = os.path.join(os.path.dirname(archive), "rows")
    rows.write.parquet(table)
    cached = spark.read.parquet(table).repartition(2).cache()
    cached.groupBy("label").count().agg({"count": "max"}).collect()
    cached.mapInArrow(lambda batches: batches, cached.schema).collect()
    cached.mapInArrow(lambda batches: batches, cached.schema, barrier=True).repartition(1).collect()
    cached.toArrow()
    spark.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        _record(sys.argv[2])
    else:
        print("Spark's classes are in", make_class_archive())
