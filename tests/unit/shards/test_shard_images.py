from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hpc.errors import DataError
from sarhpc.shards.images import (
    decode_array,
    decode_gray8,
    decode_rgb8,
    encode_array,
    encode_gray8,
    encode_rgb8,
)

SHAPES = [(1, 1), (1, 7), (33, 57), (64, 64)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("shape", SHAPES)
def test_gray_pixels_come_back_and_pillow_agrees(shape, rng):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    data = encode_gray8(image)
    np.testing.assert_array_equal(decode_gray8(data), image)
    opened = Image.open(io.BytesIO(data))
    opened.verify()
    assert opened.size == shape[::-1]
    assert opened.mode == "L"


@pytest.mark.parametrize("shape", SHAPES)
def test_colour_pixels_come_back_even_from_a_mirrored_view(shape, rng):
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)[::-1, ::-1]
    np.testing.assert_array_equal(decode_rgb8(encode_rgb8(image)), image)


def test_equal_pixels_are_equal_bytes_whatever_the_memory_layout(rng):
    image = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    assert encode_gray8(image) == encode_gray8(np.asfortranarray(image))
    array = rng.random((5, 4)).astype("<f4")
    assert encode_array(array) == encode_array(np.asfortranarray(array.astype(">f4")))


@pytest.mark.parametrize("dtype", ["uint16", "complex64", "float32", "bool", ">i4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 5, 4)])
def test_arrays_come_back_with_dtype_and_shape(dtype, shape):
    array = np.arange(np.prod(shape), dtype="i4").reshape(shape).astype(dtype)
    back = decode_array(encode_array(array))
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.shape == shape
    np.testing.assert_array_equal(back, array)


def test_arrays_written_by_numpy_in_fortran_order_are_read():
    array = np.asfortranarray(np.arange(12).reshape(3, 4))
    buffer = io.BytesIO()
    np.save(buffer, array)
    np.testing.assert_array_equal(decode_array(buffer.getvalue()), array)


@pytest.mark.parametrize(
    ("encode", "bad"),
    [
        (encode_gray8, np.zeros((4, 4), np.uint16)),
        (encode_gray8, np.zeros((4, 4, 3), np.uint8)),
        (encode_gray8, np.zeros((0, 4), np.uint8)),
        (encode_rgb8, np.zeros((4, 4), np.uint8)),
        (encode_rgb8, np.zeros((4, 4, 4), np.uint8)),
        (encode_rgb8, np.zeros((4, 4, 3), np.float32)),
        (encode_array, np.array([{}], dtype=object)),
    ],
)
def test_unfit_arrays_are_refused(encode, bad):
    with pytest.raises(DataError, match="cannot encode"):
        encode(bad)


def png(mode: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "I;16", "P", "1", "LA"])
def test_gray_of_another_mode_is_refused(mode):
    with pytest.raises(DataError, match="mode"):
        decode_gray8(png(mode))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_colour_of_another_mode_is_refused(mode):
    with pytest.raises(DataError, match="mode"):
        decode_rgb8(png(mode))


@pytest.mark.parametrize("damage", [lambda d: d[:60], lambda d: b"x" + d, lambda d: b""])
def test_damaged_png_is_a_data_error(damage, rng):
    data = encode_gray8(rng.integers(0, 256, (32, 32), dtype=np.uint8))
    with pytest.raises(DataError, match="cannot read a PNG"):
        decode_gray8(damage(data))


def test_other_image_formats_are_refused():
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "BMP")
    with pytest.raises(DataError, match="not a PNG"):
        decode_gray8(buffer.getvalue())


def test_pickled_arrays_are_refused():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickle"):
        decode_array(buffer.getvalue())


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:9]])
def test_damaged_npy_is_a_data_error(damage):
    with pytest.raises(DataError, match="npy member"):
        decode_array(damage(encode_array(np.zeros((3, 3)))))


def test_a_false_npy_header_cannot_claim_memory():
    data = encode_array(np.zeros((3, 3))).replace(b"(3, 3), ", b"(9999999999999,9999999999999),")
    with pytest.raises(DataError, match="npy member"):
        decode_array(data)
