"""Hosts of their own on one machine: network namespaces with a router between them that drops packets.

A namespace belongs to a process that sleeps: with the test, also one that is killed, all of it is gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Self

from running import Host, Program

NAMES = ("driver", "master", "executor-a", "executor-b")
ROUTER = "router"
TOOLS = ("ip", "tc", "unshare", "nsenter", "setpriv")
SUBNET = "10.77"


def why_not() -> str | None:
    """Return why this machine can have no such hosts; None if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Namespaces:
    """Four hosts with names and addresses, and a router that all their packets pass.

    The hosts are `driver`, `master`, `executor-a` and `executor-b`; they know each other by these names.
    What is closed is closed silently: packets are dropped, and nobody is told.

    Args:
        folder: gets logs and the hosts' /etc/hosts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._rules: list[list[str]] = []
        self._limited: set[str] = set()
        hosts = folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{self.address(name)} {name}" for name in NAMES)]
        hosts.write_text("".join(f"{line}\n" for line in lines))
        with self._stack:
            self._router = self._sleeper(ROUTER, hosts)
            self._run(self._router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
            self._hosts = {name: self._sleeper(name, hosts) for name in NAMES}
            for name in NAMES:
                self._connect(name)
            self._stack = self._stack.pop_all()

    def __getitem__(self, name: str) -> Host:
        """Return the host of this name, for programs to run there."""
        return self._hosts[name]

    @staticmethod
    def address(name: str) -> str:
        """Return a host's address."""
        return f"{SUBNET}.{NAMES.index(name)}.2"

    def close(self, port: int | tuple[int, int] | None, source: str, to: str) -> None:
        """Drop what `source` sends to a port of `to`, to a range of ports, or, without a port, to all.

        Answers of `to` from this port pass, and so does what `to` sends to the same port of `source`.
        """
        ports = [] if port is None else ["ipproto", "tcp", "dport", _range(port)]
        self._rule(["iif", _interface(source), "to", self.address(to), *ports, "blackhole"])

    def close_all_but(self, ports: tuple[int, ...], to: str) -> None:
        """Drop what anybody sends to a port of `to` below 32768 that is not among `ports`: a firewall.

        The ports above are those from which `to` connects to others.
        """
        edges = [0, *sorted(ports), 32768]
        for low, high in pairwise(edges):
            if low + 1 < high:
                closed = ["ipproto", "tcp", "dport", _range((low + 1, high - 1))]
                self._rule(["to", self.address(to), *closed, "blackhole"])

    def cut(self, name: str) -> None:
        """Drop all that a host sends or is sent, until `restore`."""
        for rule in _cutting(name):
            self._rule(rule)

    def restore(self, name: str) -> None:
        """Put a host on the network again."""
        for rule in _cutting(name):
            self._rules.remove(rule)
            self._run(self._router, "ip", "rule", "del", *rule)

    def limit(self, name: str, mbit: float) -> None:
        """Limit what a host sends, and what it receives, to `mbit` megabits a second each."""
        rate = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "64kb", "latency", "100ms"]
        self._run(self._hosts[name], "tc", "qdisc", "replace", "dev", "eth0", *rate)
        self._run(self._router, "tc", "qdisc", "replace", "dev", _interface(name), *rate)
        self._limited.add(name)

    def hide(self, folder: Path, name: str) -> None:
        """Let a host see an empty folder in the place of this one, for as long as there is this network."""
        self._run(self._hosts[name], "mount", "-t", "tmpfs", "none", str(folder))

    def undo(self) -> None:
        """Open what is closed or cut, lift the limits."""
        while self._rules:
            self._run(self._router, "ip", "rule", "del", *self._rules.pop())
        for name in sorted(self._limited):
            self._run(self._hosts[name], "tc", "qdisc", "del", "dev", "eth0", "root")
            self._run(self._router, "tc", "qdisc", "del", "dev", _interface(name), "root")
        self._limited.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _rule(self, rule: list[str]) -> None:
        self._run(self._router, "ip", "rule", "add", *rule)
        self._rules.append(rule)

    def _sleeper(self, name: str, hosts: Path) -> Host:
        """Start the process to which a host's namespaces belong."""
        setup = 'hostname "$0" && mount --bind "$1" /etc/hosts && ip link set lo up'
        sleep = f"{setup} && echo ready && exec sleep infinity"
        alone = ("unshare", "--net", "--uts", "--mount", "sh", "-c", sleep, name, hosts)
        program = self._stack.enter_context(Program(alone, self._folder / f"{name}.log"))
        program.wait_for("ready", 10)
        # In full: a program's own PATH may lack it.
        enter = (shutil.which("nsenter") or "nsenter", "--target", str(program.pid))
        address = self.address(name) if name in NAMES else ""
        return Host(name, address, (*enter, "--net", "--uts", "--mount"))

    def _connect(self, name: str) -> None:
        """Lay a cable between a host and the router."""
        host, interface, at_router = self._hosts[name], _interface(name), f"{SUBNET}.{NAMES.index(name)}.1"
        peer = ("peer", "name", "eth0", "netns", host.prefix[2])
        self._run(self._router, "ip", "link", "add", interface, "type", "veth", *peer)
        self._run(self._router, "ip", "addr", "add", f"{at_router}/24", "dev", interface)
        self._run(self._router, "ip", "link", "set", interface, "up")
        self._run(host, "ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        self._run(host, "ip", "link", "set", "eth0", "up")
        self._run(host, "ip", "route", "add", "default", "via", at_router)

    @staticmethod
    def _run(host: Host, *command: str) -> None:
        subprocess.run([*host.prefix, *command], check=True, timeout=10)


def _cutting(name: str) -> tuple[list[str], list[str]]:
    return ["iif", _interface(name), "blackhole"], ["to", Namespaces.address(name), "blackhole"]


def _interface(name: str) -> str:
    return f"to-{name}"


def _range(port: int | tuple[int, int]) -> str:
    return str(port) if isinstance(port, int) else f"{port[0]}-{port[1]}"
