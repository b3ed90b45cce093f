"""Codecs: exact sizes, bounds, nothing lost with error feedback, nothing infinite hidden."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.center.requests import Exchange
from distkeras.wire import codecs
from distkeras.wire.codecs import BF16, FP4, FP16, ChunkTopK, CodecError, Int8, Packing, Sign, TopK
from distkeras.wire.codecs.base import BLOCK, CHUNK
from distkeras.wire.compression import Compression

CODECS = [*(codec() for codec in codecs.REGISTRY.values()), TopK(density=0.3), TopK(density=1)]
CODECS += [ChunkTopK(density=0.3, bits=4), ChunkTopK(density=1, bits=1)]
SIZES = [0, 1, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK, CHUNK + BLOCK + 3, 200_003]
# Time is no matter here: other work on the machine must fail no example.
UNHURRIED = settings(deadline=None)
EVERY_CODEC = pytest.mark.parametrize("codec", CODECS, ids=repr)

vectors = st.builds(
    lambda size, seed, exponent: (np.random.default_rng(seed).standard_normal(size) * 10.0**exponent).astype(
        np.float32
    ),
    st.integers(0, 3000),
    st.integers(0, 2**32),
    st.integers(-6, 2),
)


def normal(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def encoded(codec, vector):
    out = np.full(codec.encoded_bytes(vector.size), 0xA5, np.uint8)
    codec.encode(vector, out)
    return out


def round_trip(codec, vector):
    decoded = np.full_like(vector, 99)
    codec.decode(encoded(codec, vector), decoded)
    return decoded


def blocks(vector):
    return np.split(vector, range(BLOCK, vector.size, BLOCK))


@pytest.mark.parametrize(
    ("codec", "sizes"),
    [
        (FP16(), {0: 0, 1: 2, 1025: 2050}),
        (BF16(), {0: 0, 1: 2, 1025: 2050}),
        (Int8(), {0: 0, 1: 5, 1024: 1028, 1025: 1033}),
        (FP4(), {0: 0, 1: 5, 2: 5, 3: 6, 1024: 516, 1025: 521}),
        (Sign(), {0: 0, 1: 5, 8: 5, 9: 6, 1024: 132, 1025: 137}),
        (TopK(), {0: 0, 1: 8, 100: 8, 101: 16, 1_000_000: 80_000}),
        (TopK(density=0.5), {1: 8, 3: 16, 4: 16}),
        (ChunkTopK(), {0: 0, 1: 11, 32: 11, 33: 12, 4096: 232, 4097: 243, 8192: 464}),
        (ChunkTopK(0.5, bits=4), {1: 32 + 2 + 1, 4096: 32 + 2048 * 2}),
    ],
    ids=repr,
)
def test_the_size_alone_decides_how_many_bytes(codec, sizes):
    assert {size: codec.encoded_bytes(size) for size in sizes} == sizes


@UNHURRIED
@given(vectors)
def test_fp4_decodes_to_the_nearest_of_its_values(vector):
    values = np.array([0, *(2.0**exponent for exponent in range(-6, 1))])
    decoded = round_trip(FP4(), vector)
    for before, after in zip(blocks(vector), blocks(decoded), strict=True):
        scale = float(np.abs(before).max(initial=0))
        known = scale * np.concatenate((values, -values))
        nearest = np.abs(before[:, None].astype(float) - known).min(axis=1, initial=np.inf)
        error = np.abs(before.astype(float) - after)
        np.testing.assert_allclose(error, nearest, rtol=1e-5, atol=1e-6 * scale)
        assert (error <= np.maximum(np.abs(before) / 3, scale / 128) * (1 + 1e-6)).all()


@UNHURRIED
@given(vectors, st.sampled_from([ChunkTopK(), ChunkTopK(0.2, 1), ChunkTopK(0.1, 3), ChunkTopK(1.0, 4)]))
def test_chunktopk_sends_the_largest_of_each_chunk_as_the_mean_of_their_group(vector, codec):
    vector = np.concatenate((vector, 2 * vector, vector))  # Up to three chunks.
    decoded = round_trip(codec, vector)
    for low in range(0, vector.size, 4096):
        before, after = vector[low : low + 4096], decoded[low : low + 4096]
        k = int(np.ceil(codec.density * before.size))
        largest = sorted(range(before.size), key=lambda index: abs(before[index]))[-k:]
        assert np.count_nonzero(after) <= k
        expected = np.zeros(before.size)
        for members in (
            [index for rank, index in enumerate(largest) if rank * 2 ** (codec.bits - 1) // k == group]
            for group in range(2 ** (codec.bits - 1))
        ):
            if members:
                expected[members] = np.abs(before[members].astype(float)).mean() * np.sign(before[members])
        if len(set(np.abs(before))) == before.size:  # Of equal magnitudes, any may be sent.
            np.testing.assert_allclose(after, expected, rtol=1e-6)
        error, norm = np.square(before.astype(float) - after).sum(), np.square(before.astype(float)).sum()
        assert error <= norm - np.square(after.astype(float)).sum() * (1 - 1e-5)


def test_chunktopk_with_a_fading_residual_sends_what_sparseloco_does():
    """The oracle of SparseLoCo, d = 4, k = 1, beta 0.5: with one value, its level is exact."""
    packing = Packing(ChunkTopK(density=0.25), 4, 4, residual_decay=0.5)
    compression, sent = Compression(packing, at_server=False), []
    for delta in ((4, 2, 1, 0), (1, 1, 1, 0), (1, 1, 1, 3)):
        message = np.array(delta, np.float32)
        compression.encode(Exchange(0, 1, 1, 1, 0, 1, message))
        sent.append(message.tolist())
    assert sent == [[4, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 3]]
    assert compression.residual.tolist() == [1.5, 1, 1.75, 0]


def test_chunktopk_refuses_indices_that_no_encoder_writes():
    codec = ChunkTopK(density=2 / 4000)
    data = encoded(codec, normal(4000))
    for pair in ((7, 7), (8, 7), (7, 4000), (4095, 7)):
        bits = [index >> bit & 1 for index in pair for bit in range(12)]
        data[8:11] = np.packbits(bits, bitorder="little")
        with pytest.raises(CodecError, match=r"2 increasing indices below 4000\. Received: \["):
            codec.decode(data, np.empty(4000, np.float32))


@pytest.mark.parametrize(
    "options", [{"density": 0}, {"density": True}, {"bits": 0}, {"bits": 5}, {"bits": 2.0}]
)
def test_senseless_options_of_chunktopk_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`{name}` of ChunkTopK must be .*Received: {name}="):
        ChunkTopK(**options)


def test_int8_takes_at_most_26_percent_of_the_bytes():
    assert Int8().encoded_bytes(1_000_000) / 4_000_000 == pytest.approx(0.251, abs=1e-4)


@EVERY_CODEC
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_written_and_every_value_decoded_at_any_size(codec, size):
    vector = normal(size)
    first, second = np.zeros(codec.encoded_bytes(size), np.uint8), encoded(codec, vector)
    codec.encode(vector, first)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(vector, normal(size))
    decoded = round_trip(codec, vector)
    assert np.isfinite(decoded).all()
    assert np.linalg.norm(decoded - vector) <= np.linalg.norm(vector)


@EVERY_CODEC
def test_zeros_stay_zeros(codec):
    assert not round_trip(codec, np.zeros(2000, np.float32)).any()


@EVERY_CODEC
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1500, 1999])
def test_what_is_not_finite_does_not_become_finite(codec, value, place):
    vector = normal(2000)
    vector[place] = value
    assert not np.isfinite(round_trip(codec, vector)[place])


@EVERY_CODEC
def test_a_nan_as_graphics_processors_write_it_stays_one(codec):
    vector = normal(70_000)
    vector.view(np.uint32)[69_000] = 0x7FFFFFFF
    assert np.isnan(round_trip(codec, vector)[69_000])


@UNHURRIED
@given(vectors)
def test_half_precisions_are_within_their_bounds(vector):
    assert (np.abs(round_trip(FP16(), vector) - vector) <= np.abs(vector) * 2.0**-11 + 2.0**-25).all()
    assert (np.abs(round_trip(BF16(), vector) - vector) <= np.abs(vector) * 2.0**-8).all()


def test_fp16_has_the_bits_of_numpys_cast_and_decodes_every_half():
    halves = np.arange(2**16, dtype="<u2")
    halves = halves[~np.isnan(halves.view("<f2"))]
    singles = halves.view("<f2").astype(np.float32)
    np.testing.assert_array_equal(round_trip(FP16(), singles).view(np.uint32), singles.view(np.uint32))
    with np.errstate(all="ignore"):
        middles = np.append(singles, np.float32(65520)) + np.append(singles[1:], [0, 0]).astype(np.float32)
        middles /= 2  # Ties, and what lies just beside them.
        for vector in (middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, np.float32(1e9))):
            vector = vector[~np.isnan(vector)]
            np.testing.assert_array_equal(
                encoded(FP16(), vector).view("<u2"), vector.astype("<f2").view("<u2")
            )


def test_bf16_rounds_to_nearest_and_ties_to_even():
    ulp = 2.0**-7
    vector = np.array([1 + ulp / 2, 1 + 3 * ulp / 2, 1 + 0.51 * ulp, 1 + 0.49 * ulp, -1.5], np.float32)
    assert round_trip(BF16(), vector).tolist() == [1, 1 + 2 * ulp, 1 + ulp, 1, -1.5]


def test_fp16_cannot_hold_more_than_65504_and_says_so_by_infinity():
    assert round_trip(FP16(), np.array([65504, 1e5], np.float32)).tolist() == [65504, np.inf]


@UNHURRIED
@given(vectors)
def test_int8_errs_by_at_most_half_a_step_of_its_block(vector):
    decoded = round_trip(Int8(), vector)
    for block, error in zip(blocks(vector), blocks(decoded - vector), strict=True):
        if block.size:
            # The largest is 127 steps; a reciprocal in single precision may miss the middle by 1e-4 steps.
            assert np.abs(error).max() <= np.abs(block).max() / 127 * 0.5001


def test_int8_golden_numbers():
    vector = np.array([127, -127, 1.4, -1.6, 0], np.float32)
    data = encoded(Int8(), vector)
    assert data[:4].view("<f4").tolist() == [1.0]
    assert data[4:].view(np.int8).tolist() == [127, -127, 1, -2, 0]
    assert round_trip(Int8(), vector).tolist() == [127, -127, 1, -2, 0]


def test_int8_of_values_below_the_normal_numbers_is_finite():
    vector = np.array([1e-44, -1e-42, 1e-38], np.float32)
    np.testing.assert_allclose(round_trip(Int8(), vector), vector, atol=np.finfo(np.float32).tiny / 2)


@UNHURRIED
@given(vectors)
def test_sign_has_exactly_its_relative_error(vector):
    decoded = round_trip(Sign(), vector)
    for block, error in zip(blocks(vector.astype(float)), blocks(decoded - vector), strict=True):
        if block.size:
            expected = 1 - np.abs(block).sum() ** 2 / (block.size * (block**2).sum())
            assert (error.astype(float) ** 2).sum() / (block**2).sum() == pytest.approx(expected, abs=1e-5)


def test_sign_golden_numbers():
    vector = np.array([1, -2, 3, 0, -4], np.float32)
    data = encoded(Sign(), vector)
    assert data[:4].view("<f4").tolist() == [2.0]
    assert data[4:].tolist() == [0b01001000]
    assert round_trip(Sign(), vector).tolist() == [2, -2, 2, 2, -2]


@UNHURRIED
@given(vectors, st.sampled_from([0.001, 0.01, 0.3, 1]))
def test_top_k_keeps_exactly_the_largest_and_is_within_its_bound(vector, density):
    codec = TopK(density)
    k, decoded = codec.kept(vector.size), round_trip(codec, vector)
    kept = decoded != 0
    assert kept.sum() == k
    np.testing.assert_array_equal(decoded[kept], vector[kept])
    assert np.abs(vector[kept]).min(initial=np.inf) >= np.abs(vector[~kept]).max(initial=0)
    error = ((decoded - vector).astype(float) ** 2).sum()
    assert error <= (1 - k / max(vector.size, 1)) * (vector.astype(float) ** 2).sum() * (1 + 1e-6)


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.2, 0.9])
@pytest.mark.parametrize(
    "arrange", [np.array, np.sort, lambda v: np.where(np.arange(v.size) % 12 == 0, 0, v)]
)
def test_top_k_of_a_large_vector_does_not_depend_on_its_order(density, arrange):
    vector = arrange(normal(200_003)).astype(np.float32)
    decoded = round_trip(TopK(density), vector)
    k = TopK(density).kept(vector.size)
    kept = decoded != 0
    assert kept.sum() == k
    assert np.abs(vector[kept]).min() >= np.abs(vector[~kept]).max()


def test_top_k_of_equal_values_keeps_as_many_as_it_must():
    assert round_trip(TopK(0.25), np.ones(100_000, np.float32)).sum() == 25_000


def test_an_index_beyond_the_vector_is_refused():
    data = encoded(TopK(), normal(100))
    data[:4].view("<u4")[:] = 100
    with pytest.raises(CodecError, match=r"indices below 100. Received: 100"):
        TopK().decode(data, np.empty(100, np.float32))


@EVERY_CODEC
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_bytes_of_the_right_number_decode_or_are_refused(codec, data):
    size = data.draw(st.integers(0, 40))
    length = codec.encoded_bytes(size)
    received = np.frombuffer(data.draw(st.binary(min_size=length, max_size=length)), np.uint8)
    out = np.empty(size, np.float32)
    try:
        codec.decode(received, out)
    except CodecError:
        assert isinstance(codec, TopK | ChunkTopK)


@EVERY_CODEC
def test_a_packing_leaves_the_statistics_as_they_are(codec):
    message = normal(1003)
    packing = Packing(codec, 1003, 1000)
    data = np.empty(packing.num_bytes, np.uint8)
    packing.encode(message, data)
    decoded = np.empty_like(message)
    packing.decode(data, decoded)
    assert packing.num_bytes == codec.encoded_bytes(1000) + 12
    np.testing.assert_array_equal(decoded[1000:], message[1000:])
    np.testing.assert_array_equal(decoded[:1000], round_trip(codec, message[:1000]))


def test_codecs_are_found_by_name():
    assert [codecs.get(name) for name in ("fp16", "bf16", "int8", "sign", "topk")] == [
        FP16(), BF16(), Int8(), Sign(), TopK(density=0.01),
    ]  # fmt: skip
    assert codecs.get(None) is None
    assert codecs.get(TopK(0.5)) == TopK(density=0.5)
    numbers = {codec.number for codec in codecs.REGISTRY.values()}
    assert len(numbers) == len(codecs.REGISTRY)
    assert numbers <= set(range(1, 256))


@EVERY_CODEC
def test_a_codec_travels_by_pickle(codec):
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_an_unknown_name_is_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"Did you mean 'int8'.*Received: compression='INT-8'"):
        codecs.get("INT-8")
    with pytest.raises(ValueError, match="Known: fp16, bf16, int8, fp4, sign, topk, chunktopk"):
        codecs.get("zstd")
    with pytest.raises(TypeError, match="Received: compression=8"):
        codecs.get(8)


@pytest.mark.parametrize("density", [0, -0.1, 1.5, np.nan, "0.1", True, None])
def test_a_density_out_of_range_is_refused(density):
    with pytest.raises(ValueError, match="`density` of TopK"):
        TopK(density)
