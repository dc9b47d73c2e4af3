"""A run on images others cut: converted, captioned by their own texts, resumed, looked at."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import webdataset
from line_runs import shard_digests
from PIL import Image

from hpc.config import fingerprint, loads, to_yaml
from hpc.errors import ConfigError, HpcError
from hpc.job.pipeline import Stage, ensure_plan, seal
from hpc.store.rundir import RunDir, create_run
from sarhpc.cli import main
from sarhpc.shards.reader import read_shard
from sarhpc.shards.samples import ShardedSamples
from sarhpc.stages.caption import make_caption_shard
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import sample_shards
from sarhpc.stages.registry import line_of_stages, stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_inputs
from sarhpc.stages.tile import make_tile_shard
from sarhpc.stages.work.sharded import MakeShard, make_and_record

CONFIG = """
imported: {path: FOLDER, fractions: [1.0, 0.0, 0.0], shard_samples: 4, px: 32}
caption: {captioner: given, template: {token: A SAR image of}}
"""
STAGES: Sequence[tuple[str, MakeShard]] = (
    ("tile", make_tile_shard),
    ("caption", make_caption_shard),
)


def gray(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).rayleigh(60, (40, 40)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures with texts; one is a copy of another, one has no text."""
    root = tmp_path / "theirs"
    root.mkdir()
    for number in range(10):
        Image.fromarray(gray(number % 9)).save(root / f"{number}.png")
        if number != 4:
            (root / f"{number}.txt").write_text(f"a field with {number + 2} trees")
    return root


def begin(root: Path, folder: Path, *words: str) -> RunDir:
    config = loads(RunConfig, CONFIG.replace("FOLDER", str(folder)), words)
    return create_run(root, to_yaml(config), fingerprint(config), words)


def named(run: RunDir, stage: str) -> Stage:
    return stage_named(load_run_config(run), stage)


def bring(run: RunDir, stage: str, make: MakeShard) -> None:
    """Whatever shards of a stage are missing, in this process, and the seal."""
    plan = ensure_plan(run, named(run, stage))
    for task in run.ledger(stage).missing(plan):
        make_and_record(make, str(run.root), stage, plan.id, 0, task)
    seal(run, named(run, stage), plan)


def test_texts_that_came_along_become_the_training_texts(folder: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", folder)
    require_inputs(run, load_run_config(run), ["tile", "caption"])
    assert [stage.name for stage in line_of_stages(load_run_config(run))][:2] == ["tile", "caption"]
    for stage, make in STAGES:
        bring(run, stage, make)
    records = run.ledger("caption").records().values()
    assert sum(record.rejected.get("no_caption", 0) for record in records) == 1
    samples = [s for r in records for s in read_shard(Path(r.path))]
    assert samples[0].caption == "A SAR image of a field with 2 trees"
    assert samples[0].meta["caption_model"] == "given"
    trained = ShardedSamples(sample_shards(run, ["train"]))
    pixels, text = trained.load(8)
    assert (pixels.shape, text) == ((32, 32, 3), "A SAR image of a field with 11 trees")
    # Plain webdataset reads what became of them.
    urls = [str(path) for path in sample_shards(run, ["train"])]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("l8"))
    assert [sample["txt"] for sample in read] == [sample.caption for sample in samples]
    assert main(["inspect", str(run.root), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "No anomalies" in page
    assert "no_caption 1" in page


def test_an_interrupted_import_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (begin(tmp_path / name, folder) for name in ("whole", "broken"))
    bring(whole, "tile", make_tile_shard)
    monkeypatch.setattr("hpc.publish._passages", {})
    monkeypatch.setenv("SARHPC_FAULT", "shard.mid_write:6:raise")
    with pytest.raises(HpcError, match="fault injected"):
        bring(broken, "tile", make_tile_shard)
    assert len(broken.ledger("tile").records()) == 1
    monkeypatch.delenv("SARHPC_FAULT")
    # What the folder gained meanwhile belongs to no plan.
    Image.fromarray(gray(50)).save(folder / "later.png")
    bring(broken, "tile", make_tile_shard)
    assert shard_digests(broken, "tile") == shard_digests(whole, "tile")


def test_copies_among_them_are_left_out_as_among_tiles(folder: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", folder, "tile.dedupe=true")
    for stage, make in STAGES:
        bring(run, stage, make)
    found = json.loads((run.stage("tile") / "duplicates.json").read_text())
    assert found["copies"] == 1
    rejected = [r.rejected for r in run.ledger("caption").records().values()]
    assert sum(counts.get("duplicate_of", 0) for counts in rejected) == 1


def test_two_sources_of_tiles_are_refused(folder: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", folder, "archive.uri=/somewhere")
    with pytest.raises(ConfigError, match="replaces an archive"):
        require_inputs(run, load_run_config(run))


def test_a_picture_that_was_taken_away_fails_its_shard_and_no_other(
    folder: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path / "run", folder)
    plan = ensure_plan(run, named(run, "tile"))
    (folder / "5.png").unlink()
    outcomes = []
    for task in plan.shards:
        try:
            made = make_and_record(make_tile_shard, str(run.root), "tile", plan.id, 0, task)
            outcomes.append(made.samples)
        except OSError as error:
            outcomes.append(str(error))
    assert [outcomes[0], outcomes[2]] == [4, 2]
    assert "5.png" in str(outcomes[1])


def test_pictures_are_found_by_any_case_of_their_names(tmp_path: Path) -> None:
    from sarhpc.tiling.config import ImportConfig
    from sarhpc.tiling.image_import import plan_import

    buffer = io.BytesIO()
    Image.fromarray(gray(1)).save(buffer, "JPEG")
    (tmp_path / "A.JPG").write_bytes(buffer.getvalue())
    assert plan_import(ImportConfig(path=str(tmp_path))).shards[0]["items"] == [["A.JPG"]]
