"""Images to begin with: read under the model's contract, or refused by name before anything."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hpc.errors import ConfigError, DataError, VerificationError
from sarhpc.generation.sources.found import images_below
from sarhpc.generation.sources.source_images import SourceImages
from sarhpc.shards.contract import LawSpan, PixelContract
from sarhpc.shards.images import encode_array, encode_gray8
from sarhpc.shards.radiometry import Normalisation, encode_levels, encode_master
from sarhpc.shards.sample import SAMPLE_SCHEMA, Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)
DB = Normalisation("db", None, None, 10.0, 0.01)
DB_CONTRACT = PixelContract(
    normalisation=LawSpan("db", (10.0, 10.0), (0.01, 0.01)), calibration="sigma0",
    pixel_m=(0.35, 0.35), plane="ground", range_direction="+col", band=("X",), tiles=1,
)  # fmt: skip
LINEAR_CONTRACT = PixelContract(
    normalisation=LawSpan("mu+3sigma", (1.0, 4.0)), calibration="sigma0", pixel_m=(0.35, 0.35),
    plane="ground", range_direction="+col", band=("X",), tiles=1,
)  # fmt: skip
TILE = {
    "schema": SAMPLE_SCHEMA, "synthetic": False, "pixel_m": 0.35, "plane": "ground", "band": "X",
    "range_direction": "+col", "calibration": "sigma0",
    "normalisation": Normalisation("mu+3sigma", 1.0, 0.5, 2.5).to_json(),
}  # fmt: skip


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sources(path: Path, contract: PixelContract | None = None) -> SourceImages:
    return SourceImages(images_below(path), contract)


def folder(path: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def shard(path: Path, meta: Mapping[str, Any], **members: bytes) -> Path:
    named = {name.replace("__", "."): data for name, data in members.items()}
    key = sample_key(3, 0)
    sample = Sample(key, {**named, "meta.json": encode_json({**meta, "key": key})})
    write_shard(path / "000003.tar", [sample])
    return path


def amplitude() -> NDArray[np.float32]:
    return np.linspace(0.02, 9.0, 256, dtype=np.float32).reshape(16, 16)


def test_gray_pictures_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder(tmp_path, b__png=encode_gray8(GRAY), a__tif=encoded(Image.fromarray(GRAY.T), "TIFF"))
    found = sources(tmp_path)
    assert [found.load(n).name for n in range(3)] == ["a.tif", "b.png", "a.tif"], "in turn"
    np.testing.assert_allclose(found.load(1).levels * 255, GRAY, atol=1e-4)
    np.testing.assert_allclose(found.load(0).levels * 255, GRAY.T, atol=1e-4)
    assert len(found.survey((16, 16)).digests) == 2


REFUSED = {
    "colour.png": (encoded(Image.new("RGB", (16, 16), "red")), "colours; convert it to gray"),
    "alpha.png": (encoded(Image.new("LA", (16, 16))), "alpha channel"),
    "rgba.png": (encoded(Image.new("RGBA", (16, 16))), "alpha channel"),
    "clear.png": (encoded(Image.new("L", (16, 16)), transparency=7), "alpha channel"),
    "palette.png": (encoded(Image.new("P", (16, 16))), "palette"),
    "one_bit.png": (encoded(Image.new("1", (16, 16))), "1 bit a pixel"),
    "deep.png": (encoded(Image.fromarray(GRAY.astype(np.uint16) * 9)), "more than 8 bits"),
    "float.tif": (encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), "more than 8 bits"),
    "cut.png": (encode_gray8(GRAY)[:-30], "cut.png: "),
    "text.png": (b"no picture at all", "text.png: not a PNG"),
    "empty.png": (b"", "empty.png: "),
    "pages.tif": (
        encoded(
            Image.fromarray(GRAY), "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)]
        ),
        "a file of 2 pictures",
    ),
    "large.png": (encode_gray8(np.zeros((16, 24), np.uint8)), "16 x 24 px.*never resampled"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_of_another_kind_is_refused_by_name_among_good_ones(
    tmp_path: Path, name: str
) -> None:
    data, words = REFUSED[name]
    folder(tmp_path, good__png=encode_gray8(GRAY))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as refused:
        sources(tmp_path).survey((16, 16))
    assert "1 of 2 images to begin with are refused, nothing was made" in str(refused.value)
    assert name in str(refused.value)


def test_many_refused_images_are_counted_and_some_are_named(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"9 of 9 images .*0\.png.*4\.png.* \.\.\.$"):
        sources(tmp_path).survey(None)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        sources(folder(tmp_path, notes__txt=b"?"))
    with pytest.raises(DataError, match="does not exist"):
        sources(tmp_path / "none")


def test_names_with_control_characters_and_other_encodings_are_told_escaped(
    tmp_path: Path,
) -> None:
    for name in (b"a\x1b[31m\n.png", b"b\xff.png"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(encode_gray8(GRAY))
    found = sources(tmp_path)
    assert [found.load(n).name for n in range(2)] == ["a\\x1b[31m\\n.png", "b\\xff.png"]
    encode_json({"image": found.load(1).name})


def test_a_pipe_called_a_picture_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        sources(tmp_path).survey(None)


def test_texts_beside_pictures_are_their_descriptions(tmp_path: Path) -> None:
    folder(
        tmp_path, a__png=encode_gray8(GRAY), a__txt=b"A SAR image of a lake\n",
        b__png=encode_gray8(GRAY), b__caption=b"a wood",
    )  # fmt: skip
    found = sources(tmp_path)
    assert found.descriptions([]) == ["A SAR image of a lake", "a wood"]
    assert found.descriptions(["x"]) == ["x", "x"], "one for each image"
    assert found.descriptions(["x", "y", "z"]) == ["x", "y", "z"], "fewer images than prompts"
    (tmp_path / "b.caption").unlink()
    with pytest.raises(ConfigError, match=r"b\.png has no description .*generate\.prompts"):
        found.descriptions([])
    (tmp_path / "b.txt").write_bytes("forêt".encode("latin-1"))
    with pytest.raises(DataError, match=r"b\.png: its \.txt is no UTF-8"):
        found.descriptions([])


def test_a_tile_is_its_picture_and_its_short_caption(tmp_path: Path) -> None:
    meta = {**TILE, "caption": {"SHORT": "a lake", "LONG": "a lake in spring"}}
    shard(tmp_path, meta, sar__png=encode_gray8(GRAY), txt=b"A SAR image of a lake in spring")
    found = sources(tmp_path, LINEAR_CONTRACT)
    np.testing.assert_allclose(found.load(0).levels * 255, GRAY, atol=1e-4)
    assert found.descriptions([]) == ["a lake"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixel_m": 0.5}, r"000003.*pixel_m: .*0\.5.*0\.35"),
        ({"band": "C"}, "band: .*C.*X"),
        ({"range_direction": "-row"}, r"range_direction: -row against \+col"),
        ({"plane": "slant"}, "plane: slant against ground"),
        ({"calibration": "none"}, "calibration: none against sigma0"),
    ],
)
def test_tiles_of_other_pixels_than_the_contract_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    shard(tmp_path, {**TILE, **changes}, sar__png=encode_gray8(GRAY))
    with pytest.raises(DataError, match=words):
        sources(tmp_path, LINEAR_CONTRACT).survey(None)
    assert sources(tmp_path).survey(None).digests, "without a contract nobody knows"


def test_amplitude_of_a_master_is_brought_under_the_law_of_the_model(tmp_path: Path) -> None:
    codes, scale = encode_master(amplitude())
    picture = Normalisation.from_json(TILE["normalisation"]).encode(amplitude())
    shard(
        tmp_path, {**TILE, "master_scale": scale}, sar__png=encode_gray8(picture),
        sar16__npy=encode_array(codes),
    )  # fmt: skip
    found = sources(tmp_path, DB_CONTRACT).load(0)
    np.testing.assert_allclose(found.levels, DB.levels(amplitude()), atol=1e-3)
    assert found.sha256 == hashlib.sha256(encode_array(codes)).hexdigest()


def test_complex_tiles_without_a_picture_are_read_by_modulus(tmp_path: Path) -> None:
    field = (amplitude() * np.exp(1j * amplitude())).astype(np.complex64)
    shard(tmp_path, TILE, sar__npy=encode_array(field))
    levels = sources(tmp_path, DB_CONTRACT).load(0).levels
    np.testing.assert_allclose(levels, DB.levels(amplitude()), atol=2e-4)
    levels = sources(tmp_path, LINEAR_CONTRACT).load(0).levels
    np.testing.assert_allclose(levels, np.minimum(amplitude() / 2.5, 1), atol=2e-4)


def test_a_generated_master_is_its_levels(tmp_path: Path) -> None:
    levels = np.linspace(0.1, 0.9, 256, dtype=np.float32).reshape(16, 16)
    meta = {**TILE, "synthetic": True, "master_law": "level", "normalisation": DB.to_json()}
    shard(tmp_path, meta, sar16__npy=encode_array(encode_levels(levels)))
    found = sources(tmp_path, DB_CONTRACT).load(0).levels
    np.testing.assert_allclose(found, levels, atol=1e-4)


@pytest.mark.parametrize(
    ("contract", "changes", "words"),
    [
        (None, {}, "no 8-bit picture, and the model has no contract"),
        (DB_CONTRACT, {"calibration": None}, "cannot be brought under the model's law db"),
        (LINEAR_CONTRACT, {"normalisation": None}, "cannot be brought under .* mu.3sigma"),
        (LINEAR_CONTRACT, {"normalisation": DB.to_json()}, "cannot be brought under"),
    ],
)
def test_amplitude_of_unknown_scale_is_refused(
    tmp_path: Path, contract: PixelContract | None, changes: dict[str, Any], words: str
) -> None:
    shard(tmp_path, {**TILE, **changes}, sar__npy=encode_array(amplitude().astype(np.complex64)))
    with pytest.raises(DataError, match=words):
        sources(tmp_path, contract).survey(None)


@pytest.mark.parametrize(
    "field",
    [
        np.full((16, 16), np.nan, np.complex64),
        np.ones((16, 16)),
        np.ones((2, 16, 16), np.complex64),
    ],
)
def test_complex_tiles_that_are_none_are_refused(tmp_path: Path, field: NDArray[Any]) -> None:
    shard(tmp_path, TILE, sar__npy=encode_array(field))
    with pytest.raises(DataError, match=r"sar\.npy is .* not finite complex64"):
        sources(tmp_path, DB_CONTRACT).survey(None)


def test_a_sample_without_an_image_is_refused(tmp_path: Path) -> None:
    shard(tmp_path, TILE, edges__png=encode_gray8(GRAY))
    with pytest.raises(DataError, match=r"has no image \(sar\.png"):
        sources(tmp_path).survey(None)


def test_what_says_nothing_of_its_pixels_is_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder(tmp_path, a__png=encode_gray8(GRAY))
    assert sources(tmp_path, DB_CONTRACT).survey(None).unknown == 1
    assert "1 of 1 images to begin with do not say what their pixels mean" in caplog.text


def test_a_changed_image_is_not_what_was_planned(tmp_path: Path) -> None:
    folder(tmp_path, a__png=encode_gray8(GRAY), b__png=encode_gray8(GRAY.T))
    found = sources(tmp_path)
    surveyed = found.survey(None)
    digest = surveyed.of(1, 3)
    found.require_planned(1, 3, digest)
    (tmp_path / "b.png").write_bytes(encode_gray8(255 - GRAY))
    with pytest.raises(VerificationError, match="not those that were planned"):
        found.require_planned(1, 3, digest)
    found.require_planned(0, 1, surveyed.of(0, 1))
    (tmp_path / "b.png").unlink()
    with pytest.raises(VerificationError, match=r"b\.png cannot be read"):
        found.require_planned(1, 3, digest)
