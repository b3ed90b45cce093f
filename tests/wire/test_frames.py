"""Frames: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distkeras import events
from distkeras.center import answers, requests
from distkeras.wire import frames

WHOLE = st.integers(0, 2**40)
NUMBERS = st.floats(allow_nan=False)
WINDOWS = st.builds(
    events.Window,
    worker=WHOLE,
    epoch=WHOLE,
    iteration=WHOLE,
    steps=WHOLE,
    samples=WHOLE,
    metrics=st.dictionaries(st.text(max_size=9), NUMBERS, max_size=3),
    staleness=WHOLE,
    timestamp=NUMBERS,
)
FAILURES = st.builds(events.WorkerFailed, worker=WHOLE, error=st.text(), timestamp=NUMBERS)


def round_trip(message, kinds):
    head, vector = frames.encode(message)
    size = 0 if vector is None else vector.nbytes
    cls, text_length, (_, length) = frames.parse_header(
        head[: frames.HEADER.size], kinds, frames.MAX_REPLY_TEXT, size
    )
    assert (len(head) % frames.ALIGNMENT, length) == (0, size)
    text = head[frames.HEADER.size :][:text_length]
    return frames.parse(cls, text, vector)


@given(st.lists(st.one_of(WINDOWS, FAILURES), max_size=4), WHOLE, WHOLE)
def test_events_arrive_as_they_were_sent(sent, following, updates):
    message = answers.Polled(sent, following, updates)
    assert round_trip(message, frames.REPLIES) == message


@given(st.lists(st.floats(width=32), max_size=20), WHOLE, WHOLE)
def test_a_commit_arrives_as_it_was_sent(values, worker, sequence):
    vector = np.array(values, np.float32)
    message = requests.Exchange(worker, sequence, 3, 96, 1, 2, vector, {"loss": 0.5}, 1)
    received = round_trip(message, frames.REQUESTS)
    np.testing.assert_array_equal(received.message, vector)
    assert (received.worker, received.sequence, received.metrics) == (worker, sequence, {"loss": 0.5})


def test_a_metric_that_is_not_a_number_arrives_as_such():
    message = requests.Exchange(0, 1, 1, 1, 0, 1, np.zeros(1, np.float32), {"auc": math.nan})
    assert math.isnan(round_trip(message, frames.REQUESTS).metrics["auc"])


@given(st.binary(min_size=frames.HEADER.size, max_size=frames.HEADER.size))
def test_random_bytes_are_no_header(data):
    with pytest.raises(frames.FrameError):
        frames.parse_header(data, frames.REQUESTS, frames.MAX_REQUEST_TEXT, 8)


@pytest.mark.parametrize(
    ("kind", "text_length", "length", "complaint"),
    [
        (requests.Exchange, 10, 12, "8 bytes of vector"),
        (requests.Join, 10, 8, "0 bytes of vector"),
        (requests.Join, frames.MAX_REQUEST_TEXT + 1, 0, "bytes of text"),
        (answers.Pulled, 10, 8, "kind"),
    ],
)
def test_a_length_or_kind_that_is_not_as_it_must_be_is_refused(kind, text_length, length, complaint):
    number = next(n for n, cls in (frames.REQUESTS | frames.REPLIES).items() if cls is kind)
    header = frames.HEADER.pack(frames.MAGIC, frames.VERSION, number, 0, text_length, length, 0)
    with pytest.raises(frames.FrameError, match=complaint):
        frames.parse_header(header, frames.REQUESTS, frames.MAX_REQUEST_TEXT, 8)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [0],
        [0, 0, 0, 1],
        ["0", 0, 0],
        [True, 0, 0],
        [0.0, 0, 0],
        [None, 0, 0],
        {"worker": 0, "attempt": 0, "ticket": 0},
    ],
)
def test_fields_of_another_number_or_type_are_refused(fields):
    with pytest.raises(frames.FrameError, match="Expected"):
        frames.parse(requests.Join, msgspec.msgpack.encode(fields), None)


@given(st.binary(max_size=60))
def test_random_text_is_refused(data):
    with pytest.raises(frames.FrameError):
        frames.parse(requests.Join, data, None)


def test_more_text_than_the_other_side_takes_is_refused_before_it_is_sent():
    metrics = {f"f1_{index}": 0.5 for index in range(50_000)}
    message = requests.Exchange(0, 1, 1, 1, 0, 1, np.zeros(1, np.float32), metrics)
    with pytest.raises(frames.FrameError, match="at most 786432 bytes"):
        frames.encode(message)


@pytest.mark.parametrize("letter", ["a", "\U0001f9e0"])
def test_metrics_that_fit_are_kept_in_their_order_and_the_rest_counted(letter):
    matrix = {"loss": 0.1} | {f"confusion_{row}": row / 7 for row in range(64 * 64)}
    assert frames.fitting(matrix) is matrix
    many = {"loss": 0.1} | {letter * 10 + str(index): 0.5 for index in range(60_000)}
    kept = frames.fitting(many)
    assert list(kept)[:-1] == list(many)[: len(kept) - 1]
    assert kept[frames.LEFT_OUT] == len(many) - len(kept) + 1
    for metrics in (matrix, kept):
        message = requests.Exchange(
            2**31, 2**62, 2**31, 2**31, 2**31, 2**31, np.zeros(1, np.float32), metrics
        )
        assert round_trip(message, frames.REQUESTS).metrics == metrics
    assert len(kept) > 7000


def test_deeply_nested_text_is_refused():
    with pytest.raises(frames.FrameError):
        frames.parse(requests.Join, b"\x91" * 60_000, None)


def test_the_end_of_an_error_fits_a_frame_whatever_its_characters():
    error = "lost" + "\U0001f9e0\udcff" * 30_000
    received = round_trip(requests.Fail(0, frames.error_text(error)), frames.REQUESTS).error
    assert received == "\U0001f9e0\\udcff" * (frames.MAX_ERROR // 2)
