"""A run directory is read as it was written, by one driver at a time, on every kind of store."""

from __future__ import annotations

import errno
import io
import json
import math
import zipfile

import fsspec
import keras
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from distkeras.cluster.options import ServerOptions
from distkeras.events import (
    EpochEnded,
    ServerRestored,
    SnapshotFailed,
    SnapshotWritten,
    Window,
    WorkerFailed,
    WorkerJoined,
)
from distkeras.runs import Checkpoints, Run, RunError, RunOptions, RunResumed, load_run
from distkeras.runs import event_files as files
from distkeras.runs.folder import PART
from distkeras.wire.lease import Fenced
from distkeras.wire.store import SnapshotOptions


class WithoutAppend(MemoryFileSystem):
    """A store that refuses to append, as S3 and GCS do."""

    protocol = "refuses"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    failures = 0

    def _open(self, path, mode="rb", **options):
        if "a" in mode:
            raise NotImplementedError("append")
        return super()._open(path, mode, **options)

    def put_file(self, lpath, rpath, *args, **options):
        if type(self).failures:
            type(self).failures -= 1
            raise OSError("the store is away")
        super().put_file(lpath, rpath, *args, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("refuses://", "memory://"))


fsspec.register_implementation("refuses", WithoutAppend, clobber=True)


@pytest.fixture(params=["local", "memory", "refuses"])
def address(request, tmp_path):
    yield str(tmp_path / "runs" / "a") if request.param == "local" else f"{request.param}://runs/a"
    for fs in (MemoryFileSystem, WithoutAppend):
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def model():
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    built.compile("sgd", "mse")
    return built


def window(iteration, worker=0, number=None, loss=0.5):
    number = iteration + 1 if number is None else number
    return Window(worker, 0, iteration, 2, 8, {"loss": loss}, 1, 1.5, number)


def ended(epoch, number):
    return EpochEnded(epoch, 16 * (epoch + 1), number, number, 4, b"\0\1", 2, 0.5, 0, True, 3.0)


def restored(*commits):
    return ServerRestored(list(commits), [False] * len(commits), 8 * sum(commits), sum(commits), 9.0)


def begun(address, **options):
    run = Run.open(address, **options)
    run.begin({"seed": 1})
    return run


def test_a_run_is_read_as_it_was_written(address, model):
    events = [
        WorkerJoined(0, 0, 0, 0, 1.0),
        window(0),
        window(1, loss=math.nan),
        window(2, loss=-math.inf),
        ended(0, 3),
        WorkerFailed(0, 'Traceback:\n"ä"', 2.0),
    ]
    weights = [
        np.arange(6.0).reshape(2, 3),
        np.ones(2, np.int8),
        np.ones((2, 1), "f2"),
    ]
    state = {
        "best": math.inf,
        "wait": 3,
        "weights": weights,
        "by epoch": {1: "a"},
        "pair": (1, None),
        "$": [True],
    }
    with Run.open(RunOptions(address, Checkpoints(keep=1)), "auto") as run:
        run.begin({"seed": 7}, model=model, facts={"app": "local-1", "options": Checkpoints()})
        assert not run.resumed
        for event in events:
            run.write(event)
        run.epoch(0, {"loss": np.float32(0.5), "val_loss": math.nan}, state, samples=24)
        run.epoch(1, {"loss": 0.25}, {}, samples=48)
        assert run.checkpoint(0, {"loss": 0.5}, model).endswith("/a/checkpoints/epoch-0001.keras")
        run.finish({"reason": "stopped"})
    loaded = load_run(address)
    assert list(map(repr, loaded.events())) == list(map(repr, events))  # NaN is not equal to itself.
    first, second = loaded.records()
    assert (first.samples, first.logs["loss"], second.logs) == (24, 0.5, {"loss": 0.25})
    assert math.isnan(first.logs["val_loss"])
    arrays = first.state.pop("weights")
    assert first.state == {name: value for name, value in state.items() if name != "weights"}
    for before, after in zip(weights, arrays, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    assert [*loaded.history] == ["loss", "val_loss"]
    assert loaded.history["val_loss"][1] is None
    assert (loaded.status, loaded.result, loaded.settings) == ("finished", {"reason": "stopped"}, {"seed": 7})
    session = loaded.facts["sessions"][0]
    assert session["facts"]["app"] == "local-1"
    assert session["versions"]["keras"] == keras.__version__
    for which in ("best", "last", 0, "initial"):
        found = loaded.model(which)
        np.testing.assert_array_equal(found.get_weights()[0], model.get_weights()[0])
        assert isinstance(found.optimizer, keras.optimizers.SGD)
    with pytest.raises(RunError, match=r"epochs with checkpoints: \[0\]|epoch with a checkpoint: \[0\]"):
        loaded.model(3)


def test_arrays_of_types_that_numpy_does_not_write_come_back(tmp_path):
    import ml_dtypes

    with begun(str(tmp_path)) as run:
        run.epoch(0, {}, {"weights": [np.ones((2, 2), ml_dtypes.bfloat16), np.zeros((), np.float32)]})
    half, scalar = load_run(str(tmp_path)).records()[0].state["weights"]
    assert (half.dtype.name, half.tolist(), scalar.shape) == ("bfloat16", [[1, 1], [1, 1]], ())


def test_a_store_that_cannot_append_gets_closed_files_and_one_that_is_away_loses_nothing():
    WithoutAppend.store.clear()
    run = begun("refuses://segments")
    run._events._seconds = 0.02
    for iteration in range(3):
        run.write(window(iteration))
        run.epoch(iteration, {}, samples=1)  # Flushes.
    WithoutAppend.failures = 3  # The thread tries again; so may this one, which must not lose the lines.
    run.write(window(3))
    run._events._closing.wait(0.2)
    WithoutAppend.failures = 0
    run.write(window(4))
    run.close()
    names = [name for name in WithoutAppend.store if "/events/" in name]
    assert len(names) >= 4
    assert not [name for name in names if PART in name]
    assert [each.iteration for each in load_run("refuses://segments").windows()] == [0, 1, 2, 3, 4]
    WithoutAppend.store.clear()


def test_a_new_file_begins_at_a_size_and_a_half_line_of_a_killed_driver_is_left_out(tmp_path):
    run = begun(str(tmp_path))
    run._events._max_bytes = 300
    for iteration in range(5):
        run.write(window(iteration))
    names = sorted((tmp_path / "events").iterdir())
    assert [name.name for name in names][:2] == ["00001.jsonl", "00002.jsonl"]
    with names[-1].open("ab") as file:
        file.write(files.EVENTS.encode(window(5))[:-7])
    with Run.open(str(tmp_path), True) as second:
        second.write(window(5))
    assert [each.iteration for each in load_run(str(tmp_path)).windows()] == [0, 1, 2, 3, 4, 5]
    names[0].write_bytes(b"nonsense\n")
    with pytest.raises(RunError, match="an event on each line"):
        list(load_run(str(tmp_path)).events())


def test_events_of_later_releases_are_passed_over(tmp_path):
    with begun(str(tmp_path)) as run:
        run.write(window(0))
    with (tmp_path / "events" / "00001.jsonl").open("ab") as file:
        file.write(b'["FlyingStarted",{"height":3}]\n' + files.EVENTS.encode(window(1)))
    assert len(list(load_run(str(tmp_path)).events())) == 2


def test_windows_count_once_whatever_was_rolled_back_and_told_again(tmp_path):
    def numbers(events):
        with begun(str(tmp_path / str(len(list(tmp_path.iterdir()))))) as run:
            for event in events:
                run.write(event)
            return [(each.worker, each.iteration, each.number) for each in run.windows()]

    first = [window(0), window(0, 1, 2), window(1, 0, 3), window(1, 1, 4)]
    assert numbers([*first, restored(1, 2), window(1, 0, 4)]) == [(0, 0, 1), (1, 0, 2), (1, 1, 4), (0, 1, 4)]
    # Two restarts, the second to an older snapshot.
    assert numbers([*first, restored(2, 1), window(1, 1, 4), restored(0, 0)]) == []
    # A resumed driver gets the events again that the killed one had written.
    assert numbers([*first, RunResumed(0, "snapshot", 1.0), *first, restored(2, 2)]) == [
        (each.worker, each.iteration, each.number) for each in first
    ]
    # From a checkpoint workers begin anew: their restored server says nothing about the windows before it.
    later = [window(0, 0, 1), window(1, 0, 2), restored(1), window(1, 0, 2)]
    found = numbers([*first[:2], ended(0, 2), *first[2:], RunResumed(1, "checkpoint", 1.0), *later])
    assert found == [(0, 0, 1), (1, 0, 2), (0, 0, 1), (0, 1, 2)]


def test_a_driver_whose_run_was_taken_over_may_not_write(address, model):
    first = begun(address)
    first._events._seconds = 1e-9  # Each write looks at the lease.
    first.write(window(0))
    first._events.flush()
    with Run.open(address, True) as second:
        second.begin({"seed": 1}, source="snapshot")
        before = sorted(second._folder.names("events"))
        for write in (
            lambda: (first.write(window(1)), first._events.flush()),
            lambda: first.epoch(0, {}),
            lambda: first.checkpoint(0, {}, model),
            lambda: first.roll_back(0),
            lambda: first.finish({}),
            lambda: first.begin({}),
        ):
            with pytest.raises(Fenced, match="Another run has taken over"):
                write()
        assert (second.records(), second.checkpoints().entries) == ([], ())
        assert sorted(second._folder.names("events")) == before
        second.epoch(0, {})
        if second._folder.appends:
            first.close()
        else:  # Its last lines are lost, and it says so.
            with pytest.raises(Fenced):
                first.close()
        second.epoch(1, {})  # The first one has not released the second one's lease.


def test_a_run_is_gone_on_with_only_if_asked(tmp_path, caplog):
    address = str(tmp_path / "run")
    with pytest.raises(RunError, match='an existing run to resume; "auto" starts one'):
        Run.open(address, True)
    first = begun(address, resume="auto")
    with pytest.raises(RunError, match=r"did not end, or that still runs: run .*process"):
        Run.open(address)
    first.close()
    assert load_run(address).status == "interrupted"
    with Run.open(address, "auto") as run:
        assert run.earlier == {"seed": 1}
        run.begin({"seed": 1, "num_epoch": 5}, source="snapshot", epochs=2)
        run.finish({"reason": "finished"})
    with pytest.raises(RunError, match=r"a run that has ended.*resume=\"auto\""):
        Run.open(address)
    with Run.open(address, True) as run:
        assert load_run(address).status == "finished"  # Nothing has changed before `begin`.
        run.begin({"seed": 1, "num_epoch": 9}, source="snapshot", epochs=5)
        loaded = load_run(address)
        assert (loaded.status, loaded.settings["num_epoch"]) == ("running", 9)
        assert [session.get("result") for session in loaded.facts["sessions"]] == [
            None,
            {"reason": "finished"},
            None,
        ]
    with pytest.raises(ValueError, match='True, False or "auto"'):
        Run.open(address, "always")
    assert [event.epochs for event in load_run(address).events()] == [2, 5]


def test_a_run_of_a_later_release_says_what_to_do(tmp_path, model):
    with begun(str(tmp_path)) as run:
        run.epoch(0, {})
        run.checkpoint(0, {}, model)
    for name, key in (
        ("epochs/epoch-000001.json", "version"),
        ("checkpoints/index.json", "version"),
        ("run.json", "format"),
    ):
        path = tmp_path / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: 99}))
        with pytest.raises(RunError, match="later release"):
            load_run(str(tmp_path)).records() and load_run(str(tmp_path)).model()
    with pytest.raises(RunError, match=r"Expected a run: a folder with run\.json"):
        load_run(str(tmp_path / "nothing"))


def test_the_newest_checkpoints_and_the_best_one_are_kept(tmp_path, model):
    def kept(name, options, *logs):
        with begun(RunOptions(str(tmp_path / name), options)) as run:
            for epoch, each in enumerate(logs):
                run.checkpoint(epoch, each, model)
            index = run.checkpoints()
            assert repr(load_run(str(tmp_path / name)).checkpoints()) == repr(
                index
            )  # NaN is not equal to itself.
            there = {path.name for path in (tmp_path / name / "checkpoints").glob("*.keras")}
            assert there == {entry.file for entry in index.entries}
            return [entry.epoch for entry in index.entries], index.best, index.monitor

    losses = [{"loss": 9.0, "val_loss": value} for value in (0.5, 0.2, 0.3, 0.4, math.nan)]
    assert kept("a", Checkpoints(keep=2), *losses) == ([1, 3, 4], 1, "val_loss")
    rising = [{"loss": 1.0, "val_accuracy": value} for value in (0.5, 0.9, 0.6, 0.9)]
    assert kept("b", Checkpoints(1, "val_accuracy"), *rising) == ([1, 3], 1, "val_accuracy")
    assert kept("c", Checkpoints(1, "val_accuracy", "min"), *rising) == ([0, 3], 0, "val_accuracy")
    falling = [{"loss": 3.0}, {"loss": 2.0}, {"loss": 2.5}]
    assert kept("d", Checkpoints(keep=1), *falling) == ([1, 2], 1, "loss")
    assert kept("e", Checkpoints(keep=1, every=2), *falling) == ([1], 1, "loss")
    assert not list((tmp_path / "a" / "checkpoints").glob(f"*{PART}*"))


def test_a_checkpoint_that_fails_leaves_the_earlier_ones(tmp_path, model, monkeypatch):
    with Run.open(RunOptions(str(tmp_path), Checkpoints(keep=1))) as run:
        run.checkpoint(0, {"loss": 1.0}, model)
        monkeypatch.setattr(model, "save", lambda path: path.write_bytes(b"half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.checkpoint(1, {"loss": 0.5}, model)
        assert [entry.epoch for entry in run.checkpoints().entries] == [0]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"epoch-0001.keras", "index.json"}


def test_after_a_roll_back_later_records_and_checkpoints_do_not_count(address, model):
    with begun(RunOptions(address, Checkpoints(keep=5))) as run:
        for member in (None, 1):
            for epoch in range(4):
                run.epoch(epoch, {"loss": 1.0 / (epoch + 1)}, {"wait": epoch}, member=member)
                run.checkpoint(epoch, {"loss": 1.0 / (epoch + 1)}, model, member=member)
        assert run.roll_back(2).state == {"wait": 1}
        assert (run.checkpoints().best, run.checkpoints().last) == (1, 1)
        assert run.roll_back(0, member=1) is None
        assert run.checkpoints(1).entries == ()
    with Run.open(address, "auto") as run:
        assert [record.epoch for record in run.records()] == [0, 1]
        assert run.records(1) == []
        run.epoch(2, {"loss": 0.1}, {"wait": 0})
    assert load_run(address).history == {"loss": [1.0, 0.5, 0.1]}


def test_arrays_are_written_once_and_kept_while_a_snapshot_may_need_them(tmp_path):
    def arrays():
        return len(list((tmp_path / "epochs" / "arrays").iterdir()))

    best = [np.arange(1000.0)]
    with begun(str(tmp_path)) as run:
        for epoch in range(3):
            run.epoch(epoch, {}, {"best_weights": best})
        assert arrays() == 1
        for epoch in range(3, 8):
            run.epoch(epoch, {}, {"best_weights": [np.full(1000, float(epoch))]})
        assert arrays() == 6  # There is no snapshot: a resumed run begins at any epoch.
        run.write(SnapshotWritten(1, 0.1, 8, 1.0))
        run.write(SnapshotWritten(1, 0.1, 8, 1.0))
        run.epoch(8, {}, {"best_weights": best})
        assert arrays() == 3
        np.testing.assert_array_equal(run.records()[-1].state["best_weights"][0], best[0])
        np.testing.assert_array_equal(run.records()[6].state["best_weights"][0], np.full(1000, 6.0))
        with pytest.raises(RunError, match="whose arrays are kept"):
            repr(run.records()[4].state)
    with Run.open(str(tmp_path), True) as run:
        assert run.roll_back(7).state["best_weights"][0][0] == 6.0


def test_a_state_of_other_types_is_refused(tmp_path):
    with begun(str(tmp_path)) as run, pytest.raises(TypeError, match=r"numbers, texts, arrays.*set"):
        run.epoch(0, {}, {"seen": {1, 2}})


SECRETS = ("pass-word-1", "key-of-s3-2", "token-three", "pass-word-4", "key-of-s3-5")


def test_there_is_no_secret_in_a_run(model, caplog):
    MemoryFileSystem.store.clear()
    first, second, third, fourth, fifth = SECRETS
    options = RunOptions(
        f"memory://user:{first}@runs/a", storage_options={"key": second, "client": {"aws": [second]}}
    )
    server = ServerOptions(
        snapshots=SnapshotOptions(f"s3://me:{fourth}@host/x?token={third}", storage_options={"secret": fifth})
    )
    with Run.open(options) as run:
        run.begin(
            {"seed": 1},
            model=model,
            facts={
                "server": server,
                "run": options,
                "auth_token": third,
                "f": test_there_is_no_secret_in_a_run,
            },
        )
        run.write(WorkerFailed(0, f"cannot open {options.address} with {second}", 1.0))
        run.write(SnapshotFailed(f"denied: {second}", 1.0))
        run.epoch(0, {"loss": 1.0}, {"wait": 1})
        run.checkpoint(0, {"loss": 1.0}, model)
        run.finish({"reason": f"error: {options.address}", "password": third})
        shown = f"{run.address} {options!r} {server!r} {load_run(options.address)!r}"
    with pytest.raises(RunError) as refused:
        Run.open(options)
    texts = [shown, str(refused.value), caplog.text]
    for name, file in MemoryFileSystem.store.items():
        data = file.getvalue()
        if name.endswith((".keras", ".npz")):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = b"".join(map(archive.read, archive.namelist()))
        texts.append(data.decode("latin1"))
    assert len(texts) >= 9
    assert [secret for secret in SECRETS for text in texts if secret in text] == []
    MemoryFileSystem.store.clear()


def test_options_are_checked():
    for wrong in ({"keep": 0}, {"every": True}, {"mode": "up"}, {"monitor": ""}):
        with pytest.raises(ValueError, match="Received: "):
            Checkpoints(**wrong)
    for wrong in (
        {"address": 3},
        {"address": "a", "checkpoints": 3},
        {"address": "a", "storage_options": "k"},
    ):
        with pytest.raises(TypeError):
            RunOptions(**wrong)
    with pytest.raises(ValueError, match="address=''"):
        RunOptions("")
    assert RunOptions.of(None) is None
    assert RunOptions.of("runs/a") == RunOptions("runs/a")
    own = SnapshotOptions("/mine")
    MemoryFileSystem.store.clear()
    with Run.open(RunOptions("refuses://b", storage_options={"use_listings_cache": False})) as run:
        assert (run.snapshot_options(None), run.snapshot_options(own)) == (None, own)
        given = run.snapshot_options(SnapshotOptions(keep=4))
    assert (given.address, given.keep) == ("refuses://b/snapshots", 4)
    assert given.storage_options == {"use_listings_cache": False}
    with pytest.raises(ValueError, match=r"Protocol not known: nowhere.*Hadoop"):
        Run.open("nowhere://a/b")


def test_events_that_a_full_disk_refuses_follow_whole_once_there_is_room(tmp_path, caplog):
    run = begun(str(tmp_path / "run"))
    run.write(window(0))

    class FullDisk:
        """Takes half of a line, as a disk does that becomes full."""

        def __init__(self, file):
            self.file = file

        def write(self, line):
            return self.file.write(line[: len(line) // 2])

        def close(self):
            self.file.close()

    run._events._file = FullDisk(run._events._file)
    run._folder.fs.makedirs, makedirs = refuse, run._folder.fs.makedirs
    run.write(window(1))
    run.write(window(2))
    assert caplog.text.count("The events cannot be written; trying again") == 1
    with pytest.raises(OSError, match="No space left"):
        run.epoch(0, {"loss": 1.0})  # A record follows all events before it.
    run._folder.fs.makedirs = makedirs
    run.write(window(3))
    run.close()
    assert [event.iteration for event in load_run(str(tmp_path / "run")).events()] == [0, 1, 2, 3]


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
