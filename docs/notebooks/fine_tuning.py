# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tune a KerasHub backbone with LoRA
#
# A large model is seldom trained from the start. One takes a pretrained backbone, freezes it, and trains a
# few new weights: a head, or with LoRA two thin matrices beside each projection of the attention. After this
# notebook you can
#
# - fine-tune a model of KerasHub on the executors of Spark,
# - tell what travels between workers and server, and how little that is with LoRA,
# - check that the frozen weights stay as they were.
#
# It needs KerasHub (`pip install keras-hub`).

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import keras_hub
import numpy as np
import pandas as pd

import distkeras

# %% [markdown]
# ## A backbone
#
# In practice this cell is `keras_hub.models.BertBackbone.from_preset("bert_tiny_en_uncased")`. The notebook
# should run without a download, so it makes a small BERT with random weights. All that follows is the same.


# %%
def make_classifier():
    keras.utils.set_random_seed(3)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=12,
        dropout=0.0,
    )
    return keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None, dropout=0.0)


print(f"{make_classifier().count_params():,} weights")

# %% [markdown]
# ## A task
#
# Texts of 12 tokens. A text is of class 1 if it has more tokens from the first half of the vocabulary than
# from the second one. (With a preset, a `BertTextClassifierPreprocessor` makes these arrays from strings.)

# %%
generator = np.random.default_rng(0)
lean = generator.uniform(0.2, 0.8, size=(3000, 1))
first_half = generator.random((3000, 12)) < lean
tokens = np.where(first_half, generator.integers(1, 50, (3000, 12)), generator.integers(50, 100, (3000, 12)))
labels = (first_half.mean(1) > 0.5).astype("int32")
inputs = {
    "token_ids": tokens.astype("int32"),
    "segment_ids": np.zeros_like(tokens, dtype="int32"),
    "padding_mask": np.ones_like(tokens, dtype="int32"),
}
training = ({name: column[:2400] for name, column in inputs.items()}, labels[:2400])
test = ({name: column[2400:] for name, column in inputs.items()}, labels[2400:])

# %% [markdown]
# ## Two ways to fine-tune
#
# `enable_lora(4)` adds matrices of rank 4 to the backbone's attention, and freezes all its other weights. The
# trainer is the same for both. (`model.backbone.trainable = False` would train the head alone.)


# %%
def fine_tune(kind):
    model = make_classifier()
    if kind == "LoRA":
        model.backbone.enable_lora(4)
    before = [weight.numpy() for weight in model.weights]
    trainer = distkeras.DOWNPOUR(
        model,
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        num_workers=2,
        communication_window=5,
        num_epoch=4,
        seed=0,
        verbose=0,
    )
    return trainer, trainer.train(training), before


results, trained, before = {}, {}, {}
for kind in ("LoRA", "all weights"):
    trainer, trained[kind], before[kind] = fine_tune(kind)
    windows = trainer.get_history()
    results[kind] = {
        "trainable weights": sum(weight.numpy().size for weight in trained[kind].trainable_weights),
        "kB a window": np.mean([window.timing.bytes_out for window in windows]) / 1e3,
        "accuracy on test": trainer.evaluate(test)["accuracy"],
    }
pd.DataFrame(results).T.round(3)

# %% [markdown]
# A window sends what is trained, and nothing else. The whole model goes to each worker once, at the
# beginning. That is where LoRA and rare communication meet: on a backbone with a billion weights, a few
# megabytes travel per window.
#
# ## What has changed
#
# The weights that the training of LoRA has changed, and how far:

# %%
pairs = list(zip(trained["LoRA"].weights, before["LoRA"], strict=True))
for weight, old in pairs:
    moved = float(np.abs(weight.numpy() - old).max())
    if moved:
        print(f"{moved:.3f}  {weight.path}")

# %% [markdown]
# All others are the same bits as before:

# %%
frozen = [(weight, old) for weight, old in pairs if not weight.trainable]
assert all(np.array_equal(weight.numpy(), old) for weight, old in frozen)
print(len(frozen), "frozen tensors are untouched")

# %% [markdown]
# The result is a task of KerasHub as `fit` would leave it: `trained["LoRA"].save("tuned.keras")` saves it,
# `ModelPredictor` predicts with it on Spark.
#
# ## Next
#
# - [Models](../models.md): what travels, what moves, what comes back.
# - [Compression](../algorithms.md#compression): `compression="int8"` makes a message a quarter of its
#   size.
