"""Resolve column names that a user writes as Spark does, whatever characters they contain."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NoReturn

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source, quoted, source_of


class Table:
    """The columns of a DataFrame, by the names that a user writes.

    A name is first compared exactly with the columns; then as `spark.sql.caseSensitive` compares them; then
    Spark resolves it: as a field of a struct (`a.b`), a column of an alias, or a name in backticks.

    Args:
        dataframe: the DataFrame.

    Attributes:
        frame: the DataFrame that the columns of `source` belong to. It renames columns whose names differ
            only in case, which Spark could not distinguish.
    """

    def __init__(self, dataframe: DataFrame) -> None:
        self._exact = dataframe.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true"
        self._fields = dataframe.schema.fields
        self._names = [field.name for field in self._fields]
        count = Counter(map(self._key, self._names))
        self._addresses = [
            name if count[self._key(name)] == 1 else f"__distkeras_twin_{index}"
            for index, name in enumerate(self._names)
        ]
        self.frame = dataframe if self._addresses == self._names else dataframe.toDF(*self._addresses)

    def source(self, name: str, argument: str) -> Source:
        """Return the column `name`.

        Args:
            name: the name that the user wrote.
            argument: name of the user's argument.

        Raises:
            ValueError: there is no such column, or more than one.
            TypeError: the column cannot feed a model.
        """
        field, path = self.field(name, argument)
        return source_of(field, path, name if path == name else "")

    def named(self, frame: DataFrame) -> DataFrame:
        """Return `frame`, this table's frame with more columns at its end, under the user's names."""
        if self._addresses == self._names:
            return frame  # After a renaming, Spark would not accept its columns in the user's DataFrame.
        return frame.toDF(*self._names, *frame.columns[len(self._names) :])

    def field(self, name: str, argument: str) -> tuple[T.StructField, str]:
        """Return the column `name`, under that name, and its name in `frame` for `functions.col`.

        Raises:
            ValueError: there is no such column, or more than one.
        """
        if not isinstance(name, str):
            raise TypeError(f"Expected names of columns as strings. Received: {argument}={name!r}")
        same = [index for index, other in enumerate(self._names) if other == name]
        if not same:
            same = [index for index, other in enumerate(self._names) if self._key(other) == self._key(name)]
        if len(same) > 1:
            _refuse_ambiguous(name, [self._names[index] for index in same], argument)
        if same:
            field = self._fields[same[0]]
            path = quoted(self._addresses[same[0]])
        else:
            field, path = self._asked(name, argument), name
        return T.StructField(name, field.dataType, field.nullable), path

    def _asked(self, name: str, argument: str) -> T.StructField:
        """Return the field that Spark resolves `name` to."""
        try:
            with _quiet():
                found = [] if name.endswith("*") else self.frame.select(F.col(name)).schema.fields
        except AnalysisException as error:
            if "AMBIGUOUS" in str(error.getCondition()):
                _refuse_ambiguous(name, self._names, argument)
            found = []
        if len(found) != 1:
            missing(name, [*self._names, *_members(self._fields)], argument, self._names)
        return found[0]

    def _key(self, name: str) -> str:
        return name if self._exact else name.lower()


def column_in_memory(name: str, names: Collection[str], argument: str) -> str:
    """Return the column among `names`, of a table in memory, that `name` means or is a field of.

    Raises:
        ValueError: there is no such column.
    """
    if name in names:
        return name
    alike = [other for other in names if other.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    prefixes = [other for other in names if name.startswith(f"{other}.")]
    if not prefixes:
        missing(name, names, argument)
    return max(prefixes, key=len)


def missing(name: str, near: Iterable[str], argument: str, names: Iterable[str] | None = None) -> NoReturn:
    """Raise an error for an unknown column `name`.

    Args:
        name: the name that the user wrote.
        near: candidates for a suggestion.
        argument: name of the user's argument.
        names: names to list; default: all of `near`.
    """
    near = list(near)
    close = [other for other in near if other.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, near, 1, 0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Column {name!r} is not in the DataFrame.{hint} Expected one of "
        f"{near if names is None else list(names)}. Received: {argument}={name!r}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PySpark from logging pages about an unknown name: our own error reports it."""
    logger = logging.getLogger("DataFrameQueryContextLogger")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _members(fields: Iterable[T.StructField]) -> Iterable[str]:
    for field in fields:
        if isinstance(field.dataType, T.StructType):
            yield from (f"{field.name}.{inner.name}" for inner in field.dataType.fields)


def _refuse_ambiguous(name: str, found: Iterable[str], argument: str) -> NoReturn:
    raise ValueError(
        f"Column {name!r} is ambiguous: the DataFrame has {list(found)}. Expected a name of one column: "
        "rename the others, write the name in its own upper and lower case, or set spark.sql.caseSensitive. "
        f"Received: {argument}={name!r}"
    )
