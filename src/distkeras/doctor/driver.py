"""What can be known of the driver's machine without Spark: Java, packages, and the address of the master."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from distkeras.cluster import executor_side
from distkeras.doctor.diagnosis import Finding
from distkeras.wire.reachability import connector

JAVA = 17
"""Least version of Java that Spark 4 runs on."""

JAVA_SECONDS = 30.0
CONNECT_SECONDS = 5.0
PYTHON = (3, 11)
PACKAGES = ("keras", "pyspark", "pyarrow", "numpy", "cloudpickle", "msgspec", "fsspec")
BACKENDS = ("jax", "tensorflow", "torch")


def check_java() -> Finding:
    """Find Java, and whether it is new enough for Spark."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java") if home else "java")
    where = f"JAVA_HOME={home}" if home else "the PATH"
    mend = f"Install Java {JAVA} or later (for example openjdk-17-jre-headless), and set JAVA_HOME to it."
    if java is None:
        return Finding("error", "Java", f"Expected Java {JAVA} or later. Received: none in {where}.", mend)
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=JAVA_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("error", "Java", f"{java} does not run: {error}.", mend)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    if found is None:
        what = f"{java} does not print its version: {(told.stderr + told.stdout).strip()[:200]!r}."
        return Finding("error", "Java", what, mend)
    if int(found[1]) < JAVA:
        what = f"Expected Java {JAVA} or later. Received: {java} of version {found[1]}."
        return Finding("error", "Java", what, mend)
    return Finding("ok", "Java", f"{java}, version {found[1]}")


def check_python() -> Finding:
    """Say whether this Python is new enough."""
    found = f"{sys.executable}, version {sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info < PYTHON:
        return Finding("error", "Python", f"Expected Python 3.11 or later. Received: {found}.")
    return Finding("ok", "Python", found)


def check_packages(backend: str) -> list[Finding]:
    """Look for the packages that a driver needs, without importing them.

    Args:
        backend: the Keras backend.
    """
    if backend not in BACKENDS:
        known = ", ".join(BACKENDS)
        what = f"Expected one of {known}. Received: backend={backend!r}."
        return [Finding("error", "backend", what, "Set KERAS_BACKEND, or `backend` in ~/.keras/keras.json.")]
    missing = [name for name in (*PACKAGES, backend) if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{', '.join(missing)} missing in {sys.executable}."
        return [Finding("error", "packages", what, f"pip install 'distkeras[{backend}]'")]
    versions = ", ".join(f"{name} {version_of(name)}" for name in ("keras", backend, "pyspark", "pyarrow"))
    return [Finding("ok", "packages", versions)]


def version_of(name: str) -> str:
    """Return the version of an installed package, or of its build for processors alone."""
    return executor_side.version_of(name) or "of unknown version"


def check_address(address: str) -> Finding:
    """Try to connect to a master or a Spark Connect server: Spark itself tries for a minute and longer.

    Args:
        address: such as "spark://host:7077", "sc://host:15002", "k8s://https://host:6443" or "local[2]".
    """
    if address.split("[")[0] in ("local", "local-cluster"):
        return Finding("ok", "master", address)
    if address == "yarn":
        return _check_yarn()
    kind, _, rest = address.partition("://")
    known = ("spark", "sc", "k8s")
    if kind not in known or not rest:
        what = f"Expected local[N], yarn, or an address such as spark://host:7077. Received: {address}."
        return Finding("error", "master", what)
    faults = []
    # A standalone cluster may have several masters, of which one is active.
    hosts = rest.split(",") if kind == "spark" else [rest.removeprefix("https://").removeprefix("http://")]
    for host in hosts:
        fault = _fault_of(f"//{host}", {"spark": 7077, "sc": 15002, "k8s": 443}[kind])
        if fault is None:
            return Finding("ok", "master", address)
        faults.append(f"{host}: {fault}")
    what = f"Expected something that listens at {address}. Received: {'; '.join(faults)}."
    mend = "Start it, or use the address from its log or web page. Check the firewalls in between."
    return Finding("error", "master", what, mend)


def _fault_of(address: str, port: int) -> str | None:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or port
    except ValueError as error:  # A port that is no number.
        return str(error)
    (fault,) = connector([(host, port)], CONNECT_SECONDS)()
    return fault.removesuffix(" there") or None


def _check_yarn() -> Finding:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        folder = os.environ.get(name)
        if folder and Path(folder, "yarn-site.xml").is_file():
            return Finding("ok", "master", f"yarn, configured in {folder}")
    what = "Expected yarn-site.xml in HADOOP_CONF_DIR or YARN_CONF_DIR. Received: none."
    mend = "Set HADOOP_CONF_DIR to the folder with the cluster's configuration."
    return Finding("error", "master", what, mend)
