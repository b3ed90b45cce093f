"""The files of a new project, as `distkeras init` writes them."""

from __future__ import annotations

JOB = """\
# A training. `distkeras train` runs it; every field is also a flag: `--epochs 10`.
name = "{name}"
backend = "{backend}"

[model]
function = "model:make_model"
arguments = {{ hidden = 16 }}

[data]
function = "data:make_rows"   # or: path = "rows.parquet"
features = ["features"]
label = "label"

[validation]
split = 0.1

[rule]
name = "ADAG"
arguments = {{ communication_window = 5 }}

[train]
workers = 2
epochs = 3
batch_size = 32
optimizer = "adam"
learning_rate = 0.01
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
seed = 0

[output]
model = "trained.keras"
run = "runs/{{time}}"           # a new run for each training
"""

MODEL = '''\
"""The model that is trained."""

import keras


def make_model(hidden):
    """Return a classifier of points in the plane."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
'''

DATA = '''\
"""The rows to train on."""


def make_rows(spark, rows=4000):
    """Return points in the plane, and on which side of a line each lies."""
    points = spark.range(rows).selectExpr("array(rand(1), rand(2)) AS features")
    return points.selectExpr("features", "int(features[0] > features[1]) AS label")
'''

README = """\
# {name}

    distkeras check             # what stands in the way
    distkeras train             # writes trained.keras and a run in runs
    distkeras dashboard runs    # the page of the run; needs: pip install 'distkeras[dashboard]'
    distkeras submit            # the same training as a job, where your profile says

`job.toml` says what is trained; `model.py` makes the model and `data.py` the rows.
"""

IGNORED = """\
__pycache__/
runs/
trained.keras
"""


def files_of(name: str, backend: str) -> dict[str, str]:
    """Return the contents of a new project's files by name."""
    return {
        "job.toml": JOB.format(name=name, backend=backend),
        "model.py": MODEL,
        "data.py": DATA,
        "README.md": README.format(name=name),
        ".gitignore": IGNORED,
    }
