"""Suggest a conversion for a column whose type cannot feed a model."""

from __future__ import annotations

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)


def mend(path: str, kind: T.DataType, depth: int) -> str:
    """Return advice for the user: an expression of `pyspark.sql.functions` as `F`.

    Args:
        path: the column, as `F.col` takes it.
        kind: type of its elements.
        depth: number of array levels around the elements.
    """
    if isinstance(kind, T.StructType):
        names = [field.name for field in kind.fields]
        if depth:
            return f"Take one field of its structs, such as F.col({path!r}).getField({names[0]!r})."
        fields = [f"{path}.{name if name.isidentifier() else f'`{name}`'}" for name in names]
        return f"Name one of its fields: {fields}."
    if isinstance(kind, T.MapType):
        return _use(
            path, depth, "F.map_values({})", "values in the order of each map", "F.element_at({}, key)"
        )
    if isinstance(kind, T.NullType):
        return "It is null in every row."
    for types, expression, meaning in EXPRESSIONS:
        if type(kind).__name__ in types:
            return _use(path, depth, expression, meaning)
    return "Convert it to numbers first."


EXPRESSIONS = (
    (("DateType",), "F.unix_date({})", "days since 1970"),
    (("TimestampType",), "{}.cast('double')", "seconds since 1970"),
    (("TimestampNTZType",), "{}.cast('timestamp').cast('double')", "seconds since 1970"),
    (("TimeType",), "(F.hour({}) * 3600 + F.minute({}) * 60 + F.second({}))", "seconds since midnight"),
    (("DayTimeIntervalType",), "(F.timestamp_seconds(F.lit(0)) + {}).cast('double')", "seconds"),
    (("YearMonthIntervalType",), "{}.cast('interval month').cast('int')", "months"),
    (("VariantType",), "F.variant_get({}, '$', 'double')", "numbers"),
)
"""Names of types, some missing in older versions of Spark; an expression for numbers; their meaning."""


def _use(path: str, depth: int, expression: str, meaning: str, alternative: str = "") -> str:
    column = "x" if depth else f"F.col({path!r})"
    other = f", or {alternative.replace('{}', column)} for the value of one key" if alternative else ""
    text = expression.replace("{}", column)
    if depth > 1:
        return f"Convert its elements with {text}: {meaning}{other}."
    if depth:
        text = f"F.transform({path!r}, lambda x: {text})"
    return f"Use {text}: {meaning}{other}."
