"""Whatever arrives: a message, or an error of the wire's own, and never anything else."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.center import answers, requests
from distkeras.wire import frames
from distkeras.wire.codecs import ChunkTopK, Int8, Packing, TopK
from distkeras.wire.compression import Compression
from distkeras.wire.connection import Connection

SIZE = 6
FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
PACKINGS = [None, Packing(Int8(), SIZE, 4), Packing(TopK(0.5), SIZE, 4), Packing(ChunkTopK(0.5), SIZE, 4)]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def frame_of(message, checksum=False, packing=None):
    encoded = None
    if packing is not None:
        data = np.empty(packing.num_bytes, np.uint8)
        packing.encode(message.message, data)
        encoded = frames.Encoded(packing.codec.number, data)
    head, vector = frames.encode(message, checksum, encoded)
    return head + (b"" if vector is None else vector.tobytes())


def exchange():
    return requests.Exchange(1, 2, 3, 96, 0, 3, np.arange(SIZE, dtype=np.float32), {"loss": 0.5})


def received(data, packing=None, checksum=False, first=b""):
    """What a server's connection makes of `data`, after which the other side hangs up.

    A good frame may have come `first`: one like it is received in another way.
    """
    near, far = socket.socketpair()
    compression = None if packing is None else Compression(packing, at_server=True)
    with near, far:
        connection = Connection(near, frames.REQUESTS, frames.MAX_REQUEST_TEXT, compression, checksum)
        connection._checksum = checksum  # Between sockets of one machine there is none.
        if first:
            far.sendall(first)
            connection.receive(np.zeros(SIZE, np.float32))
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        return connection.receive(np.zeros(SIZE, np.float32))


FRAMES = {
    **dict(
        zip(
            ("plain", "int8", "topk", "chunktopk"),
            ((exchange(), packing) for packing in PACKINGS),
            strict=True,
        )
    ),
    "write": (requests.Write(np.arange(SIZE, dtype=np.float32)), None),
    "report": (requests.Report(1, "state", 2, 0, 1, b"state"), None),
    "fetch": (requests.Fetch(1, "evaluation", 2), None),
    "may join": (requests.MayJoin(1, 2), None),
}


@pytest.mark.parametrize("name", FRAMES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_mutated_message_is_a_message_or_an_error_of_the_wire(name, data):
    message, packing = FRAMES[name]
    frame = frame_of(message, packing=packing)
    mutant = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutant)))
        match data.draw(st.sampled_from(["change", "cut", "add"])):
            case "change":
                mutant[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del mutant[place : place + data.draw(st.integers(1, 30))]
            case "add":
                mutant[place:place] = data.draw(st.binary(min_size=1, max_size=30))
    try:
        message = received(bytes(mutant), packing, first=frame if data.draw(st.booleans()) else b"")
    except (frames.FrameError, ConnectionError):
        return
    assert type(message) in frames.REQUESTS.values()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_with_a_checksum_no_changed_byte_goes_unnoticed(data):
    frame = frame_of(exchange(), checksum=True)
    assert received(frame, checksum=True).metrics == {"loss": 0.5}
    place = data.draw(st.integers(0, len(frame) - 1))
    other = data.draw(st.integers(1, 255))
    mutant = frame[:place] + bytes([frame[place] ^ other]) + frame[place + 1 :]
    with pytest.raises((frames.FrameError, ConnectionError)):
        received(mutant, checksum=True, first=frame if data.draw(st.booleans()) else b"")


@settings(deadline=None)
@given(st.sampled_from(sorted(frames.REQUESTS | frames.REPLIES)), values | st.binary())
def test_any_text_is_a_message_or_refused(kind, value):
    cls = (frames.REQUESTS | frames.REPLIES)[kind]
    text = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    try:
        message = frames.parse(cls, text, None)
    except frames.FrameError:
        return
    assert isinstance(message, cls)


@settings(deadline=None)
@given(st.data())
def test_a_field_of_any_other_value_is_refused_or_of_its_type(data):
    fields = [1, 0, 0, "", 0, True, None]
    fields[data.draw(st.sampled_from([0, 1]))] = value = data.draw(values)
    good = type(value) is int and value < 2**63
    try:
        frames.parse(requests.Join, msgspec.msgpack.encode(fields), None)
    except frames.FrameError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, float("nan"), float("inf"), 0.0])
def test_a_number_that_no_counter_holds_is_refused(number):
    with pytest.raises(frames.FrameError):
        frames.parse(requests.Join, msgspec.msgpack.encode([0, 0, number]), None)


@pytest.mark.parametrize(
    "event",
    [
        [],
        [[], {}],
        ["WorkerLeft"],
        ["WorkerLeft", 0],
        ["WorkerLeft", 0, 1.0, 2],
        ["Nothing", 0, 1.0],
        {},
        "ab",
        None,
    ],
)
def test_what_is_no_event_is_refused(event):
    text = msgspec.msgpack.encode([[["WorkerLeft", 0, 1.0], event], 1, 0])
    with pytest.raises(frames.FrameError):
        frames.parse(answers.Polled, text, None)


@pytest.mark.parametrize(
    "length", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("cls", [answers.Polled, requests.Exchange, requests.Fail])
def test_a_length_within_the_text_that_it_has_not_is_refused(cls, length):
    whole = msgspec.msgpack.encode([[], 1, 0] if cls is answers.Polled else [0, "error"])
    for place in range(len(whole)):
        with pytest.raises(frames.FrameError):
            frames.parse(cls, whole[:place] + length + whole[place:], None)


def test_a_frame_of_another_version_says_so():
    frame = bytearray(frame_of(requests.Pull()))
    frame[3] = 1
    with pytest.raises(frames.FrameError, match=f"version {frames.VERSION}"):
        received(bytes(frame))


def test_hostile_frames_leave_a_live_server_as_it_was():
    run = subprocess.run(
        [sys.executable, str(FUZZ), "--frames", "1500"], capture_output=True, text=True, check=True
    )
    results = json.loads(run.stdout)
    assert [result["by"] for result in results] == ["members"] * 3 + ["strangers"]
    for result in results:
        assert result["center untouched"]
        assert result["a worker trains on"]
        assert (result["after"]["threads"], result["after"]["files"]) == (
            result["before"]["threads"],
            result["before"]["files"],
        )
    assert results[0]["outcomes"]["refused"] > 100


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_frames_arrive_in_whatever_pieces_and_one_after_the_other(steps):
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near, frames.REQUESTS, frames.MAX_REQUEST_TEXT)
        sent = [exchange(), requests.Pull(3), requests.Fail(1, "é" * 500), exchange()]
        data = b"".join(map(frame_of, sent))
        pieces = [data[place : place + steps] for place in range(0, len(data), steps)]
        sender = threading.Thread(target=lambda: [far.sendall(piece) for piece in pieces])
        sender.start()
        for message in sent:
            arrived = connection.receive(np.zeros(SIZE, np.float32))
            assert frame_of(arrived) == frame_of(message)
        sender.join()


def test_what_follows_the_text_is_zeros():
    frame = bytearray(frame_of(requests.Pull()))
    assert received(bytes(frame)) == requests.Pull()
    frame[-1] = 1
    with pytest.raises(frames.FrameError, match="zeros"):
        received(bytes(frame))
