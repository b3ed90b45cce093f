"""The ratios that README.md and docs claim, and whether measured ones agree with them.

Each stands once in claims.toml. tests/benchmarks/test_claims.py compares them with the pages, and `quick.py`
compares them with what it measures.
"""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recording

FILE = Path(__file__).with_name("claims.toml")
TOLERANCE = 0.15
"""How far a ratio may lie outside of the measured ones, as a share of these."""


@dataclass(frozen=True)
class Claim:
    """A ratio that a page claims.

    Attributes:
        name: which ratio.
        page: path of the page in the repository.
        text: the page's words, with the value in them.
        value: the ratio.
        record: in place of `text` and `value`: the name of the record that the page is written from.
        figures: the two figures in this record whose ratio is claimed, as keys with dots between them.
        ratio: name of the ratio that `quick.py` measures.
        command: in place of `ratio`: what measures it.
        tolerance: share of the measured ratios.
    """

    name: str
    page: str
    text: str = ""
    value: float | None = None
    record: str = ""
    figures: tuple[str, ...] = ()
    ratio: str = ""
    command: str = ""
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        literal = bool(self.text) and self.value is not None and not self.record
        recorded = bool(self.record) and len(self.figures) == 2 and not self.text and self.value is None
        if literal == recorded:
            raise ValueError(
                f"Expected either `text` and `value`, or `record` and two `figures`. Received: {self}"
            )
        if bool(self.ratio) == bool(self.command):
            raise ValueError(f"Expected either `ratio` or `command`. Received: {self}")

    def claimed(self, read: Callable[[str], dict[str, Any]] = recording.read) -> float:
        """Return the ratio that the page claims."""
        if self.value is not None:
            return self.value
        record = read(self.record)
        above, below = (_figure(record, path) for path in self.figures)
        return above / below

    def holds(
        self, measured: Sequence[float], read: Callable[[str], dict[str, Any]] = recording.read
    ) -> bool:
        """Return whether the claim lies within the measured ratios, or nearly so."""
        least, most = min(measured) * (1 - self.tolerance), max(measured) * (1 + self.tolerance)
        return least <= self.claimed(read) <= most


def _figure(record: dict[str, Any], path: str) -> float:
    found: Any = record
    for key in path.split("."):
        if not isinstance(found, dict) or key not in found:
            raise LookupError(f"Expected the record to have the figure {path!r}. Received: none at {key!r}.")
        found = found[key]
    return float(found)


def read(path: Path = FILE) -> list[Claim]:
    """Return all claims."""
    return [
        Claim(**row | {"figures": tuple(row.get("figures", ()))})
        for row in tomllib.loads(path.read_text())["claim"]
    ]


def verdicts(measured: Mapping[str, Sequence[float]], claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return a row for each claim: what is claimed, what was measured, and whether the claim holds.

    Args:
        measured: the values of each ratio.
        claims: to be judged.
    """
    rows = []
    for claim in claims:
        values = measured.get(claim.ratio, ())
        row: dict[str, Any] = {"claim": claim.name, "page": claim.page, "claimed": round(claim.claimed(), 2)}
        if values:
            row["measured"] = spread(values)
        rows.append(row | {"holds": claim.holds(values) if values else None})
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 3) for name, value in found.items()}
