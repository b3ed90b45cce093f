"""Every optimizer of Keras, and what they have beside the step: averages, decay, clipping, accumulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import optimizers
from registry import Training, case
from samples import classes, mlp, numbers, sgd


def by(optimizer: Any) -> Training:
    """Return the training of a small classifier by `optimizer`."""
    settings = {"optimizer": optimizer, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    return Training(mlp(), numbers(6), classes(3), settings)


def still() -> optimizers.Optimizer:
    """An optimizer of rate 0, for cases whose own moves even so, or divides by its rate."""
    return sgd(learning_rate=0.0)


# Where a step divides by the root of a gradient's square, an epsilon as large as such roots keeps rounding
# small where a gradient is near zero.
@case(everywhere=True)
def sgd_momentum() -> Training:
    return by(sgd(momentum=0.9))


@case()
def sgd_nesterov() -> Training:
    return by(sgd(momentum=0.9, nesterov=True))


@case()
def sgd_by_name() -> Training:
    return by("sgd")


@case(everywhere=True)
def adam() -> Training:
    return by(optimizers.Adam(0.01, epsilon=0.1))


@case()
def adam_amsgrad() -> Training:
    return by(optimizers.Adam(0.01, epsilon=0.1, amsgrad=True))


@case()
def adamw() -> Training:
    return by(optimizers.AdamW(0.01, weight_decay=0.1, epsilon=0.1))


@case()
def rmsprop() -> Training:
    return by(optimizers.RMSprop(0.01, epsilon=0.1, momentum=0.5, centered=True))


@case()
def adagrad() -> Training:
    return by(optimizers.Adagrad(0.05, epsilon=0.1))


@case()
def adadelta() -> Training:
    return by(optimizers.Adadelta(0.5, epsilon=0.1))


@case()
def adamax() -> Training:
    return by(optimizers.Adamax(0.01, epsilon=0.1))


@case()
def nadam() -> Training:
    return by(optimizers.Nadam(0.01, epsilon=0.1))


@case(still=still)
def ftrl() -> Training:
    return by(optimizers.Ftrl(0.05, initial_accumulator_value=0.5))


@case()
def lion() -> Training:
    """Its step is a sign."""
    return by(optimizers.Lion(0.01))


@case()
def lamb() -> Training:
    return by(optimizers.Lamb(0.01, epsilon=0.1))


@case()
def adafactor() -> Training:
    return by(optimizers.Adafactor(0.01, epsilon_1=0.01))


@case(still=still)
def muon() -> Training:
    return by(optimizers.Muon(0.01, epsilon=0.1))


@case(everywhere=True, still=still)
def ema() -> Training:
    """`fit` ends with the average in the weights."""
    return by(sgd(use_ema=True, ema_momentum=0.9))


@case(still=still)
def ema_overwriting() -> Training:
    return by(sgd(use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3))


@case(still=still)
def ema_of_adam() -> Training:
    return by(optimizers.Adam(0.01, epsilon=0.1, use_ema=True, ema_momentum=0.5))


@case()
def gradient_accumulation() -> Training:
    return by(sgd(gradient_accumulation_steps=3))


@case()
def clip_by_norm() -> Training:
    return by(sgd(clipnorm=0.1))


@case()
def clip_by_global_norm() -> Training:
    return by(sgd(global_clipnorm=0.1))


@case()
def clip_by_value() -> Training:
    return by(sgd(clipvalue=0.01))


def excluding(optimizer: optimizers.Optimizer, **options: Any) -> optimizers.Optimizer:
    """Return `optimizer`, which does not decay what `options` name: no part of its configuration."""
    optimizer.exclude_from_weight_decay(**options)
    return optimizer


@case(everywhere=True)
def weight_decay_without_biases() -> Training:
    return by(excluding(optimizers.AdamW(0.01, weight_decay=2.0, epsilon=0.1), var_names=["bias"]))


@case()
def weight_decay_without_some_variables() -> Training:
    training = by(None)
    optimizer = optimizers.SGD(0.05, weight_decay=2.0)
    excluding(optimizer, var_list=[training.model.layers[0].kernel, training.model.layers[1].bias])
    return replace(training, settings={**training.settings, "optimizer": optimizer})


class Signs(keras.optimizers.Optimizer):
    """An optimizer of the user's own, with a count of steps for each variable."""

    def __init__(self, learning_rate: float = 0.01, name: str = "signs", **options: Any) -> None:
        super().__init__(learning_rate, name=name, **options)

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.sums = [self.add_variable_from_reference(variable, "sums") for variable in variables]

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        total = self.sums[self._get_variable_index(variable)]
        self.assign_add(total, gradient)
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * keras.ops.tanh(total))


@case()
def optimizer_of_its_own() -> Training:
    return by(Signs(0.05))


class Partial(optimizers.SGD):
    """Its configuration leaves out a list and a function."""

    factors, change = (1.0,), None

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        gradient = gradient * self.factors[0]
        super().update_step(self.change(gradient) if self.change else gradient, variable, learning_rate)


@case(everywhere=True)
def optimizer_with_attributes_outside_its_configuration() -> Training:
    optimizer = Partial(0.1, momentum=0.9)
    optimizer.factors, optimizer.change = [0.5], keras.ops.tanh
    return by(optimizer)


@case()
def optimizer_given_to_the_trainer() -> Training:
    training = by(optimizers.Adam(0.01, epsilon=0.1))
    return replace(training, to_trainer=True)


def still_schedule() -> optimizers.Optimizer:
    """At rate 0, by a schedule."""
    return sgd(learning_rate=optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.0]))


@case(still=still_schedule)
def schedule_exponential() -> Training:
    return by(sgd(learning_rate=optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)))


@case(still=still_schedule)
def schedule_cosine_with_warmup() -> Training:
    rate = optimizers.schedules.CosineDecay(0.01, 6, warmup_target=0.1, warmup_steps=3)
    return by(optimizers.Adam(rate, epsilon=0.1))


@case(still=still_schedule, everywhere=True)
def schedule_piecewise() -> Training:
    return by(sgd(learning_rate=optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 0.0])))


class Sawtooth(optimizers.schedules.LearningRateSchedule):
    """A schedule of the user's own."""

    def __init__(self, rate: float, period: int) -> None:
        self.rate, self.period = rate, period

    def __call__(self, step: Any) -> Any:
        return self.rate * keras.ops.cast(step % self.period + 1, "float32") / self.period

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "period": self.period}


@case(still=still_schedule)
def schedule_of_its_own() -> Training:
    return by(sgd(learning_rate=Sawtooth(0.1, 4)))


@case(backends=("jax", "torch"))  # On TensorFlow `fit` loses its first weights, unless it is built before.
def schedule_free_adamw() -> Training:
    return by(optimizers.ScheduleFreeAdamW(0.01, epsilon=0.1))


@case(everywhere=True, still=still)
def optimizers_by_the_paths_of_weights() -> Training:
    training = by("sgd")
    kernel, bias = training.model.layers[0].weights
    chosen = optimizers.OptimizerMap(
        sgd(), {kernel.path: optimizers.Adam(0.01, epsilon=0.1), bias.path: sgd(momentum=0.5)}
    )
    return replace(training, settings={**training.settings, "optimizer": optimizers.MultiOptimizer(chosen)})


@case(still=still, everywhere=True)
def optimizers_by_a_function_of_weights() -> Training:
    first, second = sgd(momentum=0.5), optimizers.Adam(0.01, epsilon=0.1)
    return by(optimizers.MultiOptimizer(lambda weight: first if weight.path.endswith("kernel") else second))


@case()
def muon_without_layers_at_a_path() -> Training:
    training = by("sgd")
    excluded = [f"^{training.model.layers[0].path}/"]
    optimizer = optimizers.Muon(0.01, epsilon=0.1, exclude_layers=excluded)
    return replace(training, settings={**training.settings, "optimizer": optimizer})
