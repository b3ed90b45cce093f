"""Tasks and backbones of KerasHub, small ones with random weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd

LENGTH = 12


def tokens() -> dict[str, Any]:
    """What a BERT takes."""
    found = ids(50, LENGTH)
    return {
        "token_ids": found,
        "segment_ids": np.zeros_like(found),
        "padding_mask": (found != 0).astype(np.int32),
    }


def bert() -> Any:
    """A BERT of one layer."""
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )


def classifier(backbone: Any) -> Training:
    """Return the training of a text classifier on `backbone`, its tokens made before."""
    import keras_hub

    task = keras_hub.models.BertTextClassifier(backbone, num_classes=3, preprocessor=None, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"optimizer": sgd(), "loss": loss, "metrics": ["sparse_categorical_accuracy"]}
    return Training(task, tokens(), classes(3), settings)


@case(everywhere=True)
def kerashub_classifier() -> Training:
    return classifier(bert())


@case()
def kerashub_frozen_backbone() -> Training:
    backbone = bert()
    training = classifier(backbone)
    backbone.trainable = False
    return training


@case()
def kerashub_lora() -> Training:
    backbone = bert()
    training = classifier(backbone)
    backbone.enable_lora(2)
    return training


@case()
def kerashub_backbone_with_a_head() -> Training:
    backbone = bert()
    pooled = backbone.output["pooled_output"]
    model = keras.Model(backbone.input, layers.Dense(3, activation="softmax")(pooled))
    backbone.get_layer("token_embedding").trainable = False
    settings = {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    return Training(model, tokens(), classes(3), settings)


@case()
def kerashub_causal_language_model() -> Training:
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=50,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LENGTH,
        dropout=0.0,
    )
    task = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    found = ids(50, LENGTH + 1)
    x = {"token_ids": found[:, :-1].copy(), "padding_mask": (found[:, :-1] != 0).astype(np.int32)}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"optimizer": sgd(), "loss": loss}
    return Training(task, x, found[:, 1:].copy(), settings)


@case()
def kerashub_residual_network() -> Training:
    """Convolutions and BatchNorm."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(8, 8, 3),
    )
    task = keras_hub.models.ImageClassifier(backbone, num_classes=3, preprocessor=None, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"optimizer": sgd(), "loss": loss}
    return Training(task, numbers(8, 8, 3), classes(3), settings)
