"""Options of the JVM of a local session: our choice of the collector never meets one of the user's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distkeras.jvm import COLLECTOR_OPTION, OF_JAVA, java_options

# Prints the collectors of the session's JVM, and a sum that Spark computed.
SESSION = """
import sys
from distkeras.cluster.session import local_session

settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
spark = local_session(1, **settings)
beans = spark.sparkContext._jvm.java.lang.management.ManagementFactory.getGarbageCollectorMXBeans()
print([bean.getName() for bean in beans], spark.range(10).agg({"id": "sum"}).first()[0])
"""


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    """Remove what the tests themselves give to every JVM, and what the machine may."""
    for name in (*OF_JAVA, "SPARK_DRIVER_MEMORY", "SPARK_CONF_DIR", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)


def collectors_of(*settings: str) -> str:
    command = [sys.executable, "-c", SESSION, *settings]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_session_of_the_default_size_collects_in_pauses():
    assert collectors_of() == "['PS MarkSweep', 'PS Scavenge'] 45\n"


def test_a_user_s_collector_stands_whether_it_is_a_setting_an_option_of_java_or_in_a_file(
    tmp_path, monkeypatch
):
    option = "-XX:+UseSerialGC"
    serial = "['Copy', 'MarkSweepCompact'] 45\n"
    assert collectors_of(f"spark_driver_extraJavaOptions={option}") == serial
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "spark-defaults.conf").write_text(f"spark.driver.extraJavaOptions {option}\n")
    assert collectors_of() == serial
    (tmp_path / "spark-defaults.conf").unlink()
    monkeypatch.setenv("JDK_JAVA_OPTIONS", option)
    assert collectors_of() == serial


@pytest.mark.parametrize(
    "settings",
    [
        {"spark.driver.memory": "8g"},
        {"spark.driver.extraJavaOptions": "-Dx=1 -XX:+UseZGC"},
        {"spark.driver.extraJavaOptions": "-XX:MaxHeapFreeRatio=70"},
    ],
)
def test_settings_of_a_user_that_choose(settings):
    assert COLLECTOR_OPTION not in java_options(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "-XX:+UseG1GC") for name in OF_JAVA),
        ("JDK_JAVA_OPTIONS", "-Xmx4g"),
        ("JDK_JAVA_OPTIONS", "@options"),
        ("PYSPARK_SUBMIT_ARGS", "--driver-memory 4g pyspark-shell"),
        ("PYSPARK_SUBMIT_ARGS", "--properties-file my.conf pyspark-shell"),
        ("SPARK_DRIVER_MEMORY", "4g"),
    ],
)
def test_an_environment_that_chooses(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert COLLECTOR_OPTION not in java_options()


@pytest.mark.parametrize("name", ["spark-defaults.conf", "spark-env.sh"])
@pytest.mark.parametrize("variable", ["SPARK_CONF_DIR", "SPARK_HOME"])
def test_a_file_of_settings_that_chooses(name, variable, tmp_path, monkeypatch):
    folder = tmp_path if variable == "SPARK_CONF_DIR" else tmp_path / "conf"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv(variable, str(tmp_path))
    (folder / name).write_text("spark.executor.memory 4g\n")
    assert COLLECTOR_OPTION in java_options()
    (folder / name).write_text("SPARK_DRIVER_MEMORY=4g\nspark.driver.memory 4g\n")
    assert COLLECTOR_OPTION not in java_options()


def test_other_settings_do_not_choose(monkeypatch):
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Dsome=thing -XX:TieredStopAtLevel=1")
    assert COLLECTOR_OPTION in java_options({"spark.executor.memory": "4g", "spark.task.cpus": "2"})
    assert os.environ["JDK_JAVA_OPTIONS"] not in java_options()
