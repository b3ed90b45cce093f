"""The driver's requests to a server by files in a shared folder."""

from __future__ import annotations

import secrets
import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from serving import TOKEN, commit, serving

from distkeras.center.answers import Done, Refused
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Fetch, Join, Keep, Leave, Order, Poll, Pull, Write
from distkeras.wire import mailbox
from distkeras.wire import mailbox_files as files
from distkeras.wire.client import Client, JobStopped, ServerAddress, ServerLost
from distkeras.wire.group import Group
from distkeras.wire.mailbox import Line, Mailbox, carry
from distkeras.wire.mailbox_answers import MailboxAnswers
from distkeras.wire.mailbox_files import END, STOP, Forged, Seal
from distkeras.wire.server_place import ServerPlace
from distkeras.wire.shared_folder import SharedFolder

SEAL = Seal(TOKEN, "job/0")


@pytest.fixture
def folder(tmp_path):
    return SharedFolder(str(tmp_path / "0"))


@contextmanager
def answering(folder, size=4, **options):
    """A server with a mailbox that a thread looks into."""
    lease = ServerPlace(folder).lease("run")
    lease.take(0, 0)
    with serving(size=size, **options) as (server, center, address), Client(address, patience=1.0) as client:
        answers = MailboxAnswers(folder, lease.epoch, SEAL, client, address, server.stop)
        over = threading.Event()

        def answer():
            while not over.wait(0.005) and not answers.ended:
                answers.answer_next()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield center, address, answers
        finally:
            over.set()
            thread.join(5)
            assert not thread.is_alive()


def mailbox_of(folder, size=4, patience=5.0, line=None, **options):
    address = ServerAddress("", 0, TOKEN, size, place=ServerPlace(folder))
    return Mailbox(address, SEAL, carry, line or Line(1), patience, **options)


def files_in(folder):
    return sorted(name for name in folder.under("1").names())


def orders_of(center):
    ((_, joined),) = center.handle(Join(0))
    return joined.orders


def plain(reply):
    """A reply in a form that can be compared; its vector belongs to the next reply, too."""
    values = [getattr(reply, name) for name in reply.__dataclass_fields__]
    return type(reply), [value.tolist() if isinstance(value, np.ndarray) else value for value in values]


def test_a_mailbox_gives_the_replies_that_a_connection_gives(folder):
    requests = [
        *(Poll(0), Pull(), Pull(0, 64), Order(NO_ORDERS._replace(learning_rate=0.5)), Keep(32)),
        *(Fetch(0, "state", 1), Write(np.ones(4, np.float32)), Poll(1)),
    ]
    with answering(folder, epoch_rows=(64,)) as (_, address, _), mailbox_of(folder) as box:
        with Client(address) as worker:
            worker.call(Join(0))
            worker.call(commit(0, 1))
        with Client(address) as client:
            for request in requests:
                assert plain(box.call(request)) == plain(client.call(request))


@pytest.mark.parametrize("store", ["local", "memory"])
def test_a_large_vector_travels_in_several_files_of_which_none_is_left(tmp_path, monkeypatch, store):
    monkeypatch.setattr(files, "CHUNK_BYTES", 1000)
    address = str(tmp_path) if store == "local" else f"memory://{secrets.token_hex(4)}"
    folder, size = SharedFolder(f"{address}/0"), 3000
    with answering(folder, size):
        with mailbox_of(folder, size) as box:
            written = np.arange(size, dtype=np.float32)
            assert box.call(Write(written)) == Done()
            assert (box.call(Pull()).center == written).all()
            box.call(Poll(0))
        assert files_in(folder) == ["reply-3"]  # The driver may still have to read the last one.


def test_a_request_is_handled_once_whoever_repeats_its_file(folder):
    with answering(folder) as (_, _, answers), mailbox_of(folder) as box:
        stolen = files.to_files(SEAL, "1/request-1", files.REQUEST, files.frame_of(Poll(0), "float32"))
        box.call(Poll(0))
        folder.write("1/request-1", stolen[0])  # Again.
        folder.write("1/request-2", stolen[0])  # Under another number.
        assert box.call(Poll(0)).next == 0
        assert answers._number == 2


@pytest.mark.parametrize(
    "forge",
    [
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
        lambda data: Seal(b"u" * 32, SEAL.name).seal("1/request-1", data[files.DIGEST_BYTES :]),
        lambda data: Seal(TOKEN, "job/1").seal("1/request-1", data[files.DIGEST_BYTES :]),
    ],
)
def test_a_file_that_the_driver_has_not_written_gives_no_orders(folder, forge, caplog):
    stop = Order(NO_ORDERS._replace(stop=True))
    (true,) = files.to_files(SEAL, "1/request-1", files.REQUEST, files.frame_of(stop, "float32"))
    folder.write("1/request-1", forge(true))
    with serving() as (server, center, address), Client(address) as client:
        answers = MailboxAnswers(folder, 1, SEAL, client, address, server.stop)
        assert [answers.answer_next() for _ in range(3)] == [False] * 3
        assert len(caplog.records) == 1
        assert orders_of(center) is None
        folder.write("1/request-1", true)
        assert answers.answer_next()
        assert orders_of(center).stop is True


def test_who_knows_the_token_still_cannot_send_what_only_workers_send(folder):
    for request in (Join(0), Leave(0), commit(0, 1)):
        with serving() as (server, center, address), Client(address) as client:
            frame = files.frame_of(request, "float32")
            files.put(
                folder,
                "1/request-1",
                files.to_files(SEAL, "1/request-1", files.REQUEST, frame),
            )
            assert not MailboxAnswers(folder, 1, SEAL, client, address, server.stop).answer_next()
            assert center.event_log.read(0).events == []


def test_a_reply_that_the_server_has_not_written_is_refused(folder):
    ServerPlace(folder).lease("run").take(0, 0)
    frame = files.frame_of(Done(), "float32")
    for seal in (Seal(b"u" * 32, SEAL.name), Seal(TOKEN, "job/1")):
        files.put(folder, "1/reply-1", files.to_files(seal, "1/reply-1", files.REQUEST, frame))
        with pytest.raises(Forged, match="Expected a file of this job"):
            mailbox_of(folder).call(Poll(0))
    files.put(folder, "1/reply-1", files.to_files(SEAL, "1/reply-2", files.REQUEST, frame))
    with pytest.raises(Forged):
        mailbox_of(folder).call(Poll(0))


def test_a_message_is_no_larger_than_a_frame_of_the_job(folder):
    for size in (files.largest_frame(4, "float32") + 1, 2**40):
        head = files.HEAD.pack(files.REQUEST, 1, size)
        with pytest.raises(Forged, match="at most"):
            files.from_files(SEAL, "n", [SEAL.seal("n", head)], files.largest_frame(4, "float32"))
    for part in range(3):
        folder.write(files.part_name("many", part), SEAL.seal("many", files.HEAD.pack(b"R", 2**32 - 1, 9)))
    assert len(files.take(folder, "many", 9)) == 1
    folder.write("large", bytes(100))
    with pytest.raises(ValueError, match="Expected at most 99 bytes"):
        folder.read("large", 99)


def test_a_call_ends_when_the_server_is_started_again_or_does_not_answer(folder, monkeypatch):
    monkeypatch.setattr(mailbox, "LOOK_SECONDS", 0.02)
    place = ServerPlace(folder)
    place.lease("run").take(0, 0)
    with pytest.raises(ServerLost, match="has not answered"):
        mailbox_of(folder, patience=0.1).call(Poll(0))

    def fail():
        raise RuntimeError("the stage has ended")

    with pytest.raises(RuntimeError, match="the stage has ended"):
        mailbox_of(folder, look=fail).call(Poll(0))
    place.lease("next").take(0, 0)
    with pytest.raises(ServerLost, match="started again"):
        mailbox_of(folder).call(Poll(0))
    box = mailbox_of(folder, line=Line(2))
    box.end()
    with pytest.raises(JobStopped):
        box.call(Poll(0))


def test_the_driver_stops_workers_and_ends_the_server_by_its_mailbox(folder):
    with answering(folder) as (_, address, answers), Client(address) as worker:
        worker.call(Join(0))
        box = mailbox_of(folder)
        assert box.tell(STOP, "enough", 5.0)
        with pytest.raises(JobStopped, match="enough"):
            worker.call(commit(0, 1))
        assert box.call(Poll(0)).num_updates == 0  # The driver may continue to ask.
        assert box.tell(END, "over", 5.0)
        assert answers.ended
        assert not box.tell(STOP, "nobody hears it", 0.1)


def test_mailboxes_of_several_servers_make_a_group(tmp_path):
    folders = [SharedFolder(str(tmp_path / str(index))) for index in range(2)]
    with answering(folders[0], 3) as (first, _, _), answering(folders[1], 2) as (second, _, _):
        first.handle(Join(0))
        boxes = [mailbox_of(folder, size) for folder, size in zip(folders, (3, 2), strict=True)]
        addresses = [box._address for box in boxes]
        with Group(addresses, clients=boxes) as group:
            assert isinstance(group.call(Write(np.ones(5, np.float32))), Refused)
            assert isinstance(group.call(Pull(0, 64)), Refused)
            assert group.call(Pull()).center.tolist() == [0.0] * 5
            assert group.call(Poll(0)).next == len(first.event_log.unread().events)
        assert second.event_log.num_updates == 0


def test_requests_of_several_threads_go_out_one_after_another(folder):
    with answering(folder) as (_, _, answers), mailbox_of(folder) as box:
        threads = [threading.Thread(target=partial(box.call, Poll(0))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert answers._number == 4
