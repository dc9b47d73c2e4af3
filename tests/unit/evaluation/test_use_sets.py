"""Which images E12 learns from: their labels, and sides that share no scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sets_on_disk import shard_of, speckle_codes
from PIL import Image

from sarhpc.evaluation.image_sets import ImageSet, list_images
from sarhpc.evaluation.use.config import SEGMENTATION, UseConfig
from sarhpc.evaluation.use.data import UseInputs, UsePlan, plan_use, read_use
from sarhpc.evaluation.use.settings import fits_of, shares_left_out
from sarhpc.evaluation.use.split import UnusableSetsError
from sarhpc.shards.images import encode_array
from sarhpc.shards.reader import read_shard
from sarhpc.shards.writer import write_shard

CONFIG = UseConfig(task="classification", shares=[0.5, 1.0], seeds=1)


def folders(root: Path, *names: str, images: int = 8, px: int = 32) -> ImageSet:
    """Images below folders of these names."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        for number, codes in enumerate(speckle_codes(len(name), images, px=px)):
            Image.fromarray(codes).save(folder / f"{number}.png")
    return list_images(root)


def tiles(root: Path, images: int = 32, **meta: Any) -> ImageSet:
    """A shard of tiles of eight scenes and the classes a and b in turn."""
    shard_of(
        root / "000000.tar",
        list(speckle_codes(3, images, px=32)),
        lambda n: {"scene_id": f"s{n // 2 % 8}", "class": "ab"[n % 2]} | meta,
    )
    return list_images(root)


def plan(real: ImageSet, synthetic: ImageSet, config: UseConfig = CONFIG) -> UsePlan:
    inputs = UseInputs(real, synthetic, config, ["val", "test"], lambda _: None, {})
    return plan_use(inputs)


def test_folders_name_splits_and_classes(tmp_path: Path) -> None:
    real = folders(tmp_path / "real", "train/a", "train/b/serial", "Test/a", "Test/b")
    found = plan(real, folders(tmp_path / "made", "a", "b", "c"))
    assert found.split.classes == ("a", "b")
    assert [len(found.split.train), len(found.split.test), len(found.split.synthetic)] == [16] * 3
    assert found.split.notes == ("Classes that not every part has are left out: c.",)
    data = read_use(found)
    assert data.images["train"].shape == (16, 32, 32)
    assert data.targets["train"].tolist() == [0] * 8 + [1] * 8
    # Where range lies is not known, so that no image is flipped.
    assert not data.flips
    assert not data.grouped


def test_images_of_several_sizes_are_cut_to_the_smallest_and_large_ones_averaged(
    tmp_path: Path,
) -> None:
    real = folders(tmp_path / "real", "train/a", "train/b", "test/a", px=40)
    folders(tmp_path / "real", "test/b", px=36)
    config = UseConfig(task="classification", size=18)
    data = read_use(plan(list_images(real_root(real)), folders(tmp_path / "s", "a", "b"), config))
    assert data.images["train"].shape == (16, 16, 16)
    codes = np.asarray(Image.open(tmp_path / "s" / "a" / "0.png"), np.float64) / 255
    mean = np.square(codes).reshape(16, 2, 16, 2).mean((1, 3))
    found = data.images["synthetic"][0].astype(np.float64)
    assert found == pytest.approx(10 * np.log10(np.maximum(mean, 1e-6)), abs=0.05)


def real_root(images: ImageSet) -> Path:
    return Path(images.name)


def test_tiles_without_a_split_are_parted_by_scene(tmp_path: Path) -> None:
    found = plan(tiles(tmp_path / "real"), tiles(tmp_path / "made"))
    sides = [{one.group for one in side} for side in (found.split.train, found.split.test)]
    assert sides[0] | sides[1] == {f"s{n}" for n in range(8)}
    assert not sides[0] & sides[1]
    assert (len(sides[1]), found.split.grouped) == (2, True)


def test_training_tiles_of_scenes_that_are_tested_are_left_out(tmp_path: Path) -> None:
    shard_of(
        tmp_path / "real" / "000000.tar",
        list(speckle_codes(3, 40, px=32)),
        lambda n: {
            "scene_id": f"s{n // 8}", "class": "ab"[n % 2],
            "split": "train" if n < 20 else "val",
        },
    )  # fmt: skip
    found = plan(list_images(tmp_path / "real"), tiles(tmp_path / "made"))
    assert {one.group for one in found.split.train} == {"s0", "s1"}
    assert "4 real training images are of scenes that have test images too" in found.split.notes[0]


def test_words_of_captions_are_classes(tmp_path: Path) -> None:
    captions = ["A forest by the road", "a LAKE", "forest and lake", "reforested land"]
    shard_of(
        tmp_path / "made" / "000000.tar",
        list(speckle_codes(3, 32, px=32)),
        lambda n: {"prompt": captions[n % 4], "synthetic": True},
    )
    config = UseConfig(task="classification", classes=["forest", "lake"])
    real = folders(tmp_path / "real", *(f"{s}/{c}" for s in ("train", "test") for c in CLASSES))
    found = plan(real, list_images(tmp_path / "made"), config)
    assert [one.label for one in found.split.synthetic] == ["forest", "lake"] * 8
    assert "16 of 32 images" in found.split.notes[0]


CLASSES = ("forest", "lake")


@pytest.mark.parametrize(
    ("real", "made", "message"),
    [
        (("train/a", "train/b", "test/a", "test/b"), ("c", "d"), "0 classes in common"),
        (("train/a", "test/a"), ("a", "b"), "1 classes in common"),
        (("a", "b"), ("a", "b"), "names neither train and test images nor 4 scenes"),
        (("train/a", "train/b", "test/a", "test/b"), (".",), "no image of .*made names its class"),
    ],
)
def test_sets_without_use_are_refused_with_what_to_do(
    tmp_path: Path, real: tuple[str, ...], made: tuple[str, ...], message: str
) -> None:
    if made == (".",):
        (tmp_path / "made").mkdir()
        Image.fromarray(speckle_codes(1, 1, px=32)[0]).save(tmp_path / "made" / "0.png")
        other = list_images(tmp_path / "made")
    else:
        other = folders(tmp_path / "made", *made)
    with pytest.raises(UnusableSetsError, match=message):
        plan(folders(tmp_path / "real", *real), other)


def test_every_scene_on_both_sides_is_refused(tmp_path: Path) -> None:
    shard_of(
        tmp_path / "real" / "000000.tar",
        list(speckle_codes(3, 32, px=32)),
        lambda n: {"scene_id": "s", "class": "ab"[n % 2], "split": ("train", "val")[n // 16]},
    )
    with pytest.raises(UnusableSetsError, match="split by scene or flight line"):
        plan(list_images(tmp_path / "real"), tiles(tmp_path / "made"))


def test_shares_with_fewer_labels_than_classes_are_left_out_and_all_of_them_refused(
    tmp_path: Path,
) -> None:
    found = plan(tiles(tmp_path / "real"), tiles(tmp_path / "made")).split
    config = UseConfig(task="classification", shares=[0.01, 1.0], seeds=2)
    assert shares_left_out(config, found) == {
        0.01: "0.01 of 24 real labels is 0, fewer than the 2 classes"
    }
    # Alone and mixed at one share, synthetic alone, and two controls.
    assert len(fits_of(config, found)) == 10
    with pytest.raises(UnusableSetsError, match="label more real images"):
        fits_of(UseConfig(task="classification", shares=[0.01]), found)


def test_land_cover_is_read_with_its_image(tmp_path: Path) -> None:
    for name in ("real", "made"):
        tiles(tmp_path / name, range_direction="+col")
        path = tmp_path / name / "000000.tar"
        plane = np.zeros((2, 32, 32), np.uint8)
        plane[0, :, 10:] = 3
        plane[0, :, 20:] = 7
        plane[1, 4:] = 1
        samples = [s.with_members(landcover__npy=encode_array(plane)) for s in read_shard(path)]
        write_shard(path, samples)
    config = UseConfig(task=SEGMENTATION)
    sets = [list_images(tmp_path / name) for name in ("real", "made")]
    inputs = UseInputs(sets[0], sets[1], config, ["val"], lambda _: None, {3: "bare"})
    data = read_use(plan_use(inputs))
    assert (data.classes, data.flips, data.per_pixel) == (("bare", "code 7"), True, True)
    wanted = np.full((32, 32), 255)
    wanted[4:, 10:20], wanted[4:, 20:] = 0, 1
    assert (data.targets["train"] == wanted).all()
    with pytest.raises(UnusableSetsError, match=r"has its land cover \(landcover.npy\)"):
        plan_use(UseInputs(sets[0], tiles(tmp_path / "bare"), config, ["val"], lambda _: None, {}))


def test_images_with_faults_are_named_and_left_out(tmp_path: Path) -> None:
    real = folders(tmp_path / "real", "train/a", "train/b", "test/a", "test/b")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "real" / "train/a/3.png")
    data = read_use(plan(real, folders(tmp_path / "made", "a", "b")))
    assert len(data.images["train"]) == len(data.targets["train"]) == 15
    assert "1 images cannot be learned from and are left out: 3 (every pixel is 9)." in data.notes
