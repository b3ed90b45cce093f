"""A pytest plugin that writes down how much of its tolerance each comparison uses, for `rounding.py`.

A comparison that passes tells nothing of the next processor. Where 0.4 of a tolerance is used here, and
0.0002 with older instructions, another's rounding errors may well use 3. So the share is kept, by line and
test, of `assert_allclose` and `approx`. `DISTKERAS_MARGINS` names the folder; each process writes a file of
its own.

With `DISTKERAS_NUDGED=1` Keras's own training, with which ours is compared, gets its data one unit in the
last place off. A well-conditioned comparison hardly notices.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(os.environ["DISTKERAS_MARGINS"])
HERE = str(Path(__file__).parent)
_used: dict[str, float] = {}


def pytest_configure() -> None:
    """Watch the comparisons."""
    scalar = sys.modules[pytest.approx.__module__].ApproxScalar
    scalar.__eq__ = _watching_approx(scalar.__eq__)
    np.testing.assert_allclose = _watching_allclose(np.testing.assert_allclose)


def pytest_collection_finish() -> None:
    """Nudge the data of Keras's training, where that is asked for."""
    if os.environ.get("DISTKERAS_NUDGED") == "1" and (keras := sys.modules.get("keras")):
        for cls in (keras.Model, keras.Sequential):
            for name in ("fit", "train_on_batch"):
                setattr(cls, name, _nudging(getattr(cls, name)))


def _nudging(train: Callable[..., Any]) -> Callable[..., Any]:
    def nudged(data: Any) -> Any:
        if isinstance(data, dict):
            return {name: nudged(part) for name, part in data.items()}
        if isinstance(data, np.ndarray) and data.dtype == np.float32 and data.size:
            if np.isin(data, (0, 1)).all():
                return data  # Labels: AUC takes any above 0 for a 1.
            ends = np.array([-np.inf, np.inf], np.float32)
            moved = np.nextafter(data, np.random.default_rng(9).choice(ends, data.shape))
            return np.clip(moved, data.min(), data.max())  # A probability stays one.
        return data

    def training(model: Any, *data: Any, **options: Any) -> Any:
        return train(model, *map(nudged, data), **options)

    return training


def pytest_unconfigure() -> None:
    """Write what was seen."""
    path = FOLDER / f"{os.environ.get('KERAS_BACKEND', 'jax')}-{os.getpid()}.json"
    path.write_text(json.dumps(_used))


def _watching_approx(equal: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def watching(expected: Any, actual: Any) -> bool:
        same = equal(expected, actual)
        if same and isinstance(actual, int | float | np.number):
            _note(abs(float(actual) - float(expected.expected)), expected.tolerance)
        return same

    return watching


def _watching_allclose(check: Callable[..., None]) -> Callable[..., None]:
    def watching(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, **options: Any) -> None:
        check(actual, desired, rtol, atol, **options)  # First: what fails, or must fail, has no margin.
        found, expected = np.broadcast_arrays(np.asarray(actual, float), np.asarray(desired, float))
        finite = np.isfinite(expected)
        _note(np.abs(found[finite] - expected[finite]), atol + rtol * np.abs(expected[finite]))

    return watching


def _note(distance: Any, tolerance: Any) -> None:
    """Keep the largest share of the tolerance, by the line in a test that asks."""
    distance, tolerance = np.atleast_1d(distance), np.atleast_1d(tolerance)
    off = distance != 0
    share = float(np.max(distance[off] / tolerance[off], initial=0.0))
    frame = sys._getframe(2)
    while frame.f_back and not frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" ")[0]
    place = f"{frame.f_code.co_filename.removeprefix(HERE)[1:]}:{frame.f_lineno} {test}"
    _used[place] = max(_used.get(place, 0.0), share)
