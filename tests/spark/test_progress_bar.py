"""What a real training shows in a real terminal, and in a file."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading

import keras
import pytest

from distkeras import ADAG, EnsembleTrainer

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])


@pytest.fixture
def df(spark):
    rows = spark.range(0, 640, 1, 2).selectExpr("array(rand(1), rand(2)) AS features")
    return rows.selectExpr("features", "int(features[0] > features[1]) AS label").cache()


def in_terminal(work):
    """Do `work` with a pseudo-terminal as standard error; return what was drawn, without control codes."""
    own, theirs = pty.openpty()
    found = []

    def read():
        try:
            while chunk := os.read(own, 65536):
                found.append(chunk)
        except OSError:  # The other end is closed.
            pass

    reader = threading.Thread(target=read)
    before, sys.stderr = sys.stderr, os.fdopen(theirs, "w", buffering=1)
    reader.start()
    try:
        work()
    finally:
        sys.stderr.close()
        sys.stderr = before
        reader.join()
        os.close(own)
    return ESCAPE.sub("", b"".join(found).decode())


def test_in_a_terminal_a_training_says_what_it_waits_for_and_how_it_goes(df, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    trainer = ADAG(model(), "sgd", "sparse_categorical_crossentropy", num_workers=2, num_epoch=2)
    shown = in_terminal(lambda: trainer.train(df, validation_data=df))
    lines = re.split(r"[\r\n]+", shown)
    waits = [line for line in lines if line.startswith("ADAG, 2 workers  ") and "epoch" not in line]
    assert any("  counts and checks the rows, " in line for line in waits)
    last = [line for line in lines if "epoch" in line][-1]
    assert re.fullmatch(
        r"ADAG, 2 workers  epoch 2/2  ━+  100%  loss \d\.\d{4}  accuracy \d\.\d{4}  val_loss \d\.\d{4}  "
        r"val_accuracy \d\.\d{4}  in [\d:]+( s)?",
        last,
    )
    history = trainer.get_history().history
    assert f"val_loss {history['val_loss'][-1]:.4f}" in last
    assert f"loss {history['loss'][-1]:.4f}  accuracy {history['accuracy'][-1]:.4f}" in last
    assert capsys.readouterr().out == ""


def test_in_a_file_each_epoch_of_each_member_has_a_line(df, capsys):
    trainer = EnsembleTrainer(
        *(model(), "sgd", "sparse_categorical_crossentropy"), num_ensembles=2, num_epoch=2, verbose=2
    )
    trainer.train(df)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition("  ")[0] for line in lines) == [
        "member 0, epoch 1/2",
        "member 0, epoch 2/2",
        "member 1, epoch 1/2",
        "member 1, epoch 2/2",
    ]
    assert all(re.search(r" rows/s  (.*  )?loss \d\.\d{4}", line) for line in lines)


def test_a_resumed_training_has_the_lines_of_its_own_epochs(df, capsys, tmp_path):
    for num_epoch, expected in ((1, ["epoch 1/1"]), (3, ["epoch 2/3", "epoch 3/3"])):
        trainer = ADAG(
            *(model(), "sgd", "sparse_categorical_crossentropy"),
            num_workers=2,
            num_epoch=num_epoch,
            verbose=1,
        )
        trainer.train(df, run=tmp_path / "run", resume="auto")
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition("  ")[0] for line in lines] == expected
