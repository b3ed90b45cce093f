"""Findings about a training or a cluster, in the order to fix them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]
SIGNS: dict[str, str] = {"ok": "✓", "warning": "!", "error": "✗"}


class NotReady(RuntimeError):
    """A training would fail; the message says at what, and how to fix it."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: "ok"; "warning", if a training may work all the same; "error", if it would fail.
        about: what was checked, in a word or two, such as "Java".
        what: what was found, in a sentence or more.
        fix: how to fix it; empty if `what` says it, or if there is nothing to do.
    """

    level: Level
    about: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{SIGNS[self.level]} {self.about}: {' '.join(part for part in (self.what, self.fix) if part)}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one examination: errors first, in the order to fix them.

    Attributes:
        findings: the findings, in the order of the checks. A check that needs what is broken was left out.
    """

    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be fixed, in the order to do so."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may be in the way."""
        return self._of("warning")

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings do not count."""
        return not self.errors

    def raise_if_bad(self) -> None:
        """Raise NotReady with all errors, if there are any."""
        if not self.ok:
            raise NotReady("\n".join(map(str, self.errors)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: `{"ok": bool, "findings": [{"level", "about", "what", "fix"}, ...]}`."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def __str__(self) -> str:
        rest = self._of("ok")
        lines = [str(finding) for finding in (*self.errors, *self.warnings, *rest)]
        counts = {"error": len(self.errors), "warning": len(self.warnings), "check": len(rest)}
        last = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items()) + " passed."
        return "\n".join([*lines, last])

    __repr__ = __str__

    def _of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)
