"""Turn a user's DataFrame into one partition per worker, validated before any worker starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster import answers, padded, partitions, validate
from distkeras.cluster.arrays import Roles
from distkeras.cluster.content import content_of, content_question
from distkeras.cluster.description import described
from distkeras.cluster.facts import ROW, Facts, facts, questions
from distkeras.cluster.label_skew import skew_questions, told_of
from distkeras.cluster.names import Table
from distkeras.cluster.partitions import LOGGER
from distkeras.cluster.repeatable import RowsMayChange, why_rows_may_change
from distkeras.cluster.source import Source, assembled
from distkeras.cluster.user_line import levels_to_user
from distkeras.cluster.uses import Losses, Use, try_out, uses_of
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import RAW, Column, Columns
from distkeras.worker.feeding import Feeding
from distkeras.worker.tensor_spec import TensorSpec
from distkeras.worker.validation_share import ValidationShare

__all__ = ["Losses", "Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Rows that fit the model, ready to train on.

    Attributes:
        frame: the required columns, as they travel; partition i goes to worker i.
        columns: the inputs and outputs that they feed.
        num_rows: total number of rows.
        rows_per_partition: number of rows of each worker.
        content: a digest of the rows; `None` if not requested, or if the plan may give other rows next time.
        skew: a text that says that the workers' labels differ; `None` if they are alike.
    """

    frame: DataFrame
    columns: Columns
    num_rows: int
    rows_per_partition: tuple[int, ...]
    content: str | None = None
    skew: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the rows as the model takes them; rows of different lengths count like the longest."""
        row = sum(column.width * column.numpy_dtype.itemsize for column in self.columns.all)
        return self.num_rows * row


def with_validation(
    frame: DataFrame, num_workers: int, validation: Prepared, batch_size: int, *, to_all: bool = False
) -> tuple[DataFrame, ValidationShare]:
    """Give each worker a share of the validation rows besides its training rows.

    The training rows keep their workers and their order.

    Args:
        frame: the prepared training rows: partition i goes to worker i.
        num_workers: number of workers.
        validation: from `prepare`, for at most `num_workers` workers; for one with `to_all`.
        batch_size: validation rows per minibatch.
        to_all: give every worker all validation rows: members of an ensemble are judged one by one.

    Returns:
        The rows of both kinds, and how workers tell them apart.
    """
    names = {column.name: f"v{column.name}" for column in validation.columns.all}
    renamed = validation.frame.select(*(F.col(name).alias(new) for name, new in names.items()))
    shares = validation.rows_per_partition
    rows = shares * num_workers if to_all else (*shares, *[0] * (num_workers - len(shares)))
    share = ValidationShare(validation.columns.renamed(names), rows, batch_size, partitions.FLAG)
    return partitions.with_validation(frame, renamed, num_workers, to_all=to_all), share


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
    with_content: bool = False,
) -> Prepared:
    """Validate that `df` can train the model, and partition it for `num_workers` workers.

    One pass over the plan counts the rows of each partition and checks every value that has requirements. If
    a value fails, a second pass finds the fault and its first row. The plan is evaluated again for training:
    cache it if it is expensive or not deterministic. Rows that Spark holds in its cache are not counted and
    checked again for the same use. Partitions are used unchanged or joined, or, if neither gives even ones,
    repartitioned; without `shuffle` one worker gets the rows in their order. The log `distkeras.cluster`
    reports the result. Columns travel under generated names.

    Args:
        df: the rows.
        roles: columns for the model's inputs and outputs, and for the weights of rows.
        inputs: inputs of the model.
        outputs: outputs of the model.
        loss: losses of the outputs, by Keras's names; they determine the valid labels.
        num_workers: number of partitions to make, each with at least one row.
        shuffle: assign rows to workers at random.
        seed: seed of the shuffle.
        barrier: the workers will run as a barrier stage: Spark rejects joined partitions there, so
            repartition.
        batch_size: rows per minibatch; a larger difference between partitions leads to repartitioning.
        class_weight: weight of a row by its label.
        feeding: how rows become minibatches.
        with_content: compute a digest of the rows.

    Raises:
        ValueError: an unknown or ambiguous column; rows, labels or nulls that do not fit the model; too few
            rows, or a streaming DataFrame; labels that are not classes, with `class_weight`; a model that
            fixes another batch size, or one that the last minibatch does not have.
        TypeError: a column of a type that the model cannot take.
    """
    _check_given(df, num_workers)
    validate.check_batch_size(inputs, batch_size)
    table, tried = Table(df), None
    fed = padded.with_columns(inputs, feeding)
    if feeding.preprocess is not None:
        tried, raw, roles = try_out(table, roles, fed, feeding.preprocess)
        uses = [*raw, *uses_of(table, roles, (), tuple(outputs), loss)]
    else:
        uses = uses_of(table, roles, fed, tuple(outputs), loss)
    frame, uses = _under_generated_names(table.frame, uses)
    may_change = why_rows_may_change(frame)
    if may_change is not None:
        _warn_of_rows_that_change(may_change)
    frame = partitions.coalesce(frame, num_workers)
    repeatable = may_change is None
    counts, found, content, skew_of_labels = _examine(
        frame, uses, repeatable=repeatable, with_content=with_content and repeatable
    )
    num_rows = sum(counts.values())
    _check_enough(num_rows, num_workers)
    resolved = [use.resolve(facts_of, feeding) for use, facts_of in zip(uses, found, strict=True)]
    for use, facts_of in zip(uses, found, strict=True):
        for source, own in zip(use.sources, facts_of, strict=True):
            if use.passes_not_finite(own, feeding):
                _warn_of_not_finite(source, own)
    if class_weight is not None and (tried is None or len(tried.preprocess.made) < 2):
        validate.check_classes([column for use, column in _pairs(uses, resolved) if use.role == "label"])
    skew = None
    if not (shuffle or barrier) and partitions.is_even(counts, num_workers, batch_size):
        shares = tuple(counts[index] for index in range(num_workers))
        LOGGER.info("%d rows in the existing partitions: %s", num_rows, shares)
        skew = skew_of_labels
    else:
        frame, shares = partitions.repartition(
            frame, counts, num_workers, (seed or 0) if shuffle else None, barrier
        )
        LOGGER.info("%d rows split into %d partitions: %s (were %s)", num_rows, num_workers, shares, counts)
    validate.check_last_batch(inputs, batch_size, shares, feeding.drop_remainder)
    frame, resolved = _travel(frame, uses, resolved)
    columns = replace(_columns(uses, resolved, class_weight), may_change=may_change)
    if tried is None:
        return Prepared(frame, columns.with_masks(inputs), num_rows, shares, content, skew)
    return Prepared(frame, replace(columns, preprocess=tried.preprocess), num_rows, shares, content, skew)


def _check_given(df: DataFrame, num_workers: int) -> None:
    if num_workers < 1:
        raise ValueError(f"`num_workers` must be at least 1. Received: num_workers={num_workers}")
    if df.isStreaming:
        raise ValueError(
            "Expected a batch DataFrame. Received: a streaming one. Train on the rows that have arrived, "
            "such as in `foreachBatch`; a trained model can predict on streams."
        )


def _check_enough(num_rows: int, num_workers: int) -> None:
    if num_rows < num_workers:
        what = "is empty" if num_rows == 0 else f"has {num_rows} row(s) for {num_workers} workers"
        raise ValueError(
            f"The DataFrame {what}. Expected at least one row per worker: train on more rows, or with fewer "
            f"workers. Received: num_workers={num_workers}"
        )


def check_full(rows: Sequence[int], batch_size: int) -> None:
    """Raise ValueError if a worker has no full minibatch, for trainings that skip partial ones."""
    if min(rows) < batch_size:
        raise ValueError(
            f"Expected at least `batch_size` rows per worker with drop_remainder=True. Received: {min(rows)} "
            f"rows for a worker, batch_size={batch_size}. Train with smaller minibatches or fewer workers."
        )


def _pairs(uses: list[Use], resolved: list[Column]) -> list[tuple[Use, Column]]:
    return list(zip(uses, resolved, strict=True))


def _under_generated_names(frame: DataFrame, uses: list[Use]) -> tuple[DataFrame, list[Use]]:
    """Return the required columns, each once, under generated names."""
    names: dict[str, str] = {}
    columns: list[SparkColumn] = []
    renamed = []
    for use in uses:
        sources = []
        for source in use.sources:
            if source.path not in names:
                names[source.path] = f"u{len(names)}"
                columns.append(source.column.alias(names[source.path]))
            sources.append(replace(source, path=names[source.path]))
        renamed.append(replace(use, sources=tuple(sources)))
    return frame.select(*columns), renamed


def _warn_of_rows_that_change(cause: str) -> None:
    warnings.warn(
        f"The rows may differ from one evaluation of the plan to the next, because it has {cause}. The plan "
        "is "
        "evaluated to count and check the rows, to train, and again if a worker is lost. Cache it "
        "(df.cache()), checkpoint it (df.checkpoint()), or write it to files, and train on the result.",
        RowsMayChange,
        stacklevel=levels_to_user(),
    )


def _warn_of_not_finite(source: Source, own: Facts) -> None:
    warnings.warn(
        f"Column {source.name!r} has NaN or infinity, or a number too large for the model's type, in "
        f"{own.faults['not finite']}. They reach the model, as in Keras.",
        UserWarning,
        stacklevel=levels_to_user(),
    )


def _examine(
    frame: DataFrame, uses: list[Use], *, repeatable: bool, with_content: bool = False
) -> tuple[dict[int, int], list[list[Facts]], str | None, str | None]:
    """Count the rows of each nonempty partition, and find the facts about each column of each use.

    With `with_content`, also return a digest of the rows. The last item says that the labels of the
    partitions differ, if they do. If the rows are `repeatable` and cached, an earlier call's answer is used.
    """
    asked: dict[tuple[str, str], int] = {}
    places = []
    for use in uses:
        keys = [(source.path, repr(use.expected)) for source in use.sources]
        places.append([asked.setdefault(key, len(asked)) for key in keys])
    first = {
        place: (source, use)
        for use, own in reversed(list(zip(uses, places, strict=True)))
        for source, place in zip(use.sources, own, strict=True)
    }
    aggregates = [F.count(F.lit(1)).alias("rows")]
    for place, (source, use) in first.items():
        for name, answer in questions(source, use.expected).items():
            aggregates.append(answer.alias(f"{place}_{name}"))
    labels = {f"label{place}_": use.sources[0] for place, use in enumerate(uses) if use.role == "label"}
    for prefix, source in labels.items():
        aggregates += [answer.alias(prefix + name) for name, answer in skew_questions(source).items()]
    if with_content:
        sources = {source.path: source for use in uses for source in use.sources}
        aggregates.append(content_question(list(sources.values())))
    index = F.spark_partition_id().alias("partition")
    rows, known = answers.collect(
        frame.groupBy(index).agg(*aggregates), "counts and checks the rows", repeatable=repeatable
    )
    if known:
        LOGGER.info("The cached rows were counted and checked before.")
    faulty = [place for place in first if any(row[f"{place}_faulty"] for row in rows)]
    closer = _examine_closely(frame, {place: first[place] for place in faulty}) if faulty else {}
    found = {place: facts(frame, source, f"{place}_", rows, closer) for place, (source, _) in first.items()}
    counts = {row["partition"]: row["rows"] for row in rows}
    return (
        counts,
        [[found[place] for place in own] for own in places],
        content_of(rows) if with_content else None,
        told_of(labels, rows),
    )


def _examine_closely(frame: DataFrame, faulty: Mapping[int, tuple[Source, Use]]) -> dict[int, Row]:
    """Find the faults of these columns and their first rows, by partition."""
    numbered = frame.withColumn(ROW, partitions.row_in_partition())
    aggregates = [
        answer.alias(f"{place}_{name}")
        for place, (source, use) in faulty.items()
        for name, answer in questions(source, use.expected, closely=True).items()
    ]
    with described(frame.sparkSession, "locates the invalid rows"):
        rows = numbered.groupBy(F.spark_partition_id().alias("partition")).agg(*aggregates).collect()
    return {row["partition"]: row for row in rows}


def _travel(frame: DataFrame, uses: list[Use], resolved: list[Column]) -> tuple[DataFrame, list[Column]]:
    """Cast every column; a column used in two types travels twice, one with two equal uses once."""
    names: dict[tuple[str, ...], str] = {}
    casts: list[SparkColumn] = []
    named = []
    for use, column in _pairs(uses, resolved):
        kinds = [f"{source.path} {source.travel_type(column.dtype).json()}" for source in use.sources]
        # The worker decodes a raw column differently from the same column as a label.
        key = (str(column.dtype == RAW), *kinds)
        if key not in names:
            names[key] = f"c{len(names)}"
            casts.append(assembled(use.sources, column.dtype).alias(names[key]))
        named.append(replace(column, name=names[key]))
    return frame.select(*casts), named


def _columns(uses: list[Use], resolved: list[Column], class_weight: ClassWeight | None) -> Columns:
    def of(role: str) -> tuple[Column, ...]:
        return tuple(column for use, column in _pairs(uses, resolved) if use.role == role)

    weights = {use.place: column for use, column in _pairs(uses, resolved) if use.role == "weight"}
    if None in weights:
        every: tuple[Column | None, ...] = (weights[None],)
    else:
        every = tuple(weights.get(place) for place in range(len(of("label")))) if weights else ()
    return Columns(of("feature"), of("label"), every, class_weight, of(RAW))
