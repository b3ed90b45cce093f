"""A replica for each backend of Keras."""

from __future__ import annotations

import keras

from distkeras.worker.replica import Replica

__all__ = ["make_replica"]


def make_replica(model: keras.Model) -> Replica:
    """Return the replica of `model` for Keras's backend.

    Args:
        model: a built and compiled model.

    Raises:
        ValueError: the backend cannot train.
    """
    backend = keras.backend.backend()
    match backend:
        case "jax":
            from distkeras.worker.backends.jax_replica import JaxReplica

            return JaxReplica(model)
        case "tensorflow":
            from distkeras.worker.backends.tensorflow_replica import TensorFlowReplica

            return TensorFlowReplica(model)
        case "torch":
            from distkeras.worker.backends.torch_replica import TorchReplica

            return TorchReplica(model)
    raise ValueError(
        "Expected a Keras backend that trains: set KERAS_BACKEND to 'jax', 'tensorflow' or 'torch'. "
        f"Received: backend={backend!r}"
    )
