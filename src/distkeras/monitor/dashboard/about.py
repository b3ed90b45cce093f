"""What a run says of itself, as the page shows it: in one form for trainings and simulations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distkeras.runs.facts import RESULT, json_of, read_facts
from distkeras.runs.folder import Folder, RunError
from distkeras.wire.lease import find_holder

MOST_SETTINGS = 400


def about_run(folder: Folder) -> dict[str, Any]:
    """Return the facts of the run in a folder. `error` says what is wrong with a run that cannot be read."""
    try:
        facts = read_facts(folder)
        if facts is None:
            return {"error": "There is no run here: run.json is missing."}
        result = json_of(folder, RESULT)
        holder = None if result is not None else find_holder(folder.fs, folder.path)
    except RunError as error:
        return {"error": str(error)}
    except (ValueError, OSError) as error:
        return {"error": f"The run cannot be read: {error}"}
    sessions = [each for each in facts.get("sessions", ()) if isinstance(each, Mapping)]
    settings = facts.get("settings") or {}
    status = "finished" if result is not None else "interrupted" if holder is None else "running"
    return {
        "error": None,
        "status": status,
        "holder": None if holder is None else str(holder),
        "result": result,
        "settings": dict(list(flattened(settings))[:MOST_SETTINGS]),
        "sessions": [_session(each) for each in sessions],
        **_outline(settings, sessions),
    }


def _outline(settings: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what heads a run: its rule, its size, its beginning.

    `rows` are those of an epoch of the center, the mean if epochs differ; `first` is the number of the run's
    first epoch.
    """
    session = sessions[-1] if sessions else {}
    facts = session.get("facts") or {}
    first = (sessions[0].get("facts") or {}) if sessions else {}
    each = facts.get("epoch_rows")
    rows = sum(each) // len(each) if isinstance(each, list) and each else None
    rule = settings.get("algorithm") or {}
    rule = rule if isinstance(rule, Mapping) else {"name": str(rule)}
    trainer = facts.get("trainer")
    return {
        # A DistributedTrainer takes any rule: its own name says nothing.
        "rule": rule.get("name") if trainer in (None, "DistributedTrainer") else trainer,
        "algorithm": rule.get("name"),
        "workers": settings.get("num_workers"),
        "rows": _count(rows, settings.get("num_rows")),
        "epochs": _count(facts.get("epochs"), settings.get("num_epoch")),
        "first": _count(first.get("first_epoch")) or 0,
        "batch_size": settings.get("batch_size"),
        "backend": facts.get("backend") or settings.get("backend"),
        "simulation": bool(facts.get("simulation")),
        "began": sessions[0].get("began") if sessions else None,
        "spark": facts.get("spark") if isinstance(facts.get("spark"), Mapping) else None,
    }


def _count(*values: Any) -> int | None:
    """Return the first of some values that is a number."""
    return next((int(value) for value in values if isinstance(value, int | float) and value), None)


def _session(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return one driver's part in a run."""
    plain = {name: session.get(name) for name in ("began", "host", "pid", "source", "epochs", "versions")}
    return plain | {"facts": dict(list(flattened(session.get("facts") or {}))[:MOST_SETTINGS])}


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the parts of nested settings with names such as "algorithm.rho"; long lists as one text."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flattened(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        text = ", ".join(map(str, value))
        yield name, text if len(text) <= 200 else f"{text[:200]}… ({len(value)} parts)"
    else:
        yield name, value


def seconds_of_silence(newest: float | None, simulation: bool) -> float | None:
    """Return how long a run has written nothing; `None` where the clock is a virtual one."""
    return None if newest is None or simulation else max(0.0, time.time() - newest)
