"""Whether a larger or a smaller value of a metric is better: the only place that knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

Mode = Literal["min", "max"]

_WORDS: dict[Mode, tuple[str, ...]] = {
    "max": (
        *("acc", "accuracy", "auc", "auroc", "auprc", "precision", "recall", "sensitivity", "specificity"),
        *("true_positives", "true_negatives", "f1", "f1score", "fbeta", "f_beta", "dice", "jaccard"),
        *("iou", "io_u", "miou", "r2", "r_squared", "cosine_similarity", "correlation", "kappa", "mcc"),
        *("psnr", "ssim", "bleu", "rouge", "ndcg"),
    ),
    "min": (
        *("loss", "error", "crossentropy", "cross_entropy", "bce", "ce", "hinge", "divergence", "kld"),
        *("poisson", "perplexity", "nll", "mse", "mae", "mape", "msle", "rmse", "log_cosh", "logcosh"),
        *("huber", "wer", "cer", "false_positives", "false_negatives"),
    ),
}
"""Words in the names of metrics that have no direction of their own."""


def mode_of(name: str, metrics: Iterable[Any] = ()) -> Mode | None:
    """Return "max" if larger values of a metric are better, "min" if smaller are; `None` if nothing tells.

    As in Keras's callbacks, the compiled metrics decide, which know their direction. Else the name does.

    Args:
        name: the name of the metric in the logs, such as "val_accuracy"; with several outputs it begins with
            that of the output.
        metrics: the metrics of the model, as `compiled_metrics` returns them.
    """
    own = name.removeprefix("val_")
    if own == "loss" or own.endswith("_loss"):
        return "min"
    known = [(each, mode) for each, mode in _modes_of(metrics) if f"_{own}".endswith(f"_{each}")]
    if known:
        return max(known, key=lambda found: len(found[0]))[1]
    words = f"_{_snake_case(own)}_"
    found = [mode for mode, some in _WORDS.items() if any(f"_{word}_" in words for word in some)]
    return found[0] if len(found) == 1 else None


def known_mode(name: str, metrics: Iterable[Any], to_say_it: str) -> Mode:
    """Return `mode_of` a metric; `to_say_it` is what the user may write where it is not known.

    Raises:
        ValueError: it is not known.
    """
    mode = mode_of(name, metrics)
    if mode is None:
        raise ValueError(
            f"It is not known whether a larger value of {name!r} is better: neither the compiled metrics nor "
            "the "
            f"name says so. Set {to_say_it}. Received: no mode for {name!r}"
        )
    return mode


def compiled_metrics(model: Any) -> list[Any]:
    """Return the metrics that a Keras model is compiled with: objects, functions and names."""
    import keras

    compiled = getattr(model, "_compile_metrics", None)
    given = [] if compiled is None else [compiled._user_metrics, compiled._user_weighted_metrics]
    return [each for each in keras.tree.flatten(given) if each is not None]


def _modes_of(metrics: Iterable[Any]) -> Iterator[tuple[str, Mode]]:
    """Yield the name and the mode of each metric that knows its direction."""
    import keras

    for given in metrics:
        if given is None or isinstance(given, str):
            continue  # Keras chooses some by the shape of the targets. The names of all tell the direction.
        is_metric = isinstance(given, keras.metrics.Metric)
        # Keras wraps functions and losses, and the wrapper of its own losses knows that less is better.
        metric = given if is_metric else keras.metrics.MeanMetricWrapper(given, name="direction")
        if hasattr(metric, "_direction"):
            name = getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__)
            yield str(name), "max" if metric._direction == "up" else "min"


def _snake_case(name: str) -> str:
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name))
    return re.sub(r"\W+", "_", parts).lower()
