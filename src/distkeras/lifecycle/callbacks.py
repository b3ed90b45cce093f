"""Keras's callbacks of one training, and what they need of it."""

from __future__ import annotations

from typing import Any

import keras
from keras.callbacks import (
    CSVLogger,
    EarlyStopping,
    History,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgbarLogger,
    ReduceLROnPlateau,
    RemoteMonitor,
    TerminateOnNaN,
)

_LOOK_ON = (History, ProgbarLogger, CSVLogger, RemoteMonitor)
"""Callbacks that see the logs alone, and decide nothing."""

_LOGS_ALONE = (*_LOOK_ON, TerminateOnNaN, LearningRateScheduler, ReduceLROnPlateau)
"""Callbacks that see neither weights nor the optimizer's state."""

_BATCH_METHODS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")

_TEST_METHODS = ("on_test_batch_begin", "on_test_batch_end")

_BEGIN = ("on_epoch_begin",)

_STILL_AT_BEGIN = (*_LOOK_ON, ModelCheckpoint)
"""Callbacks that change nothing of the model at the beginning of an epoch."""

_WINDOWS_DO = (History, ProgbarLogger, TerminateOnNaN)
"""Callbacks that see batches, and for which it does not matter how many steps each has."""


class Callbacks:
    """The callbacks of one model.

    Args:
        given: callbacks, a `CallbackList` or None.
        model: the model that they see.
        epochs: number of the last epoch, counted from 1.
        steps: minibatches of an epoch.
        verbose: as in `Around`.
        saves: whether the model is also saved at the ends of epochs.

    Attributes:
        list: Keras's list, which calls them.
        steps: minibatches of an epoch.
        history: Keras's history of the epochs.
        decide: whether one of them may change the training.
        see_weights: whether one of them may look at the weights.
        see_state: whether one of them may look at the optimizer's state.
        see_batches: whether one of them looks at single batches.
        see_tests: whether one of them looks at batches of the validation.
        see_windows: whether one of them looks at batches, of any number of steps.
        act_at_begin: whether one of them may change the model at the beginning of an epoch.
    """

    def __init__(
        self,
        given: Any,
        model: keras.Model,
        epochs: int,
        steps: int,
        verbose: int = 0,
        *,
        saves: bool = False,
    ) -> None:
        if isinstance(given, keras.callbacks.CallbackList):
            self.list = given
        else:
            self.list = keras.callbacks.CallbackList(
                given,
                add_history=True,
                add_progbar=verbose != 0,
                verbose=verbose,
                epochs=epochs,
                steps=steps,
                model=model,
            )
        self.steps = steps
        own = self.list.callbacks
        self.history = next((each for each in own if isinstance(each, History)), None) or History()
        self.names = [type(each).__name__ for each in own if type(each) not in _LOOK_ON]
        self.decide = saves or any(type(each) not in _LOOK_ON for each in own)
        self.see_weights = saves or any(not _sees_logs_alone(each) for each in own)
        self.see_state = saves or any(
            not _sees_logs_alone(each) and type(each) is not EarlyStopping for each in own
        )
        self.see_windows = any(_sees(each, _BATCH_METHODS) for each in own)
        self.see_tests = any(_sees(each, _TEST_METHODS) for each in own)
        self.see_batches = any(_sees(each, _BATCH_METHODS) and not _windows_do(each) for each in own)
        self.act_at_begin = any(_sees(each, _BEGIN) and type(each) not in _STILL_AT_BEGIN for each in own)

    def states(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks whose state a resumed training continues."""
        return [each for each in self.list.callbacks if not isinstance(each, History | ProgbarLogger)]


def _sees_logs_alone(callback: keras.callbacks.Callback) -> bool:
    return type(callback) in _LOGS_ALONE or (
        type(callback) is EarlyStopping and not callback.restore_best_weights
    )


def _sees(callback: keras.callbacks.Callback, methods: tuple[str, ...]) -> bool:
    return any(not getattr(getattr(callback, name), "_is_default", False) for name in methods)


def _windows_do(callback: keras.callbacks.Callback) -> bool:
    if type(callback) in _WINDOWS_DO:
        return True
    stock = (ModelCheckpoint, keras.callbacks.BackupAndRestore)
    return type(callback) in stock and not isinstance(callback.save_freq, int)
