"""What a job server allows."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What a job server allows.

    Attributes:
        running: jobs at once.
        queued: jobs that wait.
        upload_bytes: bytes of one archive.
        unpacked_bytes: bytes of its files.
        log_bytes: bytes of a job's log; of what comes after them, the last 64 KiB are kept.
        kept: jobs that have ended. The oldest beyond them are removed, with their folders.
        grace: seconds that a job has to end by itself: from SIGINT to its driver, to SIGTERM to all of its
            processes. SIGKILL follows after as long, 10 s at most.

    Raises:
        ValueError: a limit is not positive.
    """

    running: int = 1
    queued: int = 100
    upload_bytes: int = 64 * 1024 * 1024
    unpacked_bytes: int = 256 * 1024 * 1024
    log_bytes: int = 64 * 1024 * 1024
    kept: int = 200
    grace: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value < (0 if each.name == "grace" else 1):
                raise ValueError(f"Expected a positive number. Received: {each.name}={value!r}")
