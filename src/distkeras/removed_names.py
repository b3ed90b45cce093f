"""Names of dist-keras that were removed, and their replacements. Using one gives an error that names both.

`docs/migration.md` lists the same names. This module imports nothing from this project.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

__all__ = [
    "ARGUMENTS",
    "MEMBERS",
    "MODULES",
    "NAMES",
    "Count",
    "ModuleFinder",
    "WithoutOldNames",
    "missing",
    "named_arguments",
]

P = ParamSpec("P")

_RULE = "derive your algorithm from `distkeras.algorithms.Algorithm`, and run it with `DistributedTrainer`"
_BY_ITSELF = f"`train` starts and ends workers and parameter server; {_RULE}"
_SERVER = (
    "the system chooses a port; `server=distkeras.ServerOptions(host=..., ports=...)` sets host and ports"
)
_PARTITIONS = "leave it out: there is one partition per worker, and `num_workers=` sets their number"
_CLOCK = "`train` measures the time; `trainer.get_training_time()` returns the seconds"
_AHEAD = "leave it out: workers always prefetch"
_RATE = "pass the optimizer with its rate, `worker_optimizer=keras.optimizers.SGD(0.1)`"
_OF_RULE = "it is a field of the algorithm, `trainer.algorithm`"
_PICKLE = (
    "nothing is pickled; save a model with `model.save(path)`, or `distkeras.utils.serialize_keras_model`"
)

MODULES = {
    "workers": f"the trainers start the workers; {_RULE}",
    "parameter_servers": f"the trainers start the parameter server; {_RULE}",
    "networking": "the trainers connect the workers; the protocol is in `distkeras.wire`",
    "schemes": "give `worker_optimizer` a schedule of `keras.optimizers.schedules`, or search with "
    "`pyspark.ml.tuning` over an estimator of `distkeras.ml`",
    "job_deployment": "submit the script to the cluster with `spark-submit`",
}
"""Removed modules of the package, with their replacements."""

NAMES = {
    "trainers": {
        "AsynchronousDistributedTrainer": _RULE,
        "Experimental": "use `AdaptiveADAG`",
    },
    "predictors": {"Predictor": "use `ModelPredictor`"},
    "transformers": {"Transformer": "use `ColumnTransformer`, or derive from `pyspark.ml.Transformer`"},
    "evaluators": {"Evaluator": "use `ColumnEvaluator`, or derive from `pyspark.ml.evaluation.Evaluator`"},
    "utils": {
        "get_os_username": "use `getpass.getuser()`",
        "pickle_object": _PICKLE,
        "set_keras_base_directory": "set the environment variable `KERAS_HOME` before Keras is imported",
        "unpickle_object": _PICKLE,
    },
}
"""Removed names in the modules that still exist, with their replacements."""

MEMBERS = {
    "allocate_parameter_server": _BY_ITSELF,
    "allocate_worker": _BY_ITSELF,
    "average_models": "`AveragingTrainer` averages the models; `distkeras.merge(models)` merges models",
    "communication_window": _OF_RULE,
    "determine_new_master": _SERVER,
    "features_column": "use `trainer.features_col`",
    "get_features_column": "use `trainer.features_col`",
    "get_label_column": "use `trainer.label_col`",
    "get_learning_rate": _RATE,
    "get_minibatch_size": "use `trainer.batch_size`",
    "get_num_epoch": "use `trainer.num_epoch`",
    "get_num_workers": "use `trainer.num_workers`",
    "get_parallelism_factor": _PARTITIONS,
    "history": "use `trainer.get_history()`",
    "label_column": "use `trainer.label_col`",
    "learning_rate": _RATE,
    "master_host": _SERVER,
    "master_model": "use `trainer.keras_model`",
    "master_port": _SERVER,
    "max_mini_batches_prefetch": _AHEAD,
    "momentum": _OF_RULE,
    "parallelism_factor": _PARTITIONS,
    "parameter_server": _BY_ITSELF,
    "record_training_end": _CLOCK,
    "record_training_start": _CLOCK,
    "rho": _OF_RULE,
    "serialize": "save the model that `train` returns, `model.save(path)`, or an estimator of `distkeras.ml`",
    "service": _BY_ITSELF,
    "set_features_column": "pass `features_col=` to the trainer",
    "set_label_column": "pass `label_col=` to the trainer",
    "set_learning_rate": _RATE,
    "set_master": _SERVER,
    "set_max_prefetch": _AHEAD,
    "set_minibatch_size": "pass `batch_size=` to the trainer",
    "set_model": "pass the model to a new trainer, `keras_model=`",
    "set_num_epoch": "pass `num_epoch=` to the trainer",
    "set_num_workers": "pass `num_workers=` to the trainer",
    "set_parallelism_factor": _PARTITIONS,
    "start_service": _BY_ITSELF,
    "stop_service": _BY_ITSELF,
    "training_time": "use `trainer.get_training_time()`",
}
"""Removed methods and attributes of trainers, with their replacements."""

ARGUMENTS = {"master_port": _SERVER}
"""Removed arguments of trainers, with their replacements."""


def missing(module: str, name: str) -> Exception:
    """Return the error for `name`, which `module` does not have.

    For a removed name it is an ImportError, because `from ... import` hides the message of an AttributeError.

    Args:
        module: the module's `__name__`.
        name: the requested name.
    """
    package, _, inner = module.partition(".")
    if not inner and name in MODULES:
        return AttributeError(_message(f"`{package}.{name}`", MODULES[name]), name=name)
    hint = NAMES.get(inner or "trainers", {}).get(name)
    if hint is not None:
        return ImportError(_message(f"`{name}`", hint), name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)


def _message(what: str, hint: str) -> str:
    return f"{what} of dist-keras was removed: {hint}. docs/migration.md has the whole list."


class ModuleFinder:
    """The last finder in `sys.meta_path`: raises an error with the replacement for a removed module."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Return None: this finder finds no modules.

        Raises:
            ModuleNotFoundError: dist-keras had this module.
        """
        package, _, module = name.partition(".")
        if package == "distkeras" and module in MODULES:
            # Without `name=`: with it, `from distkeras import workers` would ignore this error.
            raise ModuleNotFoundError(_message(f"`{name}`", MODULES[module]))


class WithoutOldNames:
    """Abstract: access to a removed member raises an error with its replacement.

    A subclass outside this project may define and set members of these names.

    Raises:
        AttributeError: a name of `MEMBERS` is read and does not exist, or is set on a class of this project.
    """

    if not TYPE_CHECKING:  # Else type checkers would accept any name as a member.

        def __getattr__(self, name: str) -> Any:
            hint = MEMBERS.get(name)
            what = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(_message(f"`{name}`", hint) if hint else what, name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in MEMBERS and type(self).__module__.partition(".")[0] == "distkeras":
            raise AttributeError(_message(f"`{name}`", MEMBERS[name]), name=name, obj=self)
        super().__setattr__(name, value)


class Count(int):
    """A number that used to be a method: `trainer.num_updates()` gives an error that names the property."""

    def __call__(self) -> None:
        """Refuse to be called.

        Raises:
            TypeError: always.
        """
        raise TypeError(_message("The method `num_updates()`", "it is now a property, `trainer.num_updates`"))


def named_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Return a trainer's `__init__` with clear errors for arguments in the style of dist-keras.

    Raises:
        TypeError: from `__init__`: an argument was removed, or a keyword-only argument is given by position.
    """
    by_place = [
        parameter.name
        for parameter in inspect.signature(init).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        for name in kwargs:
            if name in ARGUMENTS:
                raise TypeError(f"{_message(f'The argument `{name}`', ARGUMENTS[name])}")
        if len(args) > len(by_place):
            raise TypeError(
                f"Expected the arguments after {', '.join(by_place[1:])} by name, such as "
                "metrics=['accuracy'], num_workers=2, batch_size=32. Received by position: "
                f"{args[len(by_place) :]!r}"
            )
        init(*args, **kwargs)

    return checked
