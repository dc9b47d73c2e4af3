"""Third-party images as tiles: their layouts, their pixels, and no invented metadata."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpc.errors import ConfigError, DataError
from sarhpc.shards.foreign import list_foreign, read_foreign
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8, encode_array
from sarhpc.shards.schema import UNKNOWN, validate_sample
from sarhpc.shards.tile_contract import contract_of_tiles
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.image_import import import_shard, plan_import


def gray(seed=0, shape=(40, 48)):
    return np.random.default_rng(seed).rayleigh(60, shape).clip(0, 255).astype(np.uint8)


def picture(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """As its writers do: members in their order, with times and owners."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1_700_000_000, "bigdata"
            tar.addfile(info, io.BytesIO(data))


def take(root, **settings):
    """Every sample, by the name it had, and what was rejected."""
    cfg = ImportConfig(path=str(root), fractions=[1.0, 0.0, 0.0], **settings)
    plan = plan_import(cfg)
    samples, rejected = {}, {}
    for number, inputs in enumerate(plan.shards):
        made = import_shard(number, json.loads(json.dumps(inputs)), cfg)
        for sample in made.samples:
            validate_sample(sample)
            samples[sample.meta["origin"]["name"]] = sample
        rejected |= made.rejected
    return samples, rejected | dict(plan.rejected)


def test_a_kohya_folder_gives_captions_beside_pictures_or_of_the_folder(tmp_path):
    write(tmp_path / "10_sar_ships" / "a.png", picture(gray(1)))
    write(tmp_path / "10_sar_ships" / "a.txt", " a harbour,\n two ships ")
    write(tmp_path / "10_sar_ships" / "b.jpg", picture(gray(2), "JPEG"))
    write(tmp_path / "5_town" / "c.png", picture(gray(3)))
    write(tmp_path / "5_town" / "c.caption", "a town")
    write(tmp_path / "plain" / "d.png", picture(gray(4)))
    write(tmp_path / ".cache" / "e.png", picture(gray(5)))
    samples, rejected = take(tmp_path)
    assert {name: sample.caption for name, sample in samples.items()} == {
        "10_sar_ships/a.png": "a harbour, two ships",
        "10_sar_ships/b.jpg": "sar ships",
        "5_town/c.png": "a town",
        "plain/d.png": None,
    }
    assert rejected == {}
    assert (decode_gray8(samples["plain/d.png"].members["sar.png"]) == gray(4)).all()


def test_a_diffusers_folder_is_read_by_its_table(tmp_path):
    write(tmp_path / "train" / "img" / "a.png", picture(gray(1)))
    rows = [
        {"file_name": "img/a.png", "text": "a lake", "city": "Brest", "incidence": [30.1]},
        {"file_name": "img/gone.png", "text": "a road"},
        {"file_name": "../../secret.png", "text": "outside"},
    ]
    write(tmp_path / "secret.png", picture(gray(2)))
    write(tmp_path / "train" / "metadata.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    samples, rejected = take(tmp_path)
    [(name, sample)] = samples.items()
    assert (name, sample.caption) == ("train/img/a.png", "a lake")
    assert sample.meta["origin"]["meta"] == rows[0]
    assert rejected["train/img/gone.png"] == "named in metadata.jsonl and not there"
    assert "leaves the folder" in rejected["../../secret.png"]


def test_an_img2dataset_output_is_read_and_its_unfinished_tar_is_not(tmp_path):
    for shard in ("00000", "00001", "00002"):
        write_tar(tmp_path / f"{shard}.tar", {
            f"{shard}0000.jpg": picture(gray(1), "JPEG", quality=95),
            f"{shard}0000.txt": b"a river",
            f"{shard}0000.json": json.dumps({"key": f"{shard}0000", "status": "success"}).encode(),
            f"{shard}0001.json": b'{"status": "failed_to_download"}',
        })  # fmt: skip
        if shard != "00002":
            write(tmp_path / f"{shard}_stats.json", '{"count": 2}')
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:3000])
    samples, rejected = take(tmp_path)
    [(name, sample)] = samples.items()
    assert (name, sample.caption) == ("00000.tar/000000000", "a river")
    assert sample.meta["origin"]["meta"]["status"] == "success"
    assert "cut short" in rejected["00001.tar"]
    assert "unfinished" in rejected["00002.tar"]


def sarlo(key: str, size: int = 48, city: str = "Paris") -> dict[str, bytes]:
    """Members of a SARLO-80 sample and of SARLAND beside it."""
    rng = np.random.default_rng(3)
    field = (rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))) / 2
    meta = {
        "city": city, "spacing_eff_rg": 0.8, "incidence_angles": [41.0, 42.0],
        "bbox_llh": [[2.3, 48.8], [2.4, 48.9]],
        "caption": {"SHORT": "a city", "MID": "a city. a river", "LONG": "a city. a river. roads"},
    }  # fmt: skip
    return {
        f"{key}.sar.png": picture(gray(7, (size, size))),
        f"{key}.sar.npy": encode_array(field.astype(np.complex64)),
        f"{key}.optic.png": picture(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)),
        f"{key}.landcover.npy": encode_array(np.ones((2, size, size), np.uint8)),
        f"{key}.meta.json": json.dumps(meta).encode(),
    }


def test_sarlo_shards_keep_their_layers_cut_alike_and_say_nothing_that_is_not_known(tmp_path):
    write_tar(tmp_path / "shard-000000.tar", sarlo("000000") | sarlo("000001"))
    samples, rejected = take(tmp_path, px=32, band="X")
    assert rejected == {}
    sample = samples["shard-000000.tar/000000"]
    assert sample.caption == "a city. a river. roads"
    assert (decode_gray8(sample.members["sar.png"]) == gray(7, (48, 48))[8:40, 8:40]).all()
    assert decode_rgb8(sample.members["optic.png"]).shape == (32, 32, 3)
    assert decode_array(sample.members["sar.npy"]).shape == (32, 32)
    assert decode_array(sample.members["landcover.npy"]).shape == (2, 32, 32)
    meta = sample.meta
    known = {name for name in UNKNOWN if meta[name] is not None}
    assert known == {"band", "calibration"}
    assert (meta["band"], meta["calibration"]) == ("X", "none")
    assert meta["origin"]["window"] == [8, 8, 32, 32]
    assert meta["origin"]["meta"]["city"] == "Paris"


def test_layers_that_do_not_fit_are_left_out_by_name(tmp_path):
    members = sarlo("a") | {"a.optic.png": picture(np.zeros((20, 20, 3), np.uint8))}
    write_tar(tmp_path / "x.tar", members | {"a.landcover.npy": b"torn"})
    [sample] = take(tmp_path)[0].values()
    assert "optic.png" not in sample.members
    assert sample.meta["origin"]["left_out"] == ["landcover.npy", "optic.png"]


def test_more_than_eight_bits_stay_in_the_master_and_the_picture_says_its_law(tmp_path):
    codes = (gray(1).astype(np.uint16) + 1) * 200
    write(tmp_path / "a.png", picture(codes))
    write_tar(tmp_path / "folder" / "b.tar", {"b.sar.npy": sarlo("b")["b.sar.npy"]})
    [deep] = take(tmp_path / "folder")[0].values()
    (tmp_path / "folder" / "b.tar").unlink()
    sample = take(tmp_path)[0]["a.png"]
    assert (decode_array(sample.members["sar16.npy"]) == codes).all()
    law, picture8 = sample.meta["normalisation"], decode_gray8(sample.members["sar.png"])
    assert law["top"] == pytest.approx(codes.mean() + 3 * codes.std(), rel=1e-5)
    assert np.abs(picture8 - np.minimum(codes / law["top"], 1) * 255).max() <= 0.51
    assert (sample.meta["master_scale"], sample.meta["calibration"]) == (1.0, "none")
    amplitude = decode_array(deep.members["sar16.npy"]) * deep.meta["master_scale"]
    field = decode_array(sarlo("b")["b.sar.npy"])
    assert np.abs(amplitude - np.abs(field)).max() <= deep.meta["master_scale"]


def test_pictures_that_are_no_radar_tile_go_with_a_reason(tmp_path, test_data):
    colour = test_data / "captions_rs" / "images_rsicd" / "00001.jpg"
    write(tmp_path / "optical.jpg", colour.read_bytes())
    write(tmp_path / "small.png", picture(gray(1, (16, 64))))
    write(tmp_path / "torn.png", picture(gray(1))[:90])
    write(tmp_path / "text.png", b"no picture at all")
    write(tmp_path / "rgb.jpg", picture(np.dstack([gray(2)] * 3), "JPEG", quality=80))
    samples, rejected = take(tmp_path, px=32)
    assert set(samples) == {"rgb.jpg"}
    assert rejected == {"colour": 1, "too_small": 1, "unreadable": 2}
    assert set(take(tmp_path, px=32, colour="luma")[0]) == {"rgb.jpg", "optical.jpg"}


def test_splits_follow_folders_and_groups_and_not_the_order_of_files(tmp_path):
    for number in range(60):
        for city in ("Paris", "Brest", "Lille"):
            members = sarlo(f"{city}{number}", 32, city)
            write_tar(tmp_path / "a" / f"{city}.{number:02d}.tar", members)
    cfg = ImportConfig(path=str(tmp_path), group="city", fractions=[0.4, 0.3, 0.3])
    splits = {}
    for inputs in plan_import(cfg).shards:
        splits.setdefault(inputs["source"].split("/")[1].split(".")[0], set()).add(inputs["split"])
    assert all(len(found) == 1 for found in splits.values())
    drawn = ImportConfig(path=str(tmp_path), fractions=[0.5, 0.25, 0.25])
    counts = {}
    for inputs in plan_import(drawn).shards:
        counts[inputs["split"]] = counts.get(inputs["split"], 0) + len(inputs["items"])
    assert 60 < counts["train"] < 120
    assert min(counts["val"], counts["test"]) > 20
    named = tmp_path / "b" / "validation" / "x.tar"
    write_tar(named, sarlo("x", 32))
    [shard] = plan_import(ImportConfig(path=str(tmp_path / "b"))).shards
    assert shard["split"] == "val"


def test_shards_are_of_bounded_size_and_the_plan_is_the_same_again(tmp_path):
    for number in range(7):
        write(tmp_path / f"{number}.png", picture(gray(number)))
    cfg = ImportConfig(path=str(tmp_path), fractions=[1.0, 0.0, 0.0], shard_samples=3)
    plan = plan_import(cfg)
    assert [len(shard["items"]) for shard in plan.shards] == [3, 3, 1]
    assert plan_import(cfg) == plan


def test_generated_images_stay_marked_and_carry_no_place(tmp_path):
    meta = {"schema": "sarhpc.sample/1", "synthetic": True, "crs": "EPSG:4326", "band": "X"}
    tar = {"a.sar.png": picture(gray()), "a.meta.json": json.dumps(meta).encode()}
    write_tar(tmp_path / "a.tar", tar)
    [sample] = take(tmp_path)[0].values()
    assert (sample.meta["synthetic"], sample.meta["crs"], sample.meta["band"]) == (True, None, "X")
    write(tmp_path / "more" / "b.png", picture(gray()))
    [declared] = take(tmp_path / "more", synthetic=True)[0].values()
    assert declared.meta["synthetic"] is True


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"path": "nowhere"}, DataError, "does not exist"),
        ({}, DataError, "holds no images"),
        ({"fractions": [0.5, 0.1, 0.1]}, ConfigError, "sum to 1"),
        ({"colour": "keep"}, ConfigError, "reject or luma"),
        ({"shard_samples": 0}, ConfigError, "100000"),
        ({"val_of_train": 1.0}, ConfigError, "less than 1"),
    ],
)
def test_what_cannot_be_imported_is_said_before_anything_is_made(tmp_path, settings, error, says):
    settings = {"path": str(tmp_path)} | settings
    with pytest.raises(error, match=says):
        plan_import(ImportConfig(**settings))


def test_a_tar_that_changed_since_it_was_planned_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", sarlo("a"))
    listing = list_foreign(tmp_path)
    write_tar(tmp_path / "a.tar", sarlo("b"))
    with pytest.raises(DataError, match="lost its sample a"):
        list(read_foreign(tmp_path, listing.items))


def test_plane_and_licence_are_declared_or_unknown(tmp_path):
    write(tmp_path / "0.png", picture(gray(0)))
    found = []
    for declared in ({"plane": "slant", "licence": "CC0-1.0"}, {}):
        cfg = ImportConfig(path=str(tmp_path), fractions=[1.0, 0.0, 0.0], **declared)
        [inputs] = plan_import(cfg).shards
        [sample] = import_shard(0, inputs, cfg).samples
        contract = contract_of_tiles([sample.meta])
        found.append((contract.plane, contract.licence))
    assert found == [("slant", ("CC0-1.0",)), (None, None)]
    with pytest.raises(ConfigError, match=r"imported\.plane='flat'"):
        plan_import(ImportConfig(path=str(tmp_path), plane="flat"))


CLASSES = {"T72": "a T72 tank", "D7": "a D7 bulldozer"}


def test_folders_name_classes_where_they_are_declared(tmp_path):
    """As public chips of vehicles come: `TRAIN/<class>[/<serial>]/`, also as keys of a tar."""
    chips = {"TRAIN/T72/SN_132/HB1": picture(gray(1)), "TRAIN/D7/HB2": picture(gray(2)),
             "TRAIN/SLICY/HB3": picture(gray(3))}  # fmt: skip
    for name, data in chips.items():
        write(tmp_path / "folder" / f"{name}.png", data)
    write(tmp_path / "folder" / "TRAIN/D7/HB2.txt", "a bulldozer on grass")
    write_tar(tmp_path / "tar" / "train.tar", {f"{name}.png": d for name, d in chips.items()})
    samples, rejected = take(tmp_path / "folder", classes=CLASSES)
    found = {name: (s.meta["class"], s.caption, s.meta["split"]) for name, s in samples.items()}
    assert found == {
        "TRAIN/T72/SN_132/HB1.png": ("T72", "a T72 tank", "train"),
        "TRAIN/D7/HB2.png": ("D7", "a bulldozer on grass", "train"),
    }
    assert rejected == {"no_class": 1}
    samples, rejected = take(tmp_path / "tar", classes=CLASSES)
    assert [s.meta["class"] for s in samples.values()] == ["T72", "D7"]
    assert rejected == {"no_class": 1}
    samples, _ = take(tmp_path / "tar")
    assert all("class" not in s.meta for s in samples.values())
    with pytest.raises(ConfigError, match="classes: give words for D7"):
        take(tmp_path / "tar", classes={**CLASSES, "D7": ""})
    with pytest.raises(DataError, match="folder named M1; they are in D7, SLICY, SN_132"):
        take(tmp_path / "tar", classes={"M1": "a tank"})


def test_folders_of_splits_are_known_in_any_case(tmp_path):
    for split in ("TRAIN", "Test"):
        write(tmp_path / split / "a.png", picture(gray()))
    samples, _ = take(tmp_path)
    assert {s.meta["split"] for s in samples.values()} == {"train", "test"}


def test_part_of_a_folder_named_train_may_be_held_out_where_nothing_else_is(tmp_path):
    """Sets that come as train and test have no tiles to choose settings with but test's."""
    for number in range(100):
        write(tmp_path / "TRAIN/T72" / f"{number}.png", picture(gray(number, (8, 8))))
        write(tmp_path / "TEST/T72" / f"{number}.png", picture(gray(number, (8, 8))))

    def counts(**settings):
        found = {}
        for inputs in plan_import(ImportConfig(path=str(tmp_path), **settings)).shards:
            assert all(
                ("TEST" in name) == (inputs["split"] == "test") for [name] in inputs["items"]
            )
            found[inputs["split"]] = found.get(inputs["split"], 0) + len(inputs["items"])
        return found

    assert counts() == {"train": 100, "test": 100}
    some = counts(val_of_train=0.2)
    assert some["test"] == 100
    assert some["train"] + some["val"] == 100
    assert 10 <= some["val"] <= 30


def test_folders_are_scenes_where_that_is_declared(tmp_path):
    """Without scenes there is no null, no look direction and no interval over scenes."""
    chips = {f"TRAIN/T72/SN_{n}/a.png": picture(gray(n)) for n in (1, 2)}
    write_tar(tmp_path / "train.tar", chips)
    samples, _ = take(tmp_path, scene_per_folder=True)
    assert {s.meta["scene_id"] for s in samples.values()} == {
        "train.tar/TRAIN/T72/SN_1", "train.tar/TRAIN/T72/SN_2",
    }  # fmt: skip
    assert {s.meta["scene_id"] for s in take(tmp_path)[0].values()} == {None}
