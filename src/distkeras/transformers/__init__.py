"""The DataFrame transformers of dist-keras, under their old names, as native Spark expressions.

Each is a `pyspark.ml` Transformer with Params, and works in a Pipeline. Its constructor takes the same
arguments as in dist-keras; they may also be set later. Vectors give vectors, arrays give arrays, and a null
stays null.
"""

from typing import TYPE_CHECKING, Any

from distkeras.removed_names import missing
from distkeras.transformers.base import ColumnTransformer
from distkeras.transformers.binary_label import BinaryLabelTransformer
from distkeras.transformers.dense import DenseTransformer
from distkeras.transformers.label_index import LabelIndexTransformer
from distkeras.transformers.min_max import MinMaxTransformer
from distkeras.transformers.one_hot import OneHotTransformer
from distkeras.transformers.reshape import ReshapeTransformer
from distkeras.transformers.standard import StandardTransformer

__all__ = [
    "BinaryLabelTransformer",
    "ColumnTransformer",
    "DenseTransformer",
    "LabelIndexTransformer",
    "MinMaxTransformer",
    "OneHotTransformer",
    "ReshapeTransformer",
    "StandardTransformer",
]

if not TYPE_CHECKING:  # Else type checkers would accept any name in this module.

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
