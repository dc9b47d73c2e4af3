from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from caption_layouts import karpathy, nwpu, real_rsicd, save
from caption_tiles import GROUNDS, draw_ground
from caption_training import fine_tune
from PIL import Image

from hpc.config import decisive, fingerprint, load
from hpc.errors import ConfigError, DataError
from hpc.store.rundir import RunDir
from sarhpc.captioning.config import CaptionSetConfig, CaptionTrainConfig
from sarhpc.captioning.meteor import meteor, missing_meteor
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.captioning.tuning.finetune import REPORT, TABLE
from sarhpc.captioning.tuning.mixture import MixedOrder, concatenate, join_sets, mixed_order
from sarhpc.shards.loader import SampleOrder
from sarhpc.stages.config import RunConfig
from sarhpc.stages.settings import require_inputs, require_settings

WATER, FOREST, FIELD, TOWN = GROUNDS


def ground(caption: str, seed: int) -> np.ndarray:
    return draw_ground(GROUNDS[caption], seed)


def sydney(folder: Path) -> Path:
    """Sydney-captions: `dataset.json` and `imgs/1.tif`."""
    entries = [
        ("1.tif", "train", [WATER, f"{WATER} ."]),
        ("2.tif", "val", [TOWN]),
        ("3.tif", "test", [TOWN, FOREST]),
    ]
    pixels = {"imgs/1.tif": ground(WATER, 1), "imgs/2.tif": ground(TOWN, 2)}
    pixels["imgs/3.tif"] = ground(TOWN, 3)
    return save(folder, karpathy(entries, "sydney"), "dataset.json", pixels)


def nwpu_captions(folder: Path) -> Path:
    """NWPU-Captions: `dataset_nwpu.json` and `NWPU_images/forest/forest_001.jpg`."""
    entries = {
        "forest": [("forest_001.jpg", "train", [FOREST] * 4 + [" "])],
        "lake": [
            ("lake_001.jpg", "val", [WATER] * 5),
            ("lake_002.jpg", "train", [WATER, "a lake", "blue water", "a pond", "a quiet lake"]),
        ],
    }
    pixels = {
        f"NWPU_images/{name.split('_')[0]}/{name}": ground(FOREST, seed)
        for seed, name in enumerate(("forest_001.jpg", "lake_001.jpg", "lake_002.jpg"))
    }
    return save(folder, nwpu(entries), "dataset_nwpu.json", pixels)


def rsitmd(folder: Path, image: Path) -> Path:
    """RSITMD, train and test only, with an image of RSICD stored as TIFF in its test split."""
    pixels = {"images/boat_1.tif": ground(WATER, 7)}
    pixels["images/center_2.tif"] = np.asarray(Image.open(image).convert("RGB"))
    entries = [("boat_1.tif", "train", [WATER] * 5), ("center_2.tif", "test", ["a field"] * 5)]
    return save(folder, karpathy(entries, "rsitmd"), "dataset_RSITMD.json", pixels)


def test_sydney_nwpu_and_rsitmd_are_read_from_their_published_folders(
    test_data: Path, tmp_path: Path
) -> None:
    jpg = test_data / "captions_rs" / "images_rsicd" / "00001.jpg"
    folders = {
        "sydney": sydney(tmp_path / "Sydney_captions"),
        "nwpu": nwpu_captions(tmp_path / "NWPU-Captions"),
        "rsitmd": rsitmd(tmp_path / "RSITMD", jpg),
    }
    names = {
        (kind, split): [
            image.name for image in open_set(CaptionSetConfig(kind, str(folder), split=split))
        ]
        for kind, folder in folders.items()
        for split in ("train", "test" if kind != "nwpu" else "val")
    }
    assert names == {
        ("sydney", "train"): ["1.tif"],
        ("sydney", "test"): ["3.tif"],
        ("nwpu", "train"): ["forest/forest_001.jpg", "lake/lake_002.jpg"],
        ("nwpu", "val"): ["lake/lake_001.jpg"],
        ("rsitmd", "train"): ["boat_1.tif"],
        ("rsitmd", "test"): ["center_2.tif"],
    }
    forest, lake = open_set(CaptionSetConfig("nwpu", str(folders["nwpu"])))
    assert forest.captions == (FOREST,) * 4
    assert forest.distinct == (FOREST,)
    assert lake.captions == (WATER, "a lake", "blue water", "a pond", "a quiet lake")
    assert lake.read().shape == (40, 40, 3)


def test_a_split_that_a_set_does_not_have_is_named_with_those_it_has(
    test_data: Path, tmp_path: Path
) -> None:
    jpg = test_data / "captions_rs" / "images_rsicd" / "00001.jpg"
    folder = rsitmd(tmp_path / "RSITMD", jpg)
    with pytest.raises(DataError, match="'val', but of: test, train"):
        open_set(CaptionSetConfig("rsitmd", str(folder), split="val"))
    with pytest.raises(DataError, match="dataset_nwpu"):
        open_set(CaptionSetConfig("nwpu", str(folder)))
    (folder / "images").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="set `images`"):
        open_set(CaptionSetConfig("rsitmd", str(folder)))
    moved = CaptionSetConfig("rsitmd", str(folder), images=str(folder / "elsewhere"))
    assert len(open_set(moved)) == 1
    (folder / "dataset_nwpu.json").write_text('{"forest": [{"filename": "a.jpg"}]}')
    with pytest.raises(DataError, match="NWPU-Captions"):
        open_set(CaptionSetConfig("nwpu", str(folder), images=str(folder / "elsewhere")))


def test_images_that_another_dataset_holds_out_are_not_learnt_from(
    test_data: Path, tmp_path: Path
) -> None:
    rsicd = real_rsicd(test_data, tmp_path / "RSICD")
    other = rsitmd(tmp_path / "RSITMD", rsicd / "RSICD_images" / "00001.jpg")
    ucm = test_data / "captions_rs" / "ucm" / "UCM_captions_dataset.json.gz"
    images = str(test_data / "captions_rs" / "images_ucm")
    train = [
        CaptionSetConfig("rsicd", str(rsicd)),
        CaptionSetConfig("ucm", str(ucm), images=images, skip_missing=True),
    ]
    held_out = [CaptionSetConfig("rsitmd", str(other), split="test")]
    learnt, held = join_sets(train, held_out)
    counts = [one.counts for one in learnt]
    assert [(c.name, c.images, c.held_out, c.repeated) for c in counts] == [
        ("rsicd", 10, 1, 0),
        ("ucm", 9, 0, 0),
    ]
    assert "00001.jpg" not in {image.name for image in learnt[0].images}
    assert counts[1].captions == sum(len(image.distinct) for image in learnt[1].images)
    assert held[0].counts.images == 1
    assert len(concatenate(learnt)) == 19


def test_an_image_in_two_training_sets_counts_once_with_the_captions_of_both(
    test_data: Path, tmp_path: Path
) -> None:
    rsicd = real_rsicd(test_data, tmp_path / "RSICD")
    other = rsitmd(tmp_path / "RSITMD", rsicd / "RSICD_images" / "00001.jpg")
    train = [
        CaptionSetConfig("rsicd", str(rsicd)),
        CaptionSetConfig("rsitmd", str(other), split="test"),
        CaptionSetConfig("rsitmd", str(other), split="train"),
    ]
    learnt, _ = join_sets(train, [])
    assert [one.counts.images for one in learnt] == [11, 0, 1]
    assert [one.counts.repeated for one in learnt] == [0, 1, 0]
    first = learnt[0].images[0]
    alone = open_set(train[0])[0]
    assert first.captions == (*alone.captions, *["a field"] * 5)
    assert first.distinct == (*alone.distinct, "a field")
    assert mixed_order(learnt, 0).n == 12


def test_an_image_held_out_twice_keeps_the_references_of_the_first_set(
    test_data: Path, tmp_path: Path
) -> None:
    rsicd = real_rsicd(test_data, tmp_path / "RSICD", frozenset({"00001.jpg", "00002.jpg"}))
    other = rsitmd(tmp_path / "RSITMD", rsicd / "RSICD_images" / "00001.jpg")
    val = [
        CaptionSetConfig("rsicd", str(rsicd), split="test"),
        CaptionSetConfig("rsitmd", str(other), split="test"),
    ]
    _, held = join_sets([], val)
    assert [(one.counts.images, one.counts.repeated) for one in held] == [(2, 0), (0, 1)]
    assert held[0].images[0].captions == open_set(val[0])[0].captions


def test_what_one_dataset_repeats_stays_as_it_is_published(tmp_path: Path) -> None:
    pixels = {f"imgs/{number}.tif": ground(WATER, 1) for number in (1, 2, 3)}
    entries = [(f"{number}.tif", split, [WATER]) for number, split in ((1, "train"), (2, "train"))]
    folder = save(
        tmp_path, karpathy([*entries, ("3.tif", "test", [WATER])], "x"), "dataset.json", pixels
    )
    learnt, held = join_sets(
        [CaptionSetConfig("sydney", str(folder))],
        [CaptionSetConfig("sydney", str(folder), split="test")],
    )
    assert (learnt[0].counts.images, held[0].counts.images) == (2, 1)


def test_weights_of_one_give_the_order_of_one_set() -> None:
    order = MixedOrder(7, 12, (5, 7), (5, 7))
    for epoch in range(3):
        assert np.array_equal(order.epoch(epoch), SampleOrder(7, 12).epoch(epoch))


def test_a_weight_says_how_often_an_epoch_shows_a_set_and_leaves_no_image_out() -> None:
    order = MixedOrder(0, 17, (4, 10), (12, 5))
    for epoch in range(4):
        shown = order.epoch(epoch)
        assert len(shown) == 17
        assert np.array_equal(np.bincount(shown[shown < 4]), [3, 3, 3, 3])
        assert len(set(shown[shown >= 4])) == 5
    both = np.concatenate([order.epoch(0), order.epoch(1)])
    assert set(both) == set(range(14))


def test_a_weight_must_be_above_zero_and_defaults_change_no_fingerprint() -> None:
    for weight in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="weight"):
            join_sets([CaptionSetConfig(path="x", weight=weight)], [])
    plain = CaptionTrainConfig(train=[CaptionSetConfig(path="x")])
    weighted = CaptionTrainConfig(train=[CaptionSetConfig(path="x", weight=2.0)])
    assert fingerprint(plain) != fingerprint(weighted)
    told = decisive(plain)
    assert told["train"][0].keys().isdisjoint({"weight", "name"})
    assert "meteor" not in told


def test_settings_of_sets_that_cannot_be_right_are_told_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    for wrong in ("{kind: nwpuu, path: /a}", "{path: /a, weight: 0}", "{kind: jsonl, path: /a}"):
        words = ["simulate.scenes=1", f"caption_train.train=[{wrong}]"]
        with pytest.raises(ConfigError, match="of /a"):
            require_settings(load(RunConfig, None, words), ["caption-train"])
    folder = tmp_path / "nwpu"
    folder.mkdir()
    sets = f"caption_train.train=[{{kind: nwpu, path: {folder}, weight: 2}}]"
    right = ["simulate.scenes=1", "train.base_model=embedded:base", sets]
    embedded = ["caption_train.base_model=null", "caption.captioner=truth"]
    config = load(RunConfig, None, [*right, *embedded])
    require_settings(config, ["caption-train", "caption"])
    require_inputs(RunDir(tmp_path), config)


@pytest.mark.slow
def test_training_on_several_sets_tells_counts_and_scores_of_each(
    ground_training: CaptionTrainConfig, test_data: Path, tmp_path: Path
) -> None:
    rsicd = real_rsicd(test_data, tmp_path / "RSICD", frozenset({"00002.jpg", "00009.jpg"}))
    folder = sydney(tmp_path / "Sydney_captions")
    lakes = nwpu_captions(tmp_path / "NWPU-Captions")
    cfg = replace(
        ground_training,
        train=[
            CaptionSetConfig("rsicd", str(rsicd), weight=2.0),
            CaptionSetConfig("sydney", str(folder)),
            CaptionSetConfig("nwpu", str(lakes), weight=0.5),
        ],
        val=[
            CaptionSetConfig("rsicd", str(rsicd), split="test"),
            CaptionSetConfig("sydney", str(folder), split="test"),
        ],
        steps=4,
        val_every=4,
        save_dtype="float32",
    )
    for name in ("one", "two"):
        fine_tune(cfg, tmp_path / name / "blip", tmp_path / name)
    weights = [
        (tmp_path / name / "blip" / "model.safetensors").read_bytes() for name in ("one", "two")
    ]
    assert weights[0] == weights[1]

    rows = [
        json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    ]
    start, *_ = rows
    assert [(one["name"], one["weight"], one["images"]) for one in start["train_sets"]] == [
        ("rsicd", 2.0, 9),
        ("sydney", 1.0, 1),
        ("nwpu", 0.5, 2),
    ]
    parts = [(row["event"], row["set"]) for row in rows if "set" in row]
    assert parts == [
        (event, name)
        for event in ("before_set", "after_set")
        for name in ("all sets", "rsicd test", "sydney test")
    ]
    report = json.loads((tmp_path / "one" / "blip" / REPORT).read_text())
    assert report["after"] == report["after_sets"]["all sets"]
    assert str(tmp_path) not in json.dumps(report)
    table = (tmp_path / "one" / TABLE).read_text()
    for line in ("| rsicd test | 2 | before |", "| sydney test | 1 | after |", "| all sets | 3 |"):
        assert line in table
    assert (
        "BLIP-RSICD+UCM (the paper) | 0.8029 | 0.6941 | 0.6061 | 0.5336 | 2.7239 | 0.4208" in table
    )
    assert "METEOR was not measured: caption_train.meteor is not set." in table


@pytest.mark.slow
def test_meteor_gives_the_published_scores(test_data: Path) -> None:
    if (missing := missing_meteor()) is not None:
        pytest.skip(missing)
    folder = test_data / "caption_metrics" / "nlgeval"
    said, *references = (
        (folder / f"{name}.txt").read_text().splitlines() for name in ("hyp", "ref1", "ref2")
    )
    expected = json.loads((folder / "expected_scores.json").read_text())
    score = meteor(said, list(zip(*references, strict=True)))
    assert score == pytest.approx(expected["rerun_full_precision"]["METEOR"], abs=1e-9)
    # Of the single captions the second keeps its full stops there; the COCO toolkit removes them.
    one = expected["individual"][0]
    alone = meteor([one["hyp"]], [one["refs"]])
    assert alone == pytest.approx(one["METEOR"], abs=1e-5)


def test_what_meteor_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_meteor() == "no Java on this machine"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_java_that_does_not_work_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if (missing := missing_meteor()) is not None:
        pytest.skip(missing)
    with pytest.raises(DataError, match="METEOR ended early"):
        meteor(["a lake"], [["a lake"]])
