"""Arguments that have moved: the old form works, warns where it is used, and never silently loses."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
from pyspark import keyword_only
from pyspark.ml.param import Param, Params, TypeConverters

from distkeras.accessors import accessors
from distkeras.moved import Moved, moved, renamed

WINDOW = Moved("window", "communication_window", since="0.2", gone_in="0.4")


@moved(WINDOW, Moved("seed", "seed", since="0.2", gone_in="0.4", place=2))
class Trainer:
    def __init__(self, model, communication_window=5, *, seed=None):
        self.model, self.communication_window, self.seed = model, communication_window, seed


class Own(Trainer):
    """A subclass, which inherits the old names."""


@moved(WINDOW)
@dataclasses.dataclass(frozen=True)
class Record:
    communication_window: int = 5
    other: int = 1


@moved(WINDOW)
def function(model, communication_window=5):
    return model, communication_window


@moved(Moved("oldWindow", "window", since="0.2", gone_in="0.4"))
@accessors
class Stage(Params):
    window: Param = Param(Params._dummy(), "window", "steps", TypeConverters.toInt)

    @keyword_only
    def __init__(self, *, window=None):
        super().__init__()
        self._set(**self._input_kwargs)

    @keyword_only
    def setParams(self, *, window=None):  # noqa: N802
        return self._set(**self._input_kwargs)


def warned(use, name="window"):
    """Return what `use` returns; it must warn once, with this file and the name."""
    with pytest.warns(DeprecationWarning, match=rf"`{name}`.*will be removed in 0\.4") as caught:
        found = use()
    assert [record.filename for record in caught] == [__file__]
    return found


@pytest.mark.parametrize("cls", [Trainer, Own])
def test_a_class_takes_an_argument_by_its_old_name_and_has_it_as_an_attribute(cls):
    made = warned(lambda: cls("m", window=7))
    assert made.communication_window == 7
    assert warned(lambda: made.window) == 7
    warned(lambda: setattr(made, "window", 8))
    assert made.communication_window == 8


def test_what_is_no_longer_taken_by_position_still_is():
    made = warned(lambda: Trainer("m", 3, 11), "seed")
    assert (made.communication_window, made.seed) == (3, 11)
    with pytest.raises(TypeError, match="`seed` twice"), pytest.warns(DeprecationWarning, match="old form"):
        Trainer("m", 3, 11, seed=12)
    with pytest.raises(TypeError, match="positional argument"):
        Trainer("m", 3, 11, 12)


def test_a_record_takes_the_old_name_and_its_fields_are_the_new_ones():
    made = warned(lambda: Record(window=7))
    assert made == Record(communication_window=7)
    assert warned(lambda: made.window) == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.window = 3
    assert [field.name for field in dataclasses.fields(Record)] == ["communication_window", "other"]


def test_a_function_takes_the_old_name():
    assert warned(lambda: function("m", window=7)) == ("m", 7)
    assert function.__name__ == "function"


def test_params_of_spark_are_taken_set_and_got_by_the_old_name():
    stage = warned(lambda: Stage(oldWindow=7), "oldWindow")
    assert stage.getWindow() == 7
    assert warned(stage.getOldWindow, "oldWindow") == 7
    assert warned(lambda: stage.setOldWindow(8), "oldWindow") is stage
    assert warned(lambda: stage.setParams(oldWindow=9), "oldWindow").getWindow() == 9
    assert [param.name for param in stage.params] == ["window"]


@pytest.mark.parametrize("make", [Trainer, function])
def test_both_names_at_once_are_refused(make):
    for args, kwargs in ((("m",), {"window": 7, "communication_window": 8}), (("m", 8), {"window": 7})):
        with (
            pytest.raises(TypeError, match="communication_window"),
            pytest.warns(DeprecationWarning, match="old form"),
        ):
            make(*args, **kwargs)


def test_the_new_form_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Trainer("m", communication_window=7, seed=1).communication_window == 7
        assert (Trainer("m", 7).communication_window, Record(7).communication_window) == (7, 7)
        assert function("m", communication_window=7) == ("m", 7)
        assert Stage(window=7).getWindow() == 7


def test_what_was_saved_under_an_old_name_is_read_under_the_new_one():
    assert renamed({"window": 7, "a": 1}, (WINDOW,), "Stage") == {"communication_window": 7, "a": 1}
    with pytest.raises(TypeError, match=r"which was `window` before 0\.2.*Received: window=7"):
        renamed({"window": 7, "communication_window": 8}, (WINDOW,), "Stage")


def test_an_argument_that_has_not_moved_is_refused():
    with pytest.raises(ValueError, match="Expected a new name, or the old position"):
        Moved("a", "a", since="0.2", gone_in="0.4")
