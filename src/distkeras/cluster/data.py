"""From a user's DataFrame to one partition a worker, checked before any worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster import padded, partitions, trial, validate
from distkeras.cluster.arrays import Roles
from distkeras.cluster.partitions import LOGGER
from distkeras.cluster.source import Facts, Source, facts, questions, source_of
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import RAW, Column, Columns, TensorSpec
from distkeras.worker.feeding import Feeding
from distkeras.worker.preprocess import Function

Losses = str | Sequence[str | None] | Mapping[str, str | None] | None
"""Name of the loss of all outputs, of each in order, or of each by name; `None`: one that has no name."""

WEIGHT = TensorSpec("sample_weight", ())


@dataclass(frozen=True)
class Prepared:
    """Rows that fit the model, ready to train on.

    Attributes:
        frame: the columns that are needed, as they travel; partition i goes to worker i.
        columns: what they feed.
        num_rows: in all.
        rows_per_partition: each worker's.
    """

    frame: DataFrame
    columns: Columns
    num_rows: int
    rows_per_partition: tuple[int, ...]


@dataclass(frozen=True)
class _Use:
    """One column of the user's, and what it is for."""

    source: Source
    spec: TensorSpec
    role: str
    loss: str | None = None
    row_bytes: int = 1

    def resolve(self, found: Facts, feeding: Feeding) -> Column:
        """Return the form in which the model gets the column, or raise what is wrong with it."""
        validate.check_nulls(self.source, found)
        if self.role == RAW:
            return Column(self.source.name, (self.row_bytes,), RAW)
        step = padded.step_of(self.source, self.spec) if self.role == "feature" else 1
        padding = padded.padding_for(self.source, found, self.spec, feeding, step)
        if padding is None:
            return self._resolve(found)
        return padded.resolve(found, step, padding, self._resolve)

    def _resolve(self, found: Facts) -> Column:
        if self.role == "label":
            return validate.label(self.source, found, self.spec, self.loss)
        return validate.feature(self.source, found, self.spec)


def prepare(
    df: DataFrame,
    roles: Roles,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    loss: Losses,
    num_workers: int,
    shuffle: bool = False,
    seed: int | None = None,
    barrier: bool = False,
    batch_size: int = 32,
    class_weight: ClassWeight | None = None,
    feeding: Feeding = Feeding(),  # noqa: B008 (frozen)
) -> Prepared:
    """Check that `df` can train the model, and lay it out for `num_workers` workers.

    One pass over the plan counts the rows of each partition and looks at every value that must be right. The
    plan is evaluated again for training: cache it where that is expensive or not deterministic. Partitions
    are used as they are, joined, or, where neither is even, dealt out anew; without `shuffle` one worker gets
    the rows in their order. What was done goes to the log `distkeras.cluster`.

    Args:
        df: the rows.
        roles: columns for the model's inputs and outputs, and of a number for each row.
        inputs: of the model.
        outputs: of the model.
        loss: of the outputs, by Keras's names: what labels they take.
        num_workers: partitions to make, each with a row at least.
        shuffle: deal rows to workers at random.
        seed: for that.
        barrier: the workers will run as a barrier stage: Spark refuses joined partitions there, so deal anew.
        batch_size: rows by which workers may differ before partitions are dealt anew.
        class_weight: what rows count by their label.
        feeding: how rows become minibatches.

    Raises:
        ValueError: an unknown column; rows, labels or nulls that do not fit the model; too few rows, or a
            stream of them; labels that say no class, with `class_weight`.
        TypeError: a column of a type that the model cannot take.
    """
    if num_workers < 1:
        raise ValueError(f"`num_workers` must be at least 1. Received: num_workers={num_workers}")
    if df.isStreaming:
        raise ValueError(
            "Expected a DataFrame that ends. Received: a streaming one. Train on what has arrived, such as "
            "in `foreachBatch`; a trained model predicts streams."
        )
    fed = padded.with_columns(inputs, feeding)
    tried = None
    if feeding.preprocess is not None:
        tried, raw, roles = _try_out(df, roles, fed, feeding.preprocess)
        uses = [*raw, *_uses(df, roles, (), tuple(outputs), loss)]
    else:
        uses = _uses(df, roles, fed, tuple(outputs), loss)
    sources = {use.source.name: use.source for use in uses}
    frame = partitions.gather(df.select(*(source.column for source in sources.values())), num_workers)
    rows = _examine(frame, uses)
    counts = {row["partition"]: row["rows"] for row in rows}
    num_rows = sum(counts.values())
    if num_rows < num_workers:
        what = "is empty" if num_rows == 0 else f"has {num_rows} row(s) for {num_workers} workers"
        raise ValueError(
            f"The DataFrame {what}. Expected at least one row a worker: train on more rows, or with fewer "
            f"workers. Received: num_workers={num_workers}"
        )
    found = {name: facts(source, f"{i}_", rows) for i, (name, source) in enumerate(sources.items())}
    resolved = [use.resolve(found[use.source.name], feeding) for use in uses]
    if class_weight is not None and (tried is None or len(tried.preprocess.made) < 2):
        validate.check_classes(
            [column for use, column in zip(uses, resolved, strict=True) if use.role == "label"]
        )
    if not (shuffle or barrier) and partitions.is_even(counts, num_workers, batch_size):
        shares = tuple(counts[index] for index in range(num_workers))
        LOGGER.info("%d rows in the partitions as they come: %s", num_rows, shares)
    else:
        frame, shares = partitions.deal(frame, counts, num_workers, (seed or 0) if shuffle else None, barrier)
        LOGGER.info("%d rows dealt to %d partitions: %s (were %s)", num_rows, num_workers, shares, counts)
    frame, resolved = _travel(frame, uses, resolved)
    columns = _columns(uses, resolved, class_weight)
    if tried is None:
        return Prepared(frame, columns.with_masks(inputs), num_rows, shares)
    return Prepared(frame, replace(columns, preprocess=tried.preprocess), num_rows, shares)


def check_full(rows: Sequence[int], batch_size: int) -> None:
    """Raise ValueError if a worker has no full minibatch, where only those are trained."""
    if min(rows) < batch_size:
        raise ValueError(
            f"Expected at least `batch_size` rows a worker with drop_remainder=True. Received: {min(rows)} "
            f"rows for a worker, batch_size={batch_size}. Train with smaller minibatches or fewer workers."
        )


def _uses(
    df: DataFrame,
    roles: Roles,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    loss: Losses,
) -> list[_Use]:
    """Return every column that is needed, in the order of inputs and outputs, its type checked."""
    fields = {field.name: field for field in df.schema.fields}

    def source(name: str, argument: str) -> Source:
        found = source_of(validate.find(name, fields, argument))
        return replace(found, shape=roles.shapes.get(name))

    uses = []
    names = validate.match(roles.features_col, inputs, "features_col", "input")
    for name, spec in zip(names, inputs, strict=True):
        uses.append(_Use(source(name, "features_col"), spec, "feature"))
    if roles.label_col is not None:
        names = validate.match(roles.label_col, outputs, "label_col", "output")
        for index, (name, spec) in enumerate(zip(names, outputs, strict=True)):
            uses.append(_Use(source(name, "label_col"), spec, "label", _loss_of(loss, spec, index)))
    if roles.sample_weight_col is not None:
        uses.append(_Use(source(roles.sample_weight_col, "sample_weight_col"), WEIGHT, "weight"))
    for use in uses:
        # What a label must be, its loss decides; but no loss takes strings.
        dtype = "float32" if use.role == "label" else use.spec.dtype
        validate.check_leaf(use.source, dtype, f"{use.spec.name!r}")
    return uses


def _try_out(
    df: DataFrame, roles: Roles, inputs: tuple[TensorSpec, ...], function: Function
) -> tuple[trial.Trial, list[_Use], Roles]:
    """Try `function` on the first rows.

    Returns:
        What came of it; the columns that it is given; and the roles that it leaves to columns.
    """
    fields = {field.name: field for field in df.schema.fields}
    sources = {}
    for argument in ("features_col", "label_col", "sample_weight_col"):
        for name in trial.names_of(getattr(roles, argument)):
            sources[name] = source_of(validate.find(name, fields, argument))
    tried = trial.try_out(df, function, list(sources.values()), inputs)
    uses = [
        _Use(source, TensorSpec(name, None, RAW), RAW, row_bytes=tried.row_bytes[name])
        for name, source in sources.items()
    ]
    left = replace(roles, features_col=[])
    if len(tried.preprocess.made) > 1:
        left = replace(left, label_col=None)
    if len(tried.preprocess.made) > 2:
        left = replace(left, sample_weight_col=None)
    return tried, uses, left


def _loss_of(loss: Losses, spec: TensorSpec, index: int) -> str | None:
    if loss is None or isinstance(loss, str):
        return loss
    if isinstance(loss, Mapping):
        return loss.get(spec.key or spec.name, loss.get(spec.name))
    return loss[index] if index < len(loss) else None


def _examine(frame: DataFrame, uses: list[_Use]) -> list[Row]:
    """Count the rows of each partition that has any, and ask what the checks need of each column."""
    sources = {use.source.name: use.source for use in uses}
    # Numbers matter where they are classes, and where a fraction would be lost.
    judged = {use.source.name for use in uses if use.role == "label" or "int" in use.spec.dtype}
    asked = [F.count(F.lit(1)).alias("rows")]
    for index, (name, source) in enumerate(sources.items()):
        for question, answer in questions(source, name in judged).items():
            asked.append(answer.alias(f"{index}_{question}"))
    rows: list[Row] = frame.groupBy(F.spark_partition_id().alias("partition")).agg(*asked).collect()
    return rows


def _travel(frame: DataFrame, uses: list[_Use], resolved: list[Column]) -> tuple[DataFrame, list[Column]]:
    """Cast every column; one that is used in two types travels twice, under two names."""
    casts: dict[str, SparkColumn] = {}
    first_type: dict[str, str] = {}
    named = []
    for use, column in zip(uses, resolved, strict=True):
        name, kind = use.source.name, use.source.travel_type(column.dtype)
        if column.dtype == RAW:  # Read otherwise than the same column as a label.
            kind = RAW
        if first_type.setdefault(name, kind) != kind:
            name = f"{name} as {kind}"
        casts[name] = use.source.cast(column.dtype).alias(name)
        named.append(replace(column, name=name))
    return frame.select(*casts.values()), named


def _columns(uses: list[_Use], resolved: list[Column], class_weight: ClassWeight | None) -> Columns:
    def of(role: str) -> tuple[Column, ...]:
        return tuple(column for use, column in zip(uses, resolved, strict=True) if use.role == role)

    weight = of("weight")
    return Columns(of("feature"), of("label"), weight[0] if weight else None, class_weight, of(RAW))
