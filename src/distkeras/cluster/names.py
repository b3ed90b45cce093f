"""Names of columns as a user writes them: found as Spark finds them, whatever characters they have."""

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

    A name is that of a column to the letter; else that of a column as `spark.sql.caseSensitive` compares
    them; else whatever Spark takes it for: a field of a struct (`a.b`), a column of an alias, a name in
    backticks.

    Args:
        dataframe: whose.

    Attributes:
        frame: the DataFrame that the columns of `source` belong to. Names that differ in case alone, which
            Spark would not tell apart, are other ones there.
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
            name: as the user wrote it.
            argument: name of the user's argument.

        Raises:
            ValueError: there is none, or more than one.
            TypeError: it holds nothing that can feed a model.
        """
        field, path = self.field(name, argument)
        return source_of(field, path, name if path == name else "")

    def named(self, frame: DataFrame) -> DataFrame:
        """Return `frame`, that of this table with further columns at the end, under the user's names."""
        if self._addresses == self._names:
            return frame  # Renamed, its columns would be none of the user's DataFrame to Spark.
        return frame.toDF(*self._names, *frame.columns[len(self._names) :])

    def field(self, name: str, argument: str) -> tuple[T.StructField, str]:
        """Return the column `name`, under that name, and how `frame` calls it in `pyspark.sql.functions.col`.

        Raises:
            ValueError: there is none, or more than one.
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
        """Return what Spark takes `name` for."""
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
    """Return the one of the columns `names` of a table in memory that `name` is, or is a field of.

    Raises:
        ValueError: there is none.
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
    """Raise that there is no column `name`.

    Args:
        name: as the user wrote it.
        near: names that may have been meant.
        argument: name of the user's argument.
        names: those to list; default: all of `near`.
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
    """Keep PySpark from logging pages about a name that Spark does not know: an error of ours will say it."""
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
