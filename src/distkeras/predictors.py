"""Predictors add the outputs of a Keras model to a DataFrame as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import keras
import pyarrow as pa
from pyspark import TaskContext
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.delivery import LazyPayload, deliver, localized
from distkeras.cluster.names import Table
from distkeras.cluster.outputs import Output, output_column, output_names, type_of
from distkeras.cluster.padded import with_columns
from distkeras.cluster.prediction import (
    COLUMNAR_INPUT,
    casts,
    columns_for,
    in_rows,
    paddings_for,
    travelling,
)
from distkeras.cluster.probe import check_python
from distkeras.cluster.resources import threads_of
from distkeras.cluster.session import present_session
from distkeras.cluster.source import check_new
from distkeras.cluster.validate import Names, check_batch_size
from distkeras.model.kinds import is_model
from distkeras.model.saved import save
from distkeras.model.spec import ensure_built
from distkeras.removed_names import missing
from distkeras.worker import predict as in_worker
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import PadTo
from distkeras.worker.predict import activation_bytes, predict_stream
from distkeras.worker.prediction import Prediction
from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import TensorSpec, fixed_batch

__all__ = ["ModelPredictor", "Output", "predict_udf"]

MINIBATCH_BYTES = 32 * 2**20
"""Upper limit for the layers' outputs for one minibatch, so that they stay in the processor's cache."""

LARGEST_MINIBATCH = 1024


class ModelPredictor:
    """Adds the outputs of a Keras model to a DataFrame, in one pass over its rows.

    Only the model's input columns go to Python, as Arrow batches. All other columns and the order of the rows
    stay unchanged. A Python worker process loads the model once, keeps it for later tasks, and runs Keras's
    own `predict_step` on as many cores as Spark gives a task (`spark.task.cpus`). Streaming DataFrames work
    too. Spark reruns a lost task.

    On the minibatches that `keras.Model.predict` would make, predictions are bitwise equal. On JAX, a partial
    minibatch is padded and may round differently.

    Args:
        keras_model: a built model, compiled or not; or several models with the same inputs and outputs, such
            as the members of an `EnsembleTrainer`, whose outputs are averaged.
        features_col: column of the model's input; for several inputs, one column each, as a list in the order
            of the inputs or as a dict by name. Columns hold numbers, arrays, Spark ML vectors, bytes, or
            strings for a model that takes strings. Flat rows are reshaped to the input's shape. For a model
            with one input, the columns of a list are concatenated in order. If the length of an input is
            unknown, it may differ from row to row.
        output_col: name of the new column, or one name per output. A single name for several outputs gives
            columns named `<output_col>_<name of the output>`.
        output: "array" for an array, nested like the output; "vector" for a Spark ML vector, for outputs of
            one axis; "scalar" for a number, for outputs of one value.
        batch_size: rows per call of the model. Default: the batch size that the model fixes, if any; else as
            many rows as fit `MINIBATCH_BYTES` of layer outputs, at most `LARGEST_MINIBATCH`. If the model
            fixes it, the last minibatch is padded.
        custom_objects: classes and functions of the model that are not registered with Keras, by name.
        preprocess: as in `DistributedTrainer`. It gets only the columns of `features_col`, which may be any
            columns, and `None` for `rng`. Only the x that it returns is used.
        pad_to: as in `DistributedTrainer`.

    Raises:
        TypeError: `keras_model` is not a Keras model.
        ValueError: the model is not built; there are no models, or their inputs or outputs differ; `output`
            or `batch_size` does not fit the model.

    Example:
        ```python
        predicted = ModelPredictor(model, features_col="features").predict(df)
        ```
    """

    def __init__(
        self,
        keras_model: keras.Model | Sequence[keras.Model],
        features_col: Names = "features",
        output_col: Names = "prediction",
        *,
        output: Output = "array",
        batch_size: int | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        preprocess: Callable[..., Any] | None = None,
        pad_to: PadTo | None = None,
    ) -> None:
        self.features_col = features_col
        self.output_col = output_col
        self.output = output
        models = _checked_models(keras_model)
        self._inputs, self._outputs = model_signature(models[0])
        self._output_columns = tuple(
            output_column(spec, output, str(index)) for index, spec in enumerate(self._outputs)
        )
        self._feeding = Feeding(preprocess, pad_to)
        self._features = columns_for(features_col, self._inputs, self._feeding)
        self._output_names = output_names(output_col, self._outputs)
        self._batch_size = _batch_size(models, batch_size, self._inputs)
        self._saved = tuple(save(model, custom_objects) for model in models)

    def predict(self, dataframe: DataFrame) -> DataFrame:
        """Return the rows of `dataframe` with the predictions as new columns. The call is lazy.

        When the rows are computed, a row that is null or does not fill the model's input ends the Spark job
        with an error that names column, partition and row.

        Raises:
            ValueError: a column is unknown, or an output column exists already or is given twice.
            TypeError: a column has a type that the model cannot take.
            ExecutorsNotReady: the executors' Python is not the driver's, and lacks a package.
        """
        check_new(self._output_names, dataframe, "output_col")
        prediction = self._prediction(dataframe.sparkSession)
        check_python(dataframe.sparkSession, prediction.backend)
        table = Table(dataframe)
        # Else Spark may run the model twice: once for a filter on the prediction and once for the column.
        udf = F.arrow_udf(_stream_function(prediction), type_of(self._output_columns)).asNondeterministic()
        answer = udf(F.struct(*casts(table, self._features, self._inputs, self._feeding)))
        rows = in_rows(table.frame)
        if len(self._output_columns) == 1:
            (name,) = self._output_names
            return table.named(rows.select("*", self._finished(answer).alias(name)))
        whole = _unused("predictions", rows.columns)
        parts = [
            self._finished(F.col(whole)[found.name]).alias(name)
            for found, name in zip(self._output_columns, self._output_names, strict=True)
        ]
        return table.named(rows.select("*", answer.alias(whole)).select("*", *parts).drop(whole))

    def _prediction(self, spark: SparkSession) -> Prediction:
        names = [", ".join(names) for names in self._features]
        return Prediction(
            models=deliver(spark, self._saved),
            backend=keras.backend.backend(),
            threads=threads_of(spark),
            inputs=self._inputs,
            columns=_apart(names),
            output_columns=self._output_columns,
            batch_size=self._batch_size,
            preprocess=travelling(names, self._inputs, self._feeding),
            paddings=paddings_for(names, self._inputs, self._feeding),
        )

    def _finished(self, answer: Column) -> Column:
        return array_to_vector(answer) if self.output == "vector" else answer


def predict_udf(
    keras_model: keras.Model | Sequence[keras.Model],
    *,
    output: Literal["array", "scalar"] = "array",
    batch_size: int | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    features_col: Names | None = None,
    preprocess: Callable[..., Any] | None = None,
    pad_to: PadTo | None = None,
) -> Callable[..., Column]:
    """Return a function of columns, one per input of the model, for SQL and for expressions.

    A model with several outputs gives a struct with one field per output, by name. If a predicate also uses
    the prediction, Spark may run the model twice; `ModelPredictor` never does.

    On Spark 4.3 this function sets `spark.sql.execution.arrow.pythonUDF.columnarInput.enabled` of the active
    session to false, for all Arrow UDFs: with this setting, Spark fails on Parquet and ORC rows that contain
    a Spark ML vector. You can set it to true again if no row contains one.

    Args:
        keras_model: as in `ModelPredictor`.
        output: as in `ModelPredictor`.
        batch_size: as in `ModelPredictor`.
        custom_objects: as in `ModelPredictor`.
        features_col: names of the arguments, in order; `preprocess` and `pad_to` use these names. Default:
            the names of the inputs.
        preprocess: as in `ModelPredictor`.
        pad_to: as in `ModelPredictor`.

    Raises:
        TypeError, ValueError: as `ModelPredictor`.

    Example:
        ```python
        spark.udf.register("score", predict_udf(model, output="scalar"))
        spark.sql("SELECT id, score(features) AS score FROM rows")
        ```
    """
    models = _checked_models(keras_model)
    inputs, outputs = model_signature(models[0])
    feeding = Feeding(preprocess, pad_to)
    given = [spec.name for spec in with_columns(inputs, feeding)]
    arguments = columns_for(given if features_col is None else features_col, inputs, feeding, single=True)
    names = [name for (name,) in arguments]
    spark = present_session()
    if spark is not None:
        _check_session(spark)
    prediction = Prediction(
        models=LazyPayload(tuple(save(model, custom_objects) for model in models)),
        backend=keras.backend.backend(),
        threads=1 if spark is None else threads_of(spark),
        inputs=inputs,
        columns=_apart(names),
        output_columns=tuple(output_column(spec, output, spec.key or spec.name) for spec in outputs),
        batch_size=_batch_size(models, batch_size, inputs),
        preprocess=travelling(names, inputs, feeding),
        paddings=paddings_for(names, inputs, feeding),
    )

    def predict(*columns: pa.Array) -> pa.Array:
        return in_worker.Predictor(_localized(prediction))(list(columns))

    udf: Callable[..., Column] = F.arrow_udf(predict, type_of(prediction.output_columns))
    return udf


def _check_session(spark: SparkSession) -> None:
    """Check that executors can predict, and turn off the setting that breaks functions of columns."""
    check_python(spark, keras.backend.backend())
    if spark.conf.get(COLUMNAR_INPUT, None) is not None:
        # A function of columns cannot change the plan, as `in_rows` does.
        spark.conf.set(COLUMNAR_INPUT, "false")


def _stream_function(prediction: Prediction) -> Callable[[Iterator[pa.Array]], Iterator[pa.Array]]:
    def distkeras_predict(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        context = TaskContext.get()
        return predict_stream(_localized(prediction), batches, context.partitionId() if context else 0)

    return distkeras_predict


def _localized(prediction: Prediction) -> Prediction:
    return replace(prediction, models=localized(prediction.models))


def _checked_models(given: keras.Model | Sequence[keras.Model]) -> list[keras.Model]:
    models = list(given) if isinstance(given, list | tuple) else [given]
    for model in models:
        if not is_model(model):
            raise TypeError(
                f"`keras_model` must be a Keras model, or a list of them. Received: {type(model)}"
            )
        ensure_built(model)
    forms = {
        tuple(tuple((spec.shape, spec.dtype, spec.key) for spec in specs) for specs in model_signature(model))
        for model in models
    }
    if len(forms) != 1:
        raise ValueError(
            "Expected at least one model, all with the same inputs and outputs. "
            f"Received: {len(models)} models with {len(forms)} different signatures"
        )
    return models


def _batch_size(models: Sequence[keras.Model], given: int | None, inputs: Sequence[TensorSpec]) -> int:
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ValueError(f"`batch_size` must be a positive integer. Received: batch_size={given!r}")
        check_batch_size(inputs, given)
        return given
    fixed = fixed_batch(inputs)
    if fixed is not None:
        return fixed
    row = max(activation_bytes(model) for model in models)
    size = min(LARGEST_MINIBATCH, max(1, MINIBATCH_BYTES // max(1, row)))
    return 1 << (size.bit_length() - 1)


def _apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return `names`; names that occur more than once get the index of their input."""
    return tuple(
        name if list(names).count(name) == 1 else f"{name} (input {index})"
        for index, name in enumerate(names)
    )


def _unused(name: str, taken: Sequence[str]) -> str:
    while name.lower() in {other.lower() for other in taken}:
        name += "_"
    return name


if not TYPE_CHECKING:  # Else type checkers would accept any name in this module.

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
