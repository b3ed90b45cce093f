"""Spark's Java classes, kept in one file for the next local session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from starting import CLASS_ARCHIVE

from distkeras import class_archive as archives
from distkeras.class_archive import make_class_archive
from distkeras.jvm import archive_options, archive_path

# Prints whether the session's JVM has mapped an archive of the folder, and a sum that Spark computed.
SESSION = """
import os
from pathlib import Path
from distkeras.cluster.session import local_session

spark = local_session(1)
java = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
maps = Path(f"/proc/{java}/maps").read_text()
print(os.environ["XDG_CACHE_HOME"] in maps, spark.range(10).agg({"id": "sum"}).first()[0])
"""


def session_in(cache: Path) -> list[str]:
    """Run a local session in a process of its own; return what it prints."""
    command = [sys.executable, "-c", SESSION]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return run.stdout.split()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Return the user's cache folder, empty; a JVM has none of the options of the other tests."""
    monkeypatch.delenv("JDK_JAVA_OPTIONS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_session_takes_its_classes_from_the_archive(cache, monkeypatch):
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")  # It does not matter to classes.
    assert archive_path().parent == cache / "distkeras"
    archive = make_class_archive()
    assert archive == archive_path()
    assert list(archive.parent.iterdir()) == [archive]  # What it took to make it is gone.
    assert session_in(cache) == ["True", "45"]
    keep(archive)


def keep(archive: Path) -> None:
    """Give the archive to the JVMs of the tests after this one: see starting.py."""
    CLASS_ARCHIVE.parent.mkdir(exist_ok=True)
    part = CLASS_ARCHIVE.with_suffix(f".{os.getpid()}")
    shutil.copy(archive, part)
    part.replace(CLASS_ARCHIVE)  # A JVM that starts now sees the old one or the new one.


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000])
def test_an_archive_that_does_not_fit_is_ignored_without_a_word(cache, content):
    archive = archive_path()
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    options = archive_options(archive).split()
    assert f"-XX:SharedArchiveFile={archive}" in options
    version = subprocess.run(["java", *options, "--version"], capture_output=True, text=True, check=True)
    plain = subprocess.run(["java", "--version"], capture_output=True, text=True, check=True)
    assert [line.replace(", sharing", "") for line in version.stdout.splitlines()] == [
        line.replace(", sharing", "") for line in plain.stdout.splitlines()
    ]
    assert version.stderr == ""


def test_without_an_archive_there_are_no_options(cache):
    assert archive_options(archive_path()) == ""
    assert archive_options(None) == ""


def test_a_folder_whose_name_would_break_spark_s_options_is_left_alone(tmp_path):
    archive = tmp_path / "a b.jsa"
    archive.touch()
    assert archive_options(archive) == ""


def test_another_java_and_another_spark_have_archives_of_their_own(cache, tmp_path, monkeypatch):
    mine = archive_path()
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    shutil.copy("/bin/true", java)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    other = archive_path()
    (tmp_path / "spark" / "jars").mkdir(parents=True)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    assert len({mine, other, archive_path()}) == 3


def test_without_java_it_says_what_was_expected(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert archive_path() is None
    with pytest.raises(RuntimeError, match="Expected Java 17 or newer"):
        make_class_archive()


def test_a_jvm_that_writes_nothing_is_an_error_with_its_output(cache, monkeypatch):
    monkeypatch.setattr(archives.sys, "executable", "/bin/echo")
    with pytest.raises(RuntimeError, match=r"did not write the archive(?s:.*)--record"):
        make_class_archive()
    assert list((cache / "distkeras").iterdir()) == []
