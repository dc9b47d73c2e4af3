"""Images, texts and tars of other programs: read for what they are, or left out with the reason."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.tiling.test_tile_imports import gray, picture, take, write, write_tar

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.captioners.given import GivenCaptioner
from sarhpc.captioning.config import TemplateConfig
from sarhpc.captioning.template import compose
from sarhpc.generation.plan import within_template
from sarhpc.shards.images import decode_array, decode_gray8, encode_array
from sarhpc.shards.radiometry import master_amplitude
from sarhpc.shards.reader import ShardIndex
from sarhpc.tiling.image_import import plan_import


def training_text(sample, **template):
    [draft] = GivenCaptioner().draft([sample])
    return compose(draft, sample.meta, TemplateConfig(**template)).text


def test_a_text_that_came_along_stays_as_it_is(test_cases):
    samples, _ = take(test_cases / "given_text")
    [sample] = samples.values()
    text = "A SAR image of a T72 vehicle on grass"
    assert training_text(sample) == text
    assert training_text(sample, token="A SAR image of") == text, "a token asked for, once"
    assert training_text(sample, token="<SAR>") == f"<SAR> {text}"
    assert within_template("A SAR image of {prompt}", text) == text
    assert within_template("A SAR image of {prompt}", "a lake") == "A SAR image of a lake"


def test_three_lengths_are_kept_and_the_variant_picks(test_cases):
    samples, _ = take(test_cases / "sarlo80")
    [sample] = samples.values()
    lengths = sample.meta["caption"]
    assert lengths == {
        "SHORT": "A town.",
        "MID": "A town with streets and fields.",
        "LONG": "The image shows a town with streets, houses, and surrounding fields.",
    }
    for name, text in lengths.items():
        assert training_text(sample, variant=name) == text
    assert "sicd.xml" in sample.members
    assert (sample.meta["pixel_m"], sample.meta["plane"]) == (0.8, "slant")


def test_texts_are_decoded_by_their_byte_order_mark(test_cases):
    samples, rejected = take(test_cases / "kohya_bom")
    assert {name: sample.caption for name, sample in samples.items()} == {
        "0.png": "a SAR image of a lake",
        "2.png": "a SAR image of a town",
        "3.PNG": None,
        "4.png": "upper txt",
        "5.PNG": None,
    }
    assert rejected == {"caption_encoding": 1}


def test_one_line_of_a_table_in_another_encoding_costs_that_line_alone(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", picture(gray(number)))
    rows = [json.dumps({"file_name": f"{n}.png", "text": "a fôret"}, ensure_ascii=False)
            for n in range(3)]  # fmt: skip
    lines = [rows[0].encode(), rows[1].encode("latin-1"), rows[2].encode()]
    write(tmp_path / "metadata.jsonl", b"\n".join(lines))
    samples, rejected = take(tmp_path)
    assert sorted(samples) == ["0.png", "2.png"]
    assert "UTF-8" in rejected["metadata.jsonl line 2"]
    write(tmp_path / "metadata.jsonl", "\n".join(rows).encode("utf-16"))
    assert {s.caption for s in take(tmp_path)[0].values()} == {"a fôret"}


def test_a_separator_within_a_caption_ends_no_line(test_cases):
    samples, rejected = take(test_cases / "jsonl_ls")
    assert (len(samples), rejected) == (6, {})
    assert samples["2.png"].caption == "two lines"


def test_float_pictures_are_scaled_with_a_master(test_cases):
    samples, rejected = take(test_cases / "float_tiff", px=64)
    assert (len(samples), rejected) == (6, {})
    for name, sample in samples.items():
        stored = np.asarray(Image.open(test_cases / "float_tiff" / name))
        assert decode_gray8(sample.members["sar.png"]).mean() > 50
        master = master_amplitude(decode_array(sample.members["sar16.npy"]), sample.meta)
        assert np.abs(master - stored).max() <= stored.max() / 65535


def test_decibels_are_taken_by_declaration_and_refused_without(test_cases):
    with_reason, rejected = take(test_cases / "float_db", px=64)
    assert (with_reason, rejected) == ({}, {"unreadable": 6})
    samples, rejected = take(test_cases / "float_db", px=64, quantity="db")
    assert (len(samples), rejected) == (6, {})
    stored = np.asarray(Image.open(test_cases / "float_db" / "0.tif"))
    sample = samples["0.tif"]
    master = master_amplitude(decode_array(sample.members["sar16.npy"]), sample.meta)
    bright = stored > stored.max() - 30
    assert np.abs(20 * np.log10(master[bright]) - stored[bright]).max() < 0.01


def test_a_picture_of_many_bits_and_no_signal_is_left_out(tmp_path):
    write(tmp_path / "black.tif", picture(np.zeros((40, 40), np.float32), "TIFF"))
    write(tmp_path / "nan.tif", picture(np.full((40, 40), np.nan, np.float32), "TIFF"))
    write(tmp_path / "some.png", picture(gray(1)))
    samples, rejected = take(tmp_path)
    assert (list(samples), rejected) == (["some.png"], {"no_signal": 1, "unreadable": 1})


def test_a_binary_attribute_of_a_tar_is_passed_over(test_cases):
    samples, rejected = take(test_cases / "tar_xattr")
    assert (len(samples), rejected) == (4, {})


def test_keys_with_dots_are_told_for_what_they_are(test_cases, tmp_path):
    with pytest.raises(DataError, match=r"first dot of its name, so 4 pictures .*rename them"):
        take(test_cases / "tar_dots")
    shutil.copy(test_cases / "tar_dots" / "s.tar", tmp_path / "dots.tar")
    write_tar(tmp_path / "good.tar", {"0.png": picture(gray(1))})
    samples, rejected = take(tmp_path)
    assert list(samples) == ["good.tar/0"]
    assert "first dot" in rejected["dots.tar/S1A_20190101T0101"]


def test_a_tar_of_others_needs_no_end_blocks_and_one_of_ours_does(test_cases, caplog):
    with caplog.at_level(logging.WARNING):
        samples, rejected = take(test_cases / "tar_noeof")
    assert (len(samples), rejected) == (4, {})
    assert "no end-of-archive blocks" in caplog.text
    with pytest.raises(DataError, match="cut short"):
        ShardIndex.scan(test_cases / "tar_noeof" / "s.tar")


def test_linked_folders_are_followed_once_and_loops_are_noticed(tmp_path):
    write(tmp_path / "data" / "a.png", picture(gray(1)))
    write(tmp_path / "elsewhere" / "b.png", picture(gray(2)))
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "pass2")
    os.symlink(tmp_path / "data", tmp_path / "elsewhere" / "back")
    os.symlink(tmp_path / "gone.png", tmp_path / "data" / "c.png")
    samples, rejected = take(tmp_path / "data")
    assert sorted(samples) == ["a.png", "pass2/b.png"]
    assert "is not there" in rejected["c.png"]


@pytest.mark.parametrize(("direction", "turned"), [
    ("+col", lambda image: image),
    ("-col", lambda image: image[::-1, ::-1]),
    ("+row", lambda image: image.T[::-1]),
    ("-row", lambda image: image.T[:, ::-1]),
])  # fmt: skip
def test_images_and_layers_are_turned_to_near_range_at_column_0(tmp_path, direction, turned):
    shape = (40, 48)
    rng = np.random.default_rng(5)
    colour = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    cover = rng.integers(0, 9, (2, *shape), dtype=np.uint8)
    field = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    write_tar(tmp_path / "s.tar", {
        "0.sar.png": picture(gray(3)),
        "0.sar.npy": encode_array(field),
        "0.optic.png": picture(colour),
        "0.landcover.npy": encode_array(cover),
    })  # fmt: skip
    samples, _ = take(tmp_path, range_direction=direction)
    [sample] = samples.values()
    assert (decode_gray8(sample.members["sar.png"]) == turned(gray(3))).all()
    assert (decode_array(sample.members["sar.npy"]) == turned(field)).all()
    assert (decode_array(sample.members["landcover.npy"])[1] == turned(cover[1])).all()
    red = np.asarray(Image.open(__import__("io").BytesIO(sample.members["optic.png"])))[..., 0]
    assert (red == turned(colour[..., 0])).all()
    assert sample.meta["range_direction"] == "+col"
    assert sample.meta["origin"].get("range_direction", "+col") == direction


def test_an_unknown_range_direction_is_refused(tmp_path):
    write(tmp_path / "a.png", picture(gray(1)))
    with pytest.raises(ConfigError, match=r"imported.range_direction='up'.*\+row"):
        take(tmp_path, range_direction="up")


def test_all_of_a_large_image_is_used(tmp_path):
    write(tmp_path / "a.png", picture(gray(1, (128, 130))))
    samples = _every(tmp_path, px=64, cut="grid")
    assert [s.meta["origin"]["window"] for s in samples] == [
        [0, 1, 64, 64], [0, 65, 64, 64], [64, 1, 64, 64], [64, 65, 64, 64]
    ]  # fmt: skip
    assert len({sample.key for sample in samples}) == 4


def test_one_law_keeps_the_level_between_images(tmp_path):
    dark, bright = (gray(n).astype(np.uint16) * factor for n, factor in ((1, 10), (2, 200)))
    write(tmp_path / "dark.png", picture(dark))
    write(tmp_path / "bright.png", picture(bright))
    means = {}
    for scope in ("image", "set"):
        samples, _ = take(tmp_path, level_scope=scope)
        dark_mean, bright_mean = (
            decode_gray8(samples[name].members["sar.png"]).mean()
            for name in ("dark.png", "bright.png")
        )
        means[scope] = bright_mean / dark_mean
    assert means["image"] == pytest.approx(1, abs=0.1)
    assert means["set"] > 10


def test_the_complex_tile_of_a_public_set_keeps_its_level(tmp_path):
    rng = np.random.default_rng(2)
    field = (rng.standard_normal((40, 48)) + 1j * rng.standard_normal((40, 48))).astype(
        np.complex64
    )
    members = {}
    for number, level in enumerate((1, 10)):
        members[f"{number}.sar.png"] = picture(gray(number))
        members[f"{number}.sar.npy"] = encode_array(field * np.float32(level))
    write_tar(tmp_path / "train-00000.tar", members)
    samples, _ = take(tmp_path, level_scope="set")
    first, second = (decode_gray8(s.members["sar.png"]).mean() for s in samples.values())
    assert second > 5 * first
    assert all("sar.npy" in sample.members for sample in samples.values())


def test_fixed_splits_are_kept(tmp_path):
    for name in ("train-00000", "val_00001", "test-a"):
        write_tar(tmp_path / f"{name}.tar", {f"{name}.png": picture(gray(1))})
    from sarhpc.tiling.config import ImportConfig

    plan = plan_import(ImportConfig(path=str(tmp_path), fractions=[1.0, 0.0, 0.0]))
    assert {s["source"]: s["split"] for s in plan.shards} == {
        "train-00000.tar": "train", "val_00001.tar": "val", "test-a.tar": "test"
    }  # fmt: skip


SICD = """<SICD xmlns="urn:SICD:1.2.1"><CollectionInfo><CollectorName>Umbra-04</CollectorName>
</CollectionInfo><ImageFormation><TxRcvPolarizationProc>V:V</TxRcvPolarizationProc>
<TxFrequencyProc><MinProc>9300000000</MinProc><MaxProc>9900000000</MaxProc></TxFrequencyProc>
</ImageFormation><SCPCOA><SideOfTrack>L</SideOfTrack><IncidenceAng>44.5</IncidenceAng></SCPCOA>
<Timeline><CollectStart>2023-05-01T10:00:00Z</CollectStart></Timeline>
<Grid><ImagePlane>SLANT</ImagePlane></Grid></SICD>"""


def test_geometry_of_a_public_tile_is_read(tmp_path):
    meta = {
        "spacing_eff_az": 0.8, "spacing_eff_rg": 0.8,
        "incidence_angles": {"terrain_deg": 46.0, "ellipsoid_deg": 45.1, "sicd_deg": 44.9},
        "bbox_llh": [[47.8, 12.1, 400], [47.81, 12.1, 400], [47.81, 12.12, 400], [47.8, 12.12, 1]],
    }  # fmt: skip
    write_tar(tmp_path / "s.tar", {
        "0.sar.png": picture(gray(3)),
        "0.meta.json": json.dumps(meta).encode(),
        "0.sicd.xml": SICD.encode(),
    })  # fmt: skip
    [sample] = take(tmp_path)[0].values()
    stated = {
        "band": "X", "polarization": "VV", "look_side": "left", "platform": "umbra-04",
        "incidence_deg": 45.1, "plane": "slant", "pixel_m": 0.8,
        "datetime": "2023-05-01T10:00:00Z",
        "footprint": [[12.1, 47.8], [12.1, 47.81], [12.12, 47.81], [12.12, 47.8]],
    }  # fmt: skip
    assert {name: sample.meta[name] for name in stated} == stated
    assert sample.meta["range_direction"] is None, "not stated, so not known"
    assert sample.members["sicd.xml"].decode() == SICD


def _every(root: Path, **settings):
    from sarhpc.tiling.config import ImportConfig
    from sarhpc.tiling.image_import import import_shard

    cfg = ImportConfig(path=str(root), fractions=[1.0, 0.0, 0.0], **settings)
    plan = plan_import(cfg)
    return [s for n, inputs in enumerate(plan.shards) for s in import_shard(n, inputs, cfg).samples]
