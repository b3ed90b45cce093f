"""Models with a training step, a loss or a `compile` of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import layers, ops
from registry import Training, case
from samples import numbers, sgd, targets


def network(cls: type[keras.Model]) -> keras.Model:
    """Return a functional model of class `cls`."""
    inputs = keras.Input((6,))
    return cls(inputs, layers.Dense(1)(layers.Dense(5, activation="tanh")(inputs)))


def training_of(model: keras.Model, **options: Any) -> Training:
    """Return the training of a regression."""
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"}, **options)


class OwnLoss(keras.Model):
    """Adds to the loss in `compute_loss`."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return super().compute_loss(x, y, y_pred, sample_weight, training) + 0.1 * ops.mean(y_pred**2)


@case()
def own_compute_loss() -> Training:
    return training_of(network(OwnLoss))


class OwnMetrics(keras.Model):
    """Gives metrics in `compute_metrics`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sums = keras.metrics.Sum(name="sums")

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        self.sums.update_state(y_pred)
        return {**super().compute_metrics(x, y, y_pred, sample_weight), "sums": self.sums.result()}


@case()
def own_compute_metrics() -> Training:
    return training_of(network(OwnMetrics))


class Unrevivable(keras.Model):
    """Keras loads a subclass of functional models only where its arguments are `args` and `kwargs`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)


@case()
def functional_subclass_that_keras_cannot_load() -> Training:
    return training_of(network(Unrevivable))


class JaxStep(keras.Model):
    """A step in the manner of JAX: without side effects."""

    def train_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, others, optimizer, metrics = state
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)

        def loss_of(trainable: Any, others: Any) -> Any:
            predicted, others = self.stateless_call(trainable, others, x, training=True)
            return 2 * ops.mean((y - predicted) ** 2), others

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, others, optimizer, metrics)


class TensorFlowStep(keras.Model):
    """A step with a gradient tape."""

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = 2 * ops.mean((y - self(x, training=True)) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


class TorchStep(keras.Model):
    """A step with PyTorch's own backward pass."""

    def train_step(self, data: Any) -> dict[str, Any]:
        import torch

        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.zero_grad()
        loss = 2 * ops.mean((ops.convert_to_tensor(y) - self(x, training=True)) ** 2)
        loss.backward()
        weights = list(self.trainable_weights)
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach()}


@case()
def own_train_step() -> Training:
    steps = {"jax": JaxStep, "tensorflow": TensorFlowStep, "torch": TorchStep}
    return training_of(network(steps[keras.backend.backend()]))


class OwnCompile(keras.Model):
    """Takes an argument of its own in `compile`, and says how it is compiled anew."""

    def compile(self, factor: float = 1.0, **options: Any) -> None:
        super().compile(**options)
        self.factor = factor

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        return self.factor * super().compute_loss(*arguments, **options)

    def get_compile_config(self) -> dict[str, Any]:
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "loss": self.loss,
            "factor": self.factor,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))


@case()
def own_compile() -> Training:
    training = training_of(network(OwnCompile))
    return replace(training, settings={**training.settings, "factor": 3.0})


class CompilesBefore(keras.Model):
    """Has a `compile` of its own that takes what Keras's takes, and says nothing of a configuration."""

    def compile(self, optimizer: Any = "sgd", loss: Any = "mse", **options: Any) -> None:
        super().compile(optimizer=optimizer, loss=loss, **options)


@case(everywhere=True)
def own_compile_without_configuration() -> Training:
    """Optimizer and loss are given to the trainer."""
    return training_of(network(CompilesBefore), to_trainer=True, options={"metrics": []})


@case(backends=("jax", "tensorflow"))
def several_steps_an_execution() -> Training:
    training = training_of(network(keras.Model))
    return replace(training, settings={**training.settings, "steps_per_execution": 2})


@case()
def run_eagerly() -> Training:
    training = training_of(network(keras.Model))
    return replace(training, settings={**training.settings, "run_eagerly": True})


class Adversarial(keras.Model):
    """A generator and a discriminator, each with an optimizer: the first is also the model's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.generator = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
        self.discriminator = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(1)]
        )
        self.seen = keras.metrics.Mean(name="seen")

    def compile(self, optimizer: Any, second: Any, **options: Any) -> None:
        super().compile(optimizer, "mse", **options)
        self.generator_optimizer, self.optimizers = optimizer, {"discriminator": second}

    def call(self, inputs: Any) -> Any:
        return self.discriminator(self.generator(inputs))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = ops.convert_to_tensor(x)
        found = self.stepped(
            self.optimizers["discriminator"],
            self.discriminator.trainable_weights,
            lambda: ops.mean((self.discriminator(x) - 1) ** 2) + ops.mean(self(x) ** 2),
        )
        weights = self.generator.trainable_weights
        self.stepped(self.generator_optimizer, weights, lambda: ops.mean((self(x) - 1) ** 2))
        self.seen.update_state(found)
        return {"seen": self.seen.result()}

    def stepped(self, optimizer: Any, weights: list[keras.Variable], loss_of: Any) -> Any:
        """Step `weights` along the gradient, and return the loss."""
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = loss_of()
            optimizer.apply(tape.gradient(loss, weights), weights)
            return loss
        import torch

        self.zero_grad()
        loss = loss_of()
        loss.backward()
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights], weights)
        return loss.detach()


def adversarial(**options: Any) -> Training:
    """Return the training of two networks by two optimizers."""
    model = Adversarial()
    model(ops.zeros((1, 6)))
    adam = [keras.optimizers.Adam(rate, epsilon=0.1) for rate in (0.01, 0.02)]
    return Training(model, numbers(6), targets(1), {"optimizer": adam[0], "second": adam[1]}, **options)


@case(backends=("torch",), everywhere=True)
def two_optimizers() -> Training:
    """On TensorFlow `fit` makes the first optimizer's state of fewer weights than a worker does."""
    return adversarial()


@case(backends=("tensorflow", "torch"), everywhere=True)
def two_optimizers_that_have_trained() -> Training:
    return adversarial(before=2)
