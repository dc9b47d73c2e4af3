from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from caption_tiles import draw_ground, make_sample
from PIL import Image

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import (
    open_set,
    read_jsonl,
    read_karpathy,
    read_shard_images,
)
from sarhpc.shards.writer import write_shard


def rsicd_layout(folder: Path, per_image: list[list[str]], splits: list[str]) -> Path:
    """A `dataset_rsicd.json` with one image file per entry."""
    images = []
    for number, (captions, split) in enumerate(zip(per_image, splits, strict=True)):
        Image.fromarray(draw_ground((50, 90, 130), number)).save(folder / f"{number:05d}.jpg")
        sentences = [{"raw": text, "tokens": text.split()} for text in captions]
        images.append({"filename": f"{number:05d}.jpg", "split": split, "sentences": sentences})
    path = folder / "dataset_rsicd.json"
    path.write_text(json.dumps({"images": images, "dataset": "rsicd"}))
    return path


def test_the_published_ucm_file_gives_raw_captions_and_its_images(test_data: Path) -> None:
    folder = test_data / "captions_rs"
    found = read_karpathy(
        folder / "ucm" / "UCM_captions_dataset.json.gz",
        folder / "images_ucm",
        "train",
        skip_missing=True,
    )
    assert [image.name for image in found] == [f"{number}.tif" for number in range(1, 10)]
    first = found[0]
    assert first.captions[0] == "There is a piece of farmland ."
    assert not any("formland" in text for image in found for text in image.captions)
    assert first.read().shape == (256, 256, 3)
    assert first.read().dtype == np.uint8


def test_images_that_are_not_there_are_counted_before_training(test_data: Path) -> None:
    folder = test_data / "captions_rs"
    with pytest.raises(DataError, match="1671 of 1680 images"):
        read_karpathy(
            folder / "ucm" / "UCM_captions_dataset.json.gz", folder / "images_ucm", "train"
        )


def test_the_published_rsicd_lines_are_read_with_images_by_their_bare_name(
    test_data: Path, tmp_path: Path
) -> None:
    source = test_data / "captions_rs" / "textaug_test_rsicd.jsonl.gz"
    Image.fromarray(draw_ground((9, 9, 9), 0)).save(tmp_path / "airport_349.jpg")
    (image,) = read_jsonl(source, tmp_path, skip_missing=True)
    assert image.name == "rsicd_images/airport_349.jpg"
    assert len(image.captions) == 5
    assert image.captions[0] == "green grass on both sides of the runway."
    assert image.read().shape == (40, 40, 3)
    with pytest.raises(DataError, match="1092 of 1093"):
        read_jsonl(source, tmp_path)


def test_the_rsicd_layout_takes_one_split_and_restval_belongs_to_train(tmp_path: Path) -> None:
    path = rsicd_layout(tmp_path, [["a"], ["b"], ["c"], ["d"]], ["train", "val", "restval", "test"])
    names = {
        split: [image.captions[0] for image in read_karpathy(path, tmp_path, split)]
        for split in ("train", "val", "test")
    }
    assert names == {"train": ["a", "c"], "val": ["b"], "test": ["d"]}


def test_repeated_captions_are_kept_for_scores_and_dropped_for_training(tmp_path: Path) -> None:
    padded = ["A road .", "a road.", "many trees", "a road .", "many  trees"]
    (image,) = read_karpathy(rsicd_layout(tmp_path, [padded], ["train"]), tmp_path, "train")
    assert len(image.captions) == 5
    assert image.distinct == ("A road .", "many trees")


def test_shards_give_optical_tiles_with_the_true_or_the_written_caption(tmp_path: Path) -> None:
    optical = draw_ground((1, 2, 3), 0)
    samples = [
        make_sample(0, "a lake", optical),
        make_sample(1, "a lake without image", None),
        make_sample(2, None, optical),
    ]
    write_shard(tmp_path / "train" / "000000.tar", samples)
    (image,) = read_shard_images(tmp_path, "train")
    assert (image.name, image.captions) == (samples[0].key, ("a lake",))
    assert np.array_equal(image.read(), optical)
    assert list(read_shard_images(tmp_path, "train", "raw")) == []


def test_broken_files_are_named(tmp_path: Path) -> None:
    lines = tmp_path / "captions.jsonl.gz"
    lines.write_bytes(gzip.compress(b'{"filename": "a.jpg"}\n'))
    with pytest.raises(DataError, match="line 1"):
        read_jsonl(lines, tmp_path)
    lines.write_bytes(lines.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot read captions"):
        read_jsonl(lines, tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="Karpathy"):
        read_karpathy(tmp_path / "a.json", tmp_path, "train")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    (tmp_path / "b.jsonl").write_text('{"filename": "b.jpg", "captions": ["a"]}')
    (image,) = read_jsonl(tmp_path / "b.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"b\.jpg"):
        image.read()


def test_a_set_that_says_too_little_is_a_configuration_error(tmp_path: Path) -> None:
    for cfg in (
        CaptionSetConfig("coco", str(tmp_path)),
        CaptionSetConfig("jsonl", str(tmp_path / "a.jsonl")),
        CaptionSetConfig(path=str(tmp_path), source="guess"),
    ):
        with pytest.raises(ConfigError):
            open_set(cfg)


@pytest.mark.parametrize(
    "listed", ["../private.png", "{folder}/private.png", "a/../../private.png"]
)
def test_a_list_of_captions_names_no_image_outside_its_folder(tmp_path: Path, listed: str) -> None:
    """Published lists hold paths of their authors: the name alone is looked for then."""
    Image.new("L", (8, 8), 7).save(tmp_path / "private.png")
    images = tmp_path / "images"
    images.mkdir()
    lines = tmp_path / "captions.jsonl"
    lines.write_text(json.dumps({"filename": listed.format(folder=tmp_path), "captions": ["a"]}))
    with pytest.raises(DataError, match="not in"):
        read_jsonl(lines, images)
    Image.new("L", (8, 8), 9).save(images / "private.png")
    (image,) = read_jsonl(lines, images)
    assert image.read().max() == 9
