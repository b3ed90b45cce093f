"""Rows of different lengths, filled up to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SHORTEST = 8
"""The least length to which the rows of a minibatch are filled up where nothing says another."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Padding:
    """To what length rows are filled up, and with what.

    Columns of the same padding get one length in each minibatch, so that inputs and labels of a step agree.
    A model is compiled once for every length: with `to` there is one; with `buckets` at most as many as are
    given; else, for rows of up to n steps, at most `max(1, ceil(log2(n / 8)) + 1)`. The last minibatch of an
    epoch, which may have fewer rows, at most doubles that; `drop_remainder=True` leaves it out.

    Args:
        to: the length of every row. Default: that of the longest row of the minibatch, rounded up.
        buckets: lengths to round up to, in ascending order. Default: powers of two, from 8.
        truncate: cut longer rows at the end to `to`, or to the last bucket. Default: an error names them.
        value: what features are filled up with: 0 is what `Embedding(mask_zero=True)` masks. Labels and
            sample weights are filled up with 0.
        mask: name of an input of the model that gets no column, but 1 where a row has a value and 0 where it
            is filled up, shape (rows, length).

    Raises:
        ValueError: a length that is no positive integer, `to` and `buckets` together, or buckets that do not
            ascend, or `truncate` without a length.
    """

    to: int | None = None
    buckets: tuple[int, ...] = ()
    truncate: bool = False
    value: float = 0
    mask: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", tuple(self.buckets))
        lengths = [*self.buckets, *([] if self.to is None else [self.to])]
        if not all(is_length(length) for length in lengths):
            raise ValueError(f"Lengths must be positive integers. Received: {self!r}")
        if self.to is not None and self.buckets:
            raise ValueError(f"Expected `to` or `buckets`, not both. Received: {self!r}")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"`buckets` must ascend. Received: {self!r}")
        if self.truncate and self.limit is None:
            raise ValueError(f"`truncate` needs a length: `to` or `buckets`. Received: {self!r}")

    @property
    def limit(self) -> int | None:
        """The longest row that there may be."""
        return self.buckets[-1] if self.buckets else self.to

    def too_long(self, longest: int) -> bool:
        """Whether a row of `longest` steps is refused."""
        return self.limit is not None and longest > self.limit and not self.truncate

    def length(self, longest: int) -> int:
        """Return the length to which rows are filled up, or cut, of which the longest has `longest` steps."""
        if self.to is not None:
            return self.to
        if self.buckets:
            return next((bucket for bucket in self.buckets if bucket >= longest), self.buckets[-1])
        return max(SHORTEST, 1 << max(0, int(longest) - 1).bit_length())

    def stack(self, rows: Sequence[Any], dtype: Any = None) -> Array:
        """Return `rows` as one array, filled up: for a `preprocess` whose rows differ in length.

        Args:
            rows: arrays or lists, each of shape (length, ...), alike but for the length.
            dtype: of the result. Default: that of the rows.

        Returns:
            Shape (rows, length, ...).

        Raises:
            ValueError: a row is longer than may be, or no rows.
        """
        arrays = [np.asarray(row, dtype) for row in rows]
        lengths = np.array([len(array) for array in arrays])
        if not arrays or self.too_long(int(lengths.max())):
            raise ValueError(
                f"Expected rows of at most {self.limit} steps. Received: {len(arrays)} rows, the longest of "
                f"{lengths.max(initial=0)}. Raise the length, or cut rows with `truncate=True`."
            )
        filled = [array for array in arrays if len(array)] or arrays
        return fill(
            np.concatenate(filled), lengths, self.length(int(lengths.max())), self.value, filled[0].shape[1:]
        )


PadTo = int | str | Sequence[int] | Padding | Mapping[str, Any]
"""A length, `"longest"`, buckets, a padding, or one of these by name of the column."""


def padding_of(given: Any) -> Padding:
    """Return what a user gave as `pad_to` for one column as a padding.

    Raises:
        ValueError: it is none.
    """
    if isinstance(given, Padding):
        return given
    if given == "longest":
        return Padding()
    if is_length(given):
        return Padding(to=given)
    if isinstance(given, list | tuple) and given and all(is_length(length) for length in given):
        return Padding(buckets=tuple(given))
    raise ValueError(
        '`pad_to` must be a length, "longest", a list of lengths to round up to, a distkeras.Padding, or a '
        f"dict of these by column. Received: pad_to={given!r}"
    )


def is_length(value: Any) -> bool:
    """Whether `value` is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def fill(
    values: Array,
    lengths: npt.NDArray[np.int64],
    length: int,
    value: Any = 0,
    step: tuple[int, ...] = (),
) -> Array:
    """Return rows that are filled up to `length`, or cut to it, shape (rows, length, *step).

    Args:
        values: the steps of all rows in turn, shape (steps, *step).
        lengths: steps of each row, shape (rows,).
        length: of the result.
        value: to fill up with.
        step: shape of one step.
    """
    rows = np.full((len(lengths), length, *step), value, values.dtype)
    if len(lengths) and int(lengths.max()) > length:
        starts = np.cumsum(lengths) - lengths
        place = np.arange(len(values)) - np.repeat(starts, lengths)
        values, lengths = values[place < length], np.minimum(lengths, length)
    rows[filled(lengths, length)] = values
    return rows


def filled(lengths: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.bool_]:
    """Return where rows have values of their own, shape (rows, length)."""
    return np.asarray(np.arange(length) < lengths[:, None])
