"""A gate that looks for images of another class: planned, applied, reported."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from class_gates import CLASSES, by_clip, gated, samples_of
from forked import start
from gated_runs import make_corpus, real_tiles
from line_runs import kill_group, make_tiny_model, shard_digests
from procedural_tiles import procedural_shard

from hpc.job.pipeline import ensure_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.corpus.index import read_index
from sarhpc.stages.generate import make_corpus_shard
from sarhpc.stages.inputs.class_gate import loaded_clip
from sarhpc.stages.inputs.clip_models import clip_digest
from sarhpc.stages.inputs.paths import model_folder
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.sharded import make_and_record


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """What the other limits are from."""
    return real_tiles(tmp_path_factory.mktemp("tiles") / "run", model, 120)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a shard of radar tiles whose captions are true."""
    root = tmp_path_factory.mktemp("captioned")
    procedural_shard(root / "000000.tar", 987, scenes=6, stride_px=64)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path) -> RunDir:
    """A corpus whose gate does not look at classes."""
    run = gated(tmp_path_factory.mktemp("plain") / "run", model, tiles, "null")
    make_corpus(run)
    return run


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path, captioned: Path
) -> RunDir:
    """A finished corpus of a model of random weights, whose images are no water; tests read it."""
    run = gated(tmp_path_factory.mktemp("corpus") / "run", model, tiles, by_clip(captioned))
    make_corpus(run)
    return run


@pytest.mark.slow
def test_images_of_another_class_are_quarantined_and_drawn_again(
    corpus: RunDir, plain: RunDir
) -> None:
    found = [
        sample.meta["gate"]
        for sample in samples_of(corpus.root / "data/quarantine").values()
        if sample.meta["gate"]["reasons"][0]["name"] == "other class"
    ]
    assert found
    for gate in found:
        of = gate["other_class"]
        assert (
            f"shows {of['nearest_other']} rather than {of['class']}" in gate["reasons"][0]["text"]
        )
        assert gate["values"]["class_margin"] < 0
    again = {gate["key"] for gate in found if gate["draw"] == 0}
    before = samples_of(plain.root / "data/synthetic")
    after = samples_of(corpus.root / "data/synthetic")
    drawn = [key for key in again if key in after]
    assert all(after[key].meta["seed"] != before[key].meta["seed"] for key in drawn)
    kept = [key for key, sample in after.items() if sample.meta["gate"]["draw"] == 0]
    assert len(kept) >= 8
    for key in kept:
        assert after[key].members["sar.png"] == before[key].members["sar.png"]


@pytest.mark.slow
def test_record_index_and_card_tell_what_became_of_classes(corpus: RunDir) -> None:
    records = corpus.ledger("generate").records().values()
    refused = sum(record.rejected.get("other_class", 0) for record in records)
    reported = json.loads((corpus.root / "data/synthetic/gate.json").read_text())
    assert reported["reasons"]["other class"] == refused > 0
    of = reported["other_class"]
    assert set(of["classes"]) == set(CLASSES)
    assert len(of["model_sha256"]) == 64
    assert refused < of["judged"] <= reported["draws"]
    assert of["balanced_accuracy"]["low"] > 0.25
    card = (corpus.root / "data/synthetic/README.md").read_text()
    assert f"other class {refused}" in card
    assert f"{of['judged']} draws held against the class of their prompt" in card
    [row, *_] = list(read_index(corpus.root / "data/synthetic/index.parquet"))
    assert "class_margin" in json.loads(row["verdict_values"])


@pytest.mark.slow
def test_without_the_setting_nothing_is_said_of_classes(plain: RunDir) -> None:
    sample = next(iter(samples_of(plain.root / "data/synthetic").values()))
    assert not {"other_class", "class_margin"} & {
        *sample.meta["gate"],
        *sample.meta["gate"]["values"],
    }
    reported = json.loads((plain.root / "data/synthetic/gate.json").read_text())
    assert "other_class" not in reported
    [limits] = plain.stage("generate").glob("gate-*.json")
    assert "other_class" not in json.loads(limits.read_text())


@pytest.mark.slow
def test_the_same_bytes_after_a_kill_and_in_another_order(
    tmp_path: Path,
    corpus: RunDir,
    model: Path,
    tiles: Path,
    captioned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = gated(tmp_path / "run", model, tiles, by_clip(captioned))
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    making = (make_corpus_shard, str(run.root), "generate", plan.id, 0, plan.shards[1])
    killed = start(make_and_record, *making, log=tmp_path / "killed.log")
    shard = run.root / "data/synthetic"
    deadline = time.monotonic() + 60
    while not any(shard.glob("*")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert killed.poll() is None, "it is making the shard"
    kill_group(killed)
    assert not run.ledger("generate").records(), "it was killed inside the shard"
    make_corpus(run, [1])
    assert main(["status", str(run.root), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    [shown] = [stage for stage in stages if stage["name"] == "generate"]
    assert shown["reasons"]["other_class"] > 0
    make_corpus(run, [0])
    assert shard_digests(run, "generate") == shard_digests(corpus, "generate")
    for name in ("synthetic/gate.json", "quarantine/000000.tar", "quarantine/000001.tar"):
        assert (run.root / "data" / name).read_bytes() == (corpus.root / "data" / name).read_bytes()


@pytest.mark.slow
def test_images_are_read_by_one_thread_beside_a_sampler_that_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    clip = Path(model_folder("embedded:clip"))
    seer = loaded_clip(clip, clip_digest(clip))
    tiles = np.random.default_rng(0).integers(0, 256, (12, 64, 64), np.uint8)
    alone = [seer.see(tile, None) for tile in tiles]
    before, inside = torch.get_num_threads(), []
    forward = seer._scorer._clip.model.get_image_features

    def counted(*args: Any) -> Any:
        inside.append(torch.get_num_threads())
        return forward(*args)

    monkeypatch.setattr(seer._scorer._clip.model, "get_image_features", counted)
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(seer.see, tile, None) for tile in tiles]
            while not all(future.done() for future in futures):
                assert torch.get_num_threads() == 2
            beside = [future.result() for future in futures]
    finally:
        torch.set_num_threads(before)
    assert inside == [1] * len(tiles)
    np.testing.assert_array_equal(beside, alone)
