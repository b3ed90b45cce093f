"""What a training tells: the log, the transitions, the note of its error; and no secret in any of them."""

from __future__ import annotations

import logging
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark import TaskContext

import distkeras
from distkeras import ServerOptions, SnapshotOptions, WorkerError
from distkeras.record import replay
from distkeras.wire.handshake import TOKEN_BYTES

TOKEN = b"Token-of-this-job-0123456789abcd"
PASSWORD = "pa55word-of-the-vault"

VAULT = """
from fsspec.implementations.local import LocalFileSystem

class VaultFileSystem(LocalFileSystem):
    protocol = "vault"
    failed = False

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("vault://").rpartition("@")[2])

    def mv(self, source, *args, **kwargs):
        if not VaultFileSystem.failed:
            VaultFileSystem.failed = True
            raise PermissionError("403 for vault://me:PASSWORD@" + source)
        return super().mv(source, *args, **kwargs)
"""


@pytest.fixture
def vault(tmp_path, monkeypatch):
    """A filesystem whose address has a password, and which repeats it in its errors."""
    site = tmp_path / "site"
    info = site / "vault-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "vault.py").write_text(textwrap.dedent(VAULT).replace("PASSWORD", PASSWORD))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[fsspec.specs]\nvault = vault:VaultFileSystem\n")
    monkeypatch.syspath_prepend(site)
    from fsspec import register_implementation

    register_implementation("vault", "vault.VaultFileSystem", clobber=True)
    return f"vault://me:{PASSWORD}@{tmp_path}/snapshots"


@pytest.fixture
def rows(spark):
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    rows = pd.DataFrame({"features": list(x), "label": (x.sum(1) > 0).astype(int)})
    return spark.createDataFrame(rows).repartition(2)


def make_trainer(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    return distkeras.DOWNPOUR(
        model, "sgd", "binary_crossentropy", batch_size=8, communication_window=2, **options
    )


def test_a_training_tells_its_story_and_no_secret(rows, vault, tmp_path, monkeypatch, caplog, capfd):
    token_bytes = distkeras.cluster.server.secrets.token_bytes
    monkeypatch.setattr(
        "distkeras.cluster.server.secrets.token_bytes",
        lambda size: TOKEN if size == TOKEN_BYTES else token_bytes(size),
    )
    library = logging.getLogger("distkeras")
    caplog.set_level(logging.DEBUG, "distkeras")
    handlers = list(library.handlers), list(logging.getLogger().handlers)
    options = ServerOptions(snapshots=SnapshotOptions(vault, commits=2), record=str(tmp_path / "record"))
    trainer = make_trainer(server=options)
    trained = trainer.train(rows)
    transitions = trainer.get_transitions()
    texts = [transition.text for transition in transitions]
    wanted = (
        "The job begins: DOWNPOUR(",
        "Parameter server 0 starts: process ",
        "Parameter server 0 is up: 127.0.0.1, port ",
        "Worker 0 joined: it trains from epoch 0, minibatch 0, window 0.",
        "A snapshot could not be written: PermissionError: 403 for vault://***@",
        "A snapshot was written after ",
        "Worker 0 has ended after window 1, epoch 0.",
        "Parameter server 0 has ended: ",
        "The job has ended: 4 updates in ",
    )
    places = [next(at for at, text in enumerate(texts) if text.startswith(start)) for start in wanted]
    assert places[:4] == sorted(places[:4])
    assert places[6:] == sorted(places[6:])
    logged = [record.getMessage() for record in caplog.records]
    # Two snapshots in a row may say the same.
    assert [logged.count(text) for text in texts] == [texts.count(text) for text in texts]
    exchanges = [text for text in logged if "Exchange of worker" in text]
    assert len(exchanges) == 4  # Of the server's process.
    assert all("20 bytes" in text for text in exchanges)
    assert (library.handlers, logging.getLogger().handlers) == handlers
    assert library.level == logging.DEBUG

    with pytest.raises(ValueError, match=r"Expected a folder for `record` without a record"):
        trainer.train(rows)
    center = np.concatenate([weight.ravel() for weight in trained.get_weights()])
    assert replay(str(tmp_path / "record")).center.tobytes() == center.tobytes()

    def fail_in_workers(batch):  # By value, since it is no global of a module.
        if TaskContext.get() is not None:
            raise LookupError("no such picture")
        return np.stack(batch["features"]), batch["label"]

    broken = make_trainer(preprocess=fail_in_workers, server=ServerOptions(snapshots=SnapshotOptions(vault)))
    with pytest.raises(WorkerError, match="no such picture") as told:
        broken.train(rows)
    (note,) = told.value.__notes__
    assert "failed: LookupError: no such picture" in note
    assert "The job ends with an error: WorkerError." in note

    printed = capfd.readouterr()
    said = [caplog.text, printed.out, printed.err, str(transitions), note, str(told.value), repr(options)]
    for secret in (PASSWORD, TOKEN.decode(), TOKEN.hex()):
        places = [text[max(0, text.find(secret) - 200) :][:400] for text in said if secret in text]
        assert places == []
