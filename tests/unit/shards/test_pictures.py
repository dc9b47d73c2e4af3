"""Pictures that declare more than they hold are refused before they are decoded."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpc.errors import DataError
from sarhpc.captioning.tuning.datasets import read_image
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.pictures import opened_picture
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.image_import import import_shard, plan_import


def bomb(side: int, channels: int = 1) -> bytes:
    """A valid PNG of `side` squared black pixels, a thousandth of their size."""
    row = bytes(1 + side * channels)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    kind = {1: 0, 3: 2}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMB = bomb(13_000)


def test_a_picture_that_declares_more_than_it_holds_is_refused_undecoded(tmp_path: Path) -> None:
    assert len(BOMB) < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="13000 x 13000 pixels"), opened_picture(BOMB):
        pass
    with pytest.raises(DataError, match="13000 x 13000 pixels"):
        decode_gray8(BOMB)
    (tmp_path / "a.png").write_bytes(BOMB)
    with pytest.raises(DataError, match=r"a\.png.*13000 x 13000"):
        read_image(tmp_path / "a.png")
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 50_000, "decoded it has 165 MB"


def test_one_among_imported_pictures_is_counted_and_the_others_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "c"):
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(BOMB)
    cfg = ImportConfig(path=str(tmp_path), fractions=[1.0, 0.0, 0.0])
    (inputs,) = plan_import(cfg).shards
    made = import_shard(0, inputs, cfg)
    assert len(list(made.samples)) == 2
    assert made.rejected == {"unreadable": 1}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_large_pictures_of_something_are_read(form: str) -> None:
    speckle = np.random.default_rng(0).rayleigh(40, (4200, 4200)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(speckle).save(buffer, form, compress_level=1)
    with opened_picture(buffer.getvalue()) as image:
        assert np.asarray(image).shape == (4200, 4200)


def test_a_format_that_is_not_named_is_not_tried(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.ppm")
    with pytest.raises(DataError, match="not a PNG"), opened_picture(tmp_path / "a.ppm", ("PNG",)):
        pass
