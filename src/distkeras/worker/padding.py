"""Pad rows of different lengths to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SHORTEST = 8
"""The default least length to which the rows of a minibatch are padded."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Padding:
    """The length and the value of padding.

    Columns with the same padding get one length in each minibatch, so that inputs and labels of a step agree.
    A model is compiled once for every length. `to` gives one length; `buckets` gives at most as many as there
    are buckets; without both, rows of up to n steps give at most `max(1, ceil(log2(n / 8)) + 1)`. The last
    minibatch of an epoch may have fewer rows, which at most doubles this; `drop_remainder=True` skips it.

    Args:
        to: the length of every row. Default: the length of the longest row of the minibatch, rounded up.
        buckets: lengths to round up to, in ascending order. Default: powers of two, from 8.
        truncate: cut longer rows at the end to `to`, or to the last bucket. Default: an error names them.
        value: padding value of features; `Embedding(mask_zero=True)` masks 0. Labels and sample weights are
            padded with 0.
        mask: name of a model input that gets the mask instead of a column, shape (rows, length): 1 where a
            row has a value, 0 for padding.

    Raises:
        ValueError: a length is not a positive integer, `to` and `buckets` are both given, `buckets` does not
            ascend, or `truncate` has no length.
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
        """The maximum length of a row, or None."""
        return self.buckets[-1] if self.buckets else self.to

    def too_long(self, longest: int) -> bool:
        """Whether a row of `longest` steps is rejected."""
        return self.limit is not None and longest > self.limit and not self.truncate

    def length(self, longest: int) -> int:
        """Return the length to which rows are padded or cut if the longest has `longest` steps."""
        if self.to is not None:
            return self.to
        if self.buckets:
            return next((bucket for bucket in self.buckets if bucket >= longest), self.buckets[-1])
        return max(SHORTEST, 1 << max(0, int(longest) - 1).bit_length())

    def stack(self, rows: Sequence[Any], dtype: Any = None) -> Array:
        """Return `rows` as one padded array, for a `preprocess` whose rows differ in length.

        Args:
            rows: arrays or lists of shape (length, ...), which differ only in length.
            dtype: type of the result. Default: that of the rows.

        Returns:
            Shape (rows, length, ...).

        Raises:
            ValueError: a row is longer than the maximum, or there are no rows.
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
    """Return a user's `pad_to` for one column as a padding.

    Raises:
        ValueError: it is not a valid padding.
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
    """Return rows padded or cut to `length`, shape (rows, length, *step).

    Args:
        values: the steps of all rows, concatenated, shape (steps, *step).
        lengths: number of steps of each row, shape (rows,).
        length: number of steps of each row of the result.
        value: padding value.
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
    """Return the mask of values that are not padding, shape (rows, length)."""
    return np.asarray(np.arange(length) < lengths[:, None])
