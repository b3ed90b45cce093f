"""Whatever arrives: a message, or an error of the wire's own, and never anything else."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.center import messages
from distkeras.wire import frames
from distkeras.wire.codecs import Int8, Packing, TopK
from distkeras.wire.connection import Connection

SIZE = 6
FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
PACKINGS = [None, Packing(Int8(), SIZE, 4), Packing(TopK(0.5), SIZE, 4)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def frame_of(message, checksum=False):
    head, vector = frames.encode(message, checksum)
    return head + (b"" if vector is None else vector.tobytes())


def exchange(packing=None):
    message = np.arange(SIZE, dtype=np.float32)
    encoded = None
    if packing is not None:
        data = np.empty(packing.num_bytes, np.uint8)
        packing.encode(message, data)
        encoded = messages.Encoded(packing.codec.number, data)
    return messages.Exchange(1, 2, 3, 96, 0, 3, message, {"loss": 0.5}, 0, encoded)


def received(data, packing=None, checksum=False):
    """What a server's connection makes of `data`, after which the other side hangs up."""
    near, far = socket.socketpair()
    with near, far:
        connection = Connection(near, frames.REQUESTS, frames.MAX_REQUEST_TEXT, packing, checksum)
        connection._checksum = checksum  # Between sockets of one machine there is none.
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        return connection.receive(np.zeros(SIZE, np.float32))


@pytest.mark.parametrize("packing", PACKINGS, ids=["plain", "int8", "topk"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_mutated_commit_is_a_commit_or_an_error_of_the_wire(packing, data):
    frame = frame_of(exchange(packing))
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
        message = received(bytes(mutant), packing)
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
        received(mutant, checksum=True)


@settings(deadline=None)
@given(st.sampled_from(sorted(frames.REQUESTS | frames.REPLIES)), json_values)
def test_any_json_is_a_message_or_refused(kind, value):
    cls = (frames.REQUESTS | frames.REPLIES)[kind]
    try:
        message = frames.parse(cls, json.dumps(value).encode(), None)
    except frames.FrameError:
        return
    assert isinstance(message, cls)


@settings(deadline=None)
@given(st.data())
def test_a_field_of_any_other_value_is_refused_or_of_its_type(data):
    fields = {"worker": 1, "attempt": 0, "ticket": 0}
    fields[data.draw(st.sampled_from(["worker", "attempt"]))] = value = data.draw(json_values)
    good = type(value) is int and -(2**63) <= value < 2**63
    try:
        frames.parse(messages.Join, json.dumps(fields).encode(), None)
    except frames.FrameError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("number", ["1e999", "-1" + 5000 * "0", "9223372036854775808", "NaN", "0.0"])
def test_a_number_that_no_counter_holds_is_refused(number):
    with pytest.raises(frames.FrameError):
        frames.parse(messages.Join, b'{"worker": 0, "ticket": 0, "attempt": %s}' % number.encode(), None)


@pytest.mark.parametrize(
    "event", [[], [[], {}], ["Window"], ["Nothing", {}], [{}, 1], ["Window", []], "ab", None]
)
def test_what_is_no_event_is_refused(event):
    text = json.dumps({"events": [event], "next": 1, "num_updates": 0}).encode()
    with pytest.raises(frames.FrameError):
        frames.parse(messages.Polled, text, None)


def test_a_frame_of_another_version_says_so():
    frame = bytearray(frame_of(messages.Pull()))
    frame[3] = 1
    with pytest.raises(frames.FrameError, match="version 2"):
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
