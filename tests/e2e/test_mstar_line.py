"""The shipped configuration `mstar` on a few of the public chips: from tars to a judged corpus."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from line_runs import start_stage

from hpc.config import fingerprint, loads, to_yaml
from hpc.job.pipeline import run_stage
from hpc.store.rundir import RunDir, create_run
from sarhpc.corpus.index import read_index
from sarhpc.shards.images import decode_gray8
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.config import RunConfig
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.templates import template

CLASSES = ("BMP2", "BTR70", "D7", "T72")
"""Four of ten: eight vehicles, as BMP2 and T72 are three each."""
TRAINED, TESTED = 16, 12
"""Chips of each vehicle."""
SHORT = (
    "imported.shard_samples=64", "imported.val_of_train=0.25",
    "train.global_batch=4", "train.micro_batch=4", "train.max_steps=2", "train.warmup_steps=1",
    "train.checkpoint_every_steps=null", "train.validation_every_steps=0",
    f"generate.table.grammar.classes=[{', '.join(CLASSES)}]", "generate.images=12",
    "generate.steps=2", "generate.batch=4", "generate.shard_samples=12",
    # After two steps no image is like these chips: the gate would leave none.
    "generate.gate=null",
    "evaluate.tiles=32", "evaluate.bootstrap=3", "evaluate.gallery=2", "evaluate.autoencoder_s=0",
    "evaluate.orientation_steps=30", "evaluate.use.shares=[1.0]", "evaluate.use.seeds=1",
    "evaluate.use.steps=40", "evaluate.use.size=32", "cluster.workers=1", "cluster.ranks=1",
)  # fmt: skip

pytestmark = pytest.mark.slow


def some_chips(source: Path, folder: Path) -> None:
    """Tars of the same layout with a few chips of each vehicle, evenly over its aspects."""
    for name, count in (("train", TRAINED), ("test", TESTED)):
        with (
            tarfile.open(source / f"{name}.tar") as tar,
            tarfile.open(folder / f"{name}.tar", "w") as few,
        ):
            vehicles: dict[PurePosixPath, list[tarfile.TarInfo]] = {}
            for member in tar.getmembers():
                path = PurePosixPath(member.name)
                if path.suffix == ".jpeg" and path.parts[1] in CLASSES:
                    vehicles.setdefault(path.parent, []).append(member)
            for chips in vehicles.values():
                for member in chips[:: len(chips) // count][:count]:
                    few.addfile(member, tar.extractfile(member))


@pytest.fixture(scope="module")
def run(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    source = test_data / "mstar_soc"
    if not source.is_dir():
        pytest.skip(f"no MSTAR chips at {source}")
    folder = tmp_path_factory.mktemp("mstar")
    chips = folder / "chips"
    chips.mkdir()
    some_chips(source, chips)
    words = [f"imported.path={chips}", *SHORT]
    config = loads(RunConfig, Path(template("mstar")).read_text(), words)
    made = create_run(folder / "run", to_yaml(config), fingerprint(config), words)
    for stage in line_of_stages(load_run_config(made)):
        if stage.collective:
            # DeepSpeed keeps the process groups it saw first: it gets a process of its own.
            assert start_stage(made, stage.name).wait() == 0
        else:
            run_stage(made, stage)
    return made


def samples(run: RunDir, stage: str) -> list[Sample]:
    records = run.ledger(stage).records().values()
    return [sample for record in records for sample in read_shard(Path(record.path))]


def judged(run: RunDir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.stage("evaluate") / "evaluation.json").read_text())
    return found


def test_chips_are_captioned_from_their_folders_and_split_by_depression(run: RunDir) -> None:
    chips = samples(run, "caption")
    assert len(chips) == 8 * (TRAINED + TESTED)
    of = Counter(
        (sample.meta["split"], sample.meta["origin"]["name"].split("/")[1]) for sample in chips
    )
    assert of["test", "TEST"] == 8 * TESTED
    assert of["train", "TRAIN"] + of["val", "TRAIN"] == 8 * TRAINED
    assert of["val", "TRAIN"] >= 16
    texts = {(sample.meta["class"], sample.caption) for sample in chips}
    assert texts == {
        ("BMP2", "A SAR image of a BMP2 fighting vehicle"),
        ("BTR70", "A SAR image of a BTR70 carrier"),
        ("D7", "A SAR image of a D7 bulldozer"),
        ("T72", "A SAR image of a T72 tank"),
    }
    assert len({sample.meta["scene_id"] for sample in chips}) == 16


def test_near_range_is_at_column_0_so_that_shadows_lie_to_the_right(run: RunDir) -> None:
    chips = samples(run, "caption")
    assert {sample.meta["range_direction"] for sample in chips} == {"+col"}
    mean = np.mean([decode_gray8(sample.members["sar.png"]) for sample in chips], 0)
    vehicle, shadow = mean[56:72, 52:66].mean(), mean[56:72, 76:90].mean()
    assert vehicle > 2 * shadow
    assert mean[56:72, 38:52].mean() > 1.2 * shadow, "clutter in front of it"


def test_the_corpus_is_even_over_classes_and_says_what_it_was_learned_from(run: RunDir) -> None:
    rows = list(read_index(run.root / "data/synthetic/index.parquet"))
    made = samples(run, "generate")
    assert Counter(sample.meta["labels"]["class"] for sample in made) == dict.fromkeys(CLASSES, 3)
    assert len(rows) == len(made)
    for meta in (sample.meta for sample in made):
        assert (meta["band"], meta["polarization"], meta["plane"]) == ("X", "HH", "slant")
        assert (meta["pixel_m"], meta["range_direction"], meta["synthetic"]) == (0.3, "+col", True)
    assert "| licence | CC-BY-NC-4.0 |" in (run.root / "data/synthetic/README.md").read_text()


def test_the_corpus_is_judged_by_look_direction_copies_and_use(run: RunDir) -> None:
    found = judged(run)
    assert any("Real tiles are from: test" in note for note in found["notes"])
    look = found["orientation"]
    assert look["range"]["value"] > 0.75, "after 30 steps networks see where the shadows lie"
    assert look["sets"]["this run"]["reason"]
    assert found["memory"]["calibration"]["tiles"] < 8 * TRAINED, "tiles of val are not trained on"
    use = found["use"]
    assert use["images"]["test"] == 8 * TESTED
    scores = {one["setting"]: one["value"] for one in use["scores"]}
    assert scores["real"] > 0.4 > use["chance"]
    assert scores["synthetic"]
    assert scores["mixed"]
