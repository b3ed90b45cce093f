"""Compiled kernels of the codecs: the bits of NumPy, for large vectors where Numba is installed."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from serving import serving

from distkeras.algorithms import DOWNPOUR
from distkeras.center.requests import Beat, Exchange, Join, Pull
from distkeras.wire.client import Client
from distkeras.wire.codecs import BF16, FP16, REGISTRY, Int8, Packing, compiled
from distkeras.wire.codecs.base import BLOCK, CHUNK
from distkeras.wire.codecs.chunked import decoders, encoders
from distkeras.wire.compression import packing_of

COMPILED = [Int8(), BF16(), FP16()]
SPECIAL = np.array(
    [
        *(0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF),  # Zeros, subnormals, the largest.
        *(0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001),  # Infinity and NaN.
        *(0x477FEFFF, 0x477FF000, 0x47800000, 0x38800000, 0x387FFFFF, 0x33000000),  # The bounds of a half.
    ],
    np.uint32,
).view(np.float32)


@pytest.fixture
def kernels(monkeypatch):
    """Give this test kernels, and none to the others, which test NumPy's arithmetic."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_loaded", {})
    for codec in COMPILED:
        compiled.load(codec.name, compiled.SMALLEST)
    return compiled._loaded


def encode(codec, vector):
    """Return the bytes, and what the encoder says that they decode to."""
    data = np.full(codec.encoded_bytes(vector.size), 0xA5, np.uint8)
    decoded = np.full_like(vector, 99)
    with np.errstate(all="ignore"):
        for place, encode_piece in encoders(codec, data, vector.size):
            encode_piece(vector[place], decoded[place])
    return data, decoded.view(np.uint32)


def decode(codec, data, size):
    decoded = np.full(size, 99, np.float32)
    with np.errstate(all="ignore"):
        for place, decode_piece in decoders(codec, data, size):
            decode_piece(decoded[place])
    return decoded.view(np.uint32)


def vectors():
    generator = np.random.default_rng(0)
    for size in (0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK + BLOCK + 3):
        yield generator.standard_normal(size).astype(np.float32)
    for exponent in (-44, -38, -7, -3, 4, 37):
        yield (generator.standard_normal(3 * BLOCK + 5) * 10.0**exponent).astype(np.float32)
    yield SPECIAL
    for (
        number
    ) in SPECIAL:  # Beside ordinary numbers, in the first block of three and in the partial last one.
        vector = generator.standard_normal(3 * BLOCK + 5).astype(np.float32)
        vector[[17, -2]] = number
        yield vector
    yield generator.integers(0, 2**32, 2 * CHUNK, np.uint32).view(np.float32)  # Any bits.
    ties = (np.arange(2**16, dtype=np.uint32) << np.uint32(16)) + np.uint32(0x8000)
    yield np.concatenate([ties, ties - np.uint32(1), ties + np.uint32(1), ties ^ np.uint32(0x9000)]).view(
        np.float32
    )


@pytest.mark.parametrize("codec", COMPILED, ids=repr)
def test_kernels_give_the_bits_of_numpy(codec, kernels, monkeypatch):
    assert {f"{codec.name}_encode", f"{codec.name}_decode"} <= kernels.keys()
    for vector in vectors():
        data, decoded = encode(codec, vector)
        arrived = decode(codec, data, vector.size)
        with monkeypatch.context() as context:
            context.setattr(compiled, "_loaded", {})
            expected, expected_decoded = encode(codec, vector)
            np.testing.assert_array_equal(data, expected)
            np.testing.assert_array_equal(decoded, expected_decoded)
            np.testing.assert_array_equal(arrived, decode(codec, data, vector.size))
        np.testing.assert_array_equal(arrived, decoded)


@pytest.mark.parametrize("codec", [FP16(), BF16()], ids=repr)
def test_kernels_decode_every_half_as_numpy_does(codec, kernels, monkeypatch):
    data = np.arange(2**16, dtype="<u2").view(np.uint8)
    compiled_bits = decode(codec, data, 2**16)
    monkeypatch.setattr(compiled, "_loaded", {})
    expected = decode(codec, data, 2**16)
    numbers = ~np.isnan(expected.view(np.float32))
    np.testing.assert_array_equal(compiled_bits[numbers], expected[numbers])
    assert np.isnan(compiled_bits.view(np.float32)[~numbers]).all()


@pytest.mark.parametrize("codec", [codec() for codec in REGISTRY.values()], ids=repr)
def test_an_encoder_says_what_its_bytes_decode_to(codec):
    for vector in vectors():
        data, decoded = encode(codec, vector)
        np.testing.assert_array_equal(decoded, decode(codec, data, vector.size))


def test_bytes_that_a_kernel_does_not_take_are_left_to_numpy(kernels):
    vector = np.linspace(-1, 1, 3 * BLOCK, dtype=np.float32)
    data, decoded = encode(Int8(), vector)
    data.flags.writeable = False
    np.testing.assert_array_equal(decode(Int8(), data, vector.size), decoded)
    shifted = np.empty(data.size + 1, np.uint8)[1:]
    shifted[:] = data
    np.testing.assert_array_equal(decode(Int8(), shifted, vector.size), decoded)


def test_kernels_are_loaded_for_large_vectors_and_the_log_says_so(monkeypatch, caplog):
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_loaded", {})
    with caplog.at_level(logging.INFO, "distkeras"):
        Packing(Int8(), compiled.SMALLEST, compiled.SMALLEST - 1).load()
        assert not compiled._loaded
        assert not caplog.messages
        for _ in range(2):
            Packing(Int8(), compiled.SMALLEST, compiled.SMALLEST).load()
        assert compiled._loaded.keys() == {"int8_encode", "int8_decode"}
        (told,) = caplog.messages
        assert told.startswith("Numba has loaded int8_encode and int8_decode in ")
        compiled.load("topk", compiled.SMALLEST)  # There is no kernel for it.
    assert len(compiled._loaded) == 2


def test_a_client_that_joins_loads_kernels_and_one_that_only_asks_does_not(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "_loaded", {})
    monkeypatch.setattr(compiled, "SMALLEST", 3 * BLOCK)
    packing = packing_of(DOWNPOUR(), Int8(), 3 * BLOCK, 3 * BLOCK)
    with (
        serving(DOWNPOUR(), 1, 3 * BLOCK, packing=packing) as (_, center, address),
        Client(address) as client,
    ):
        client.call(Pull())
        client.call(Beat(0))
        assert not compiled._loaded
        client.call(Join(0))
        assert compiled._loaded.keys() == {"int8_encode", "int8_decode"}
        message = np.linspace(-1, 1, 3 * BLOCK, dtype=np.float32)
        reply = client.call(Exchange(0, 1, 1, 32, 0, 1, message)).reply
        np.testing.assert_array_equal(reply, center.snapshot())
        np.testing.assert_allclose(reply, np.linspace(-1, 1, 3 * BLOCK), atol=1 / 127)


@pytest.mark.parametrize("missing", ["not installed", "switched off"])
def test_without_numba_numpy_computes(missing, monkeypatch, caplog):
    compiled._numba.cache_clear()
    monkeypatch.setattr(compiled, "_loaded", {})
    if missing == "not installed":
        monkeypatch.setitem(sys.modules, "numba", None)  # The import then raises ImportError.
    else:
        numba = pytest.importorskip("numba")
        monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    with caplog.at_level(logging.INFO, "distkeras"):
        for _ in range(2):
            compiled.load("int8", compiled.SMALLEST)
    assert not compiled._loaded
    assert len(caplog.messages) == (missing == "not installed")
    vector = np.linspace(-1, 1, 3 * BLOCK, dtype=np.float32)
    data, decoded = encode(Int8(), vector)
    np.testing.assert_array_equal(decode(Int8(), data, vector.size), decoded)
    compiled._numba.cache_clear()


def test_where_no_folder_may_be_written_each_process_compiles_for_itself(monkeypatch):
    pytest.importorskip("numba")
    from numba.core import caching

    monkeypatch.setattr(compiled, "_loaded", {})
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    compiled.load("bf16", compiled.SMALLEST)
    assert compiled._loaded.keys() == {"bf16_encode", "bf16_decode"}
    vector = np.linspace(-1, 1, 3 * BLOCK, dtype=np.float32)
    data, decoded = encode(BF16(), vector)
    np.testing.assert_array_equal(decode(BF16(), data, vector.size), decoded)
