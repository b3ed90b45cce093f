"""Job files: what they say, what flags say over it, and errors that name the place."""

from __future__ import annotations

import pytest

from distkeras.jobs import JobFileError, read_job

WHOLE = """
name = "first"
backend = "jax"
[model]
function = "train:make_model"
arguments = { hidden = 16 }
[data]
path = "data"
features = ["x", "y"]
[rule]
name = "DOWNPOUR"
arguments = { communication_window = 5 }
[train]
workers = 3
stop = { minutes = 1.5 }
"""


def written(folder, text):
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_job_file_says_what_is_trained_and_the_rest_has_defaults(tmp_path):
    job = read_job(written(tmp_path, WHOLE))
    assert job.model.arguments == {"hidden": 16}
    assert (job.data.features, job.data.label) == (["x", "y"], "label")
    assert (job.rule.name, job.train.workers, job.train.epochs) == ("DOWNPOUR", 3, 1)
    assert job.train.stop == {"minutes": 1.5}


def test_flags_win_over_the_file_and_add_to_its_tables(tmp_path):
    flags = {"train": {"workers": 5}, "rule": {"arguments": {"learning_rate": 0.1}}, "name": "second"}
    job = read_job(written(tmp_path, WHOLE), flags)
    assert (job.train.workers, job.name) == (5, "second")
    assert job.rule.arguments == {"communication_window": 5, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("workers = 3", "workes = 3", "unknown field `workes` - at `$.train`"),
        ("workers = 3", "workers = 'three'", "Expected `int`, got `str` - at `$.train.workers`"),
        ("workers = 3", "workers = 0", ">= 1 - at `$.train.workers`"),
        ("[rule]", "[rules]", "unknown field `rules`"),
        ('backend = "jax"', 'backend = "theano"', "at `$.backend`"),
        ('path = "data"', "", "Expected either `path` or `function` in [data]"),
        ("[model]", '[model]\nfile = "a.keras"', "Expected either `function` or `file` in [model]"),
        ("train:make_model", "make_model", "Expected `module:function` in [model]"),
        ("workers = 3", "learning_rate = 0.1", "Expected `optimizer` with `learning_rate`"),
        ("workers = 3", 'resume = "auto"', "Expected `run` in [output]"),
        ("[model]", "[model", "job.toml"),
        ("[model]", "[spark]\nmaster = 'local'\nremote = 'sc://a'\n[model]", "not both"),
        ("[model]", "[validation]\nsplit = 0.1\npath = 'b'\n[model]", "not both"),
    ],
)
def test_what_is_wrong_in_a_job_file_is_named_with_its_place(tmp_path, before, after, place):
    with pytest.raises(JobFileError) as caught:
        read_job(written(tmp_path, WHOLE.replace(before, after)))
    assert place in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(JobFileError, match="distkeras init"):
        read_job(tmp_path / "none.toml")
