"""A function that is defined anew is the same; one that does something else is not."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

from distkeras.trainers.code import code_of

BASE = """
import functools
import numpy as np
SCALE, WORDS = 2.0, {"a": 1, "b": 2}
TABLE = np.arange(4)
class Cut:
    length = 3
    def __call__(self, rows):
        return rows[: self.length]
def inner(x):
    return x * SCALE
def made(k):
    return lambda columns: inner(columns["x"]) + k + TABLE
def again(columns, depth=1):
    return again(columns, 0) if depth else {w for w in ("a", "b", "c") if columns["w"] in {"a", "b", "c"}}
"""


def digest(source=BASE, expression="made(3)"):
    space = {"__name__": "notebook"}
    exec(compile(source, f"<cell {id(source)}>", "exec"), space)
    (found,) = code_of(preprocess=eval(expression, space)).values()
    return found


SAME = ("made(3)", "again", "Cut()", "functools.partial(inner, 3)", "Cut().__call__", "np.sum", "Cut")


@pytest.mark.parametrize("expression", SAME)
def test_a_function_that_is_defined_anew_elsewhere_is_the_same(expression):
    assert digest(expression=expression) == digest("\n\n# Another cell.\n" + BASE, expression)


def test_another_process_with_other_hashes_has_the_same_digests():
    code = f"import sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r}); import test_code; "
    code += "print(*(test_code.digest(expression=name) for name in test_code.SAME))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [digest(expression=name) for name in SAME]


@pytest.mark.parametrize(
    ("old", "new", "expression"),
    [
        ("+ k +", "- k +", "made(3)"),
        ("SCALE, WORDS = 2.0", "SCALE, WORDS = 3.0", "made(3)"),
        ("x * SCALE", "x / SCALE", "made(3)"),
        ("np.arange(4)", "np.ones(4)", "made(3)"),
        ("made(k)", "made(k)", "made(4)"),
        ("depth=1", "depth=2", "again"),
        ('"c"}', '"d"}', "again"),
        ("length = 3", "length = 4", "Cut()"),
        ("rows[:", "rows[-", "Cut()"),
        ("", "", "functools.partial(inner, 4)"),
    ],
)
def test_a_function_that_does_something_else_differs(old, new, expression):
    base = {"made(4)": "made(3)", "functools.partial(inner, 4)": "functools.partial(inner, 3)"}
    assert digest(BASE.replace(old, new), expression) != digest(expression=base.get(expression, expression))


def test_what_is_cached_is_looked_into_and_no_function_has_no_digest():
    def one(columns):
        return columns["x"]

    def other(columns):
        return columns["x"] + np.float32(1)

    cached = [code_of(preprocess=functools.lru_cache(each)) for each in (one, other)]
    assert cached[0] != cached[1]
    assert code_of(preprocess=None) == {}
