"""Profiles: the places where a user runs jobs, in `~/.config/distkeras/config.toml`."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

EngineName = Literal["spark-submit", "kubernetes", "kyuubi", "connect", "server"]


class ProfileError(ValueError):
    """The configuration, or a file that it names, is not as it must be. The message names the place."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A place where jobs run.

    Attributes:
        engine: what runs them.
        master: for "spark-submit": address of the master, such as "spark://host:7077", "yarn", "local[4]".
        deploy_mode: for "spark-submit": where the driver runs: "client" for this machine, "cluster" for the
            cluster (YARN and Kubernetes).
        url: for "kyuubi" and "server": address; for "connect": "sc://host:15002".
        token_file: for "kyuubi" and "server": file with the token or password, of mode 0600.
        user: for "kyuubi": the user's name, if it asks for a password rather than a token.
        ca_file: for "kyuubi" and "server": certificate to trust besides those of the system.
        allow_http: send the token without encryption to another machine. Default: refuse.
        image: for "kubernetes": image of driver and executors.
        namespace: for "kubernetes": the namespace.
        context: for "kubernetes": the context of `kubectl`. Default: the present one.
        service_account: for "kubernetes": service account of the driver.
        executors: for "kubernetes": number of executors.
        cores: for "kubernetes": cores of each executor.
        memory: for "kubernetes": memory of driver and of each executor, as Spark writes it: "2g".
        python: Python of driver and executors. Default: what Spark is configured with.
        conf: Spark settings of all jobs.
        environment: variables of the driver's environment.
    """

    engine: EngineName = "spark-submit"
    master: str | None = None
    deploy_mode: Literal["client", "cluster"] = "client"
    url: str | None = None
    token_file: str | None = None
    user: str | None = None
    ca_file: str | None = None
    allow_http: bool = False
    image: str | None = None
    namespace: str = "default"
    context: str | None = None
    service_account: str | None = None
    executors: int = 2
    cores: int = 1
    memory: str = "2g"
    python: str | None = None
    conf: dict[str, str] = {}
    environment: dict[str, str] = {}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The user's configuration.

    Attributes:
        default: the profile that is taken where none is named.
        profiles: the profiles by name. "local" exists without being written: `spark-submit` on `local[*]`.
    """

    default: str = "local"
    profiles: dict[str, Profile] = {}

    def profile(self, name: str | None = None) -> Profile:
        """Return a profile by name, or the default one.

        Raises:
            ProfileError: there is none of this name.
        """
        name = name or self.default
        if name in self.profiles:
            return self.profiles[name]
        if name == "local":
            return Profile(master="local[*]")
        known = sorted({"local", *self.profiles})
        raise ProfileError(f"Expected a profile of {config_file()}: {known}. Received: profile={name!r}")


def config_home() -> Path:
    """Return the folder of the user's configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "distkeras"


def config_file() -> Path:
    """Return the file of the user's configuration."""
    return config_home() / "config.toml"


def read_config(path: Path | None = None) -> Config:
    """Return the user's configuration; the default one if there is no file.

    Raises:
        ProfileError: the file is not as it must be. The message names the place.
    """
    path = path or config_file()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Config)
    except FileNotFoundError:
        return Config()
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise ProfileError(f"{path}: {error}") from error


def read_token(path: str | Path) -> str:
    """Return the token in a file.

    Raises:
        ProfileError: there is no such file, others may read it, or it is empty.
    """
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"Expected a file with a token. Received: {path}: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ProfileError(
            f"Expected a file that only you can read, since it holds a token: `chmod 600 {path}`. "
            f"Received: mode {stat.S_IMODE(mode):04o}"
        )
    if not token or not token.isprintable() or " " in token:
        raise ProfileError(f"Expected a file with one token of printable letters. Received: {path}")
    return token


def check_url(url: str | None, *, has_token: bool, allow_http: bool) -> str:
    """Return the address of a service, without a "/" at its end.

    Raises:
        ProfileError: there is none; it is not of HTTP; or a token would travel to another machine in the
            clear.
    """
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProfileError(f"Expected an address, such as https://host:10099. Received: url={url!r}")
    if parts.scheme == "http" and has_token and not allow_http and not _is_here(parts.hostname):
        raise ProfileError(
            "Expected https, since a token travels to another machine. Set `allow_http = true` in the "
            f"profile if the network is closed to others. Received: url={url!r}"
        )
    return (url or "").rstrip("/")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
