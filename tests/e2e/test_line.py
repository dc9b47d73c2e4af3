"""The whole pipeline from the command line, on real components of tiny size."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from line_runs import KNOWN_PIXELS, make_tiny_model, seal_export, shard_digests, tiny_run
from other_user import contents

from hpc.job.pipeline import run_stage
from hpc.publish import publish_json
from hpc.store.rundir import RunDir
from sarhpc.shards.contract import CONTRACT_FILE, read_contract, sigma0_db
from sarhpc.shards.images import decode_array
from sarhpc.shards.radiometry import amplitude_of_db
from sarhpc.shards.reader import read_shard
from sarhpc.shards.schema import validate_sample
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

JUDGED = [
    "train.judge.splits=[val]",
    "train.validation_every_steps=2",
    "train.validation_prompts=[a lake, a town]",
    "train.validation_seeds=[0, 1]",
]

DB = ["tile.normalisation=db", "tile.db_scope=archive"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def sarhpc(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sarhpc.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=560)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunDir:
    """A run brought to its end by `sarhpc run --wait`, one job per stage, two training ranks."""
    run = tiny_run(
        tmp_path_factory.mktemp("line") / "run",
        model,
        [f"compare.models={{tiny: {model}}}", "compare.images=4", *JUDGED, *DB],
    )
    done = sarhpc("run", run.root, "--wait", "--executor", "local")
    assert done.returncode == 0, done.stderr[-6000:]
    return run


@pytest.mark.slow
def test_the_line_ends_with_report_corpus_and_a_model_that_loads(finished: RunDir) -> None:
    status = json.loads(sarhpc("status", finished.root, "--json").stdout)
    assert {stage["state"] for stage in status["stages"]} == {"COMPLETE"}
    report = json.loads((finished.root / "report.json").read_text())
    assert set(report["evaluation"]["sets"]) == {"real", "this run", "tiny", "autoencoder"}
    evaluated = json.loads((finished.root / "evaluate" / "evaluation.json").read_text())
    assert evaluated["splits"].keys() == {"val"}
    assert [gate["name"] for gate in evaluated["gates"]] == [g["name"] for g in report["gates"]]
    tables = sorted((finished.root / "evaluate" / "tables").glob("*.parquet"))
    assert len(tables) == len(finished.ledger("evaluate").records()) - 1
    assert [line["name"] for line in report["stages"]][:3] == ["simulate", "tile", "caption"]
    assert "data:image/png" in (finished.root / "report.html").read_text()
    split = json.loads((finished.root / "tile" / "split.json").read_text())
    assert split["proof"]["contested_cells"] == 0
    assert sum(split["proof"]["cells"].values()) > 0
    shards = sorted((finished.root / "data" / "synthetic").glob("*.tar"))
    samples = [sample for shard in shards for sample in read_shard(shard)]
    assert len(samples) == 24
    for sample in samples:
        assert sample.meta["synthetic"] is True
        assert not {"crs", "affine", "footprint"} & sample.meta.keys()
        assert sample.meta["prompt"].startswith("A SAR image of")


@pytest.mark.slow
def test_what_a_pixel_means_goes_from_the_tiles_to_the_corpus_and_the_report(
    finished: RunDir,
) -> None:
    window = json.loads((finished.root / "tile" / "db_window.json").read_text())
    assert 0 < window["power_clipped"] < 1e-3
    [export] = finished.ledger("export").records().values()
    contract = read_contract(Path(export.path))
    assert contract is not None
    assert contract.is_calibrated
    law = contract.law
    assert law is not None
    assert law.top == amplitude_of_db(window["top_db"])
    assert (contract.pixel_m, contract.plane) == ((0.35, 0.35), "ground")
    assert (contract.token, contract.tiles) == ("A SAR image of", tiles_of(finished, "train"))
    corpus = finished.root / "data" / "synthetic"
    assert read_contract(corpus) == contract
    for sample in (s for shard in sorted(corpus.glob("*.tar")) for s in read_shard(shard)):
        validate_sample(sample)
        meta = sample.meta
        assert (meta["pixel_m"], meta["range_direction"], meta["band"]) == (0.35, "+col", "X")
        assert meta["contract_sha"] == contract.sha256
        level = sigma0_db(decode_array(sample.members["sar16.npy"]), contract)
        assert level.min() >= window["low_db"] - 1e-4
        assert level.max() <= window["top_db"] + 1e-4
    for shard in (finished.root / "data" / "compare" / "tiny").glob("*.tar"):
        for sample in read_shard(shard):
            assert sample.meta["pixel_m"] is None, "that model has no contract"
            assert "sar16.npy" not in sample.members
    page = (Path(__file__).resolve().parents[2] / "docs/guide/pixels.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(example.replace('"RUN/', f'"{finished.root}/'), names := {})
    assert names["level_db"].shape == (32, 32)
    report = json.loads((finished.root / "report.json").read_text())
    assert report["facts"]["normalisation"].startswith("db, low ")
    assert not [note for note in report["notes"] if "mean something else" in note]
    for card in (Path(export.path) / "README.md", corpus / "README.md"):
        assert "## What a pixel means" in card.read_text()
        assert "| pixel | 0.35 m |" in card.read_text()


def tiles_of(run: RunDir, split: str) -> int:
    records = run.ledger("caption").records().values()
    return sum(record.samples for record in records if record.detail["split"] == split)


@pytest.mark.slow
def test_the_checkpoint_whose_grid_is_nearest_to_real_tiles_is_exported(finished: RunDir) -> None:
    index = json.loads((finished.root / "train" / "validation" / "index.json").read_text())
    assert [row["step"] for row in index["judged"]] == [0, 2, 4]
    best = min((row for row in index["judged"] if row["step"]), key=lambda row: row["score"])
    assert best["score"] > 0, "noise of an untrained model is not as good as real"
    assert {"E1_enl", "E3_jsd", "E4_acf", "E5_lsd"} < best.keys()
    [record] = finished.ledger("train").records().values()
    assert Path(record.path).name == f"step_{best['step']:08d}"
    card = (finished.root / "export" / "model" / "README.md").read_text()
    assert f"| steps | {best['step']} |" in card
    assert "| chosen as | of 2 checkpoints the one" in card
    report = (finished.root / "report.html").read_text()
    assert f"score {best['score']:.2f}, exported" in report


@pytest.mark.slow
def test_a_corpus_that_was_evaluated_is_packaged_with_its_scores(finished: RunDir) -> None:
    card = finished.root / "data" / "synthetic" / "README.md"
    assert "was not compared with real tiles yet" in card.read_text()
    assert sarhpc("package", finished.root).returncode == 0
    measures = json.loads((finished.stage("evaluate") / "evaluation.json").read_text())["sets"]
    for name, found in measures["this run"]["measures"].items():
        assert f"| {name} | {found['raw']:.4g} |" in card.read_text()


@pytest.mark.slow
def test_a_finished_run_has_nothing_to_do_and_verifies(finished: RunDir) -> None:
    again = sarhpc("resume", finished.root)
    assert (again.returncode, again.stdout) == (0, "nothing to do: every stage is sealed\n")
    verified = sarhpc("verify", finished.root, "--deep")
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.endswith(" 0 wrong\n")


@pytest.mark.slow
def test_a_run_that_is_only_read_is_evaluated_into_another_folder(
    finished: RunDir, tmp_path: Path
) -> None:
    before = contents(finished.root)
    done = sarhpc("evaluate", finished.root, "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"page: {tmp_path / 'judged' / 'report.html'}\n"
    there, here = tmp_path / "judged" / "evaluation.json", finished.stage("evaluate")
    assert there.read_bytes() == (here / "evaluation.json").read_bytes()
    inside = sarhpc("evaluate", finished.root, "--out", finished.root / "judged")
    assert inside.returncode == 2
    assert "which is only read" in inside.stderr
    assert contents(finished.root) == before


@pytest.mark.slow
def test_a_flipped_bit_is_found(finished: RunDir) -> None:
    shard = min((finished.root / "data" / "samples").rglob("*.tar"))
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-700] + bytes([whole[-700] ^ 1]) + whole[-699:])
        assert sarhpc("verify", finished.root).returncode == 0
        deep = sarhpc("verify", finished.root, "--deep")
        assert deep.returncode == 4
        assert "SHA-256 differs" in deep.stdout
        shard.write_bytes(whole[:-10])
        assert sarhpc("verify", finished.root).returncode == 4
    finally:
        shard.write_bytes(whole)


@pytest.mark.slow
def test_other_values_on_a_frozen_run_are_refused(finished: RunDir) -> None:
    done = sarhpc("run", finished.root, "train.lr_unet=1")
    assert done.returncode == 2
    assert "frozen" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tile", "generate"])
def test_one_and_two_workers_make_the_same_bytes(tmp_path: Path, model: Path, stage: str) -> None:
    digests = []
    for workers in (1, 2):
        words = [
            f"cluster.workers={workers}",
            "generate.prompts=[a lake,a field]",
            "generate.images=8",
        ]
        run = tiny_run(tmp_path / str(workers), model, words)
        if stage == "tile":
            run_stage(run, stage_named(load_run_config(run), "simulate"))
        else:
            known = shutil.copytree(model, tmp_path / f"known{workers}")
            publish_json(known / CONTRACT_FILE, KNOWN_PIXELS)
            seal_export(run, known)
        run_stage(run, stage_named(load_run_config(run), stage))
        digests.append(shard_digests(run, stage))
    assert digests[0] == digests[1]
    assert len(digests[0]) >= 4


def test_a_stage_without_its_upstream_names_the_next_command(tmp_path: Path, model: Path) -> None:
    run = tiny_run(tmp_path / "run", model)
    done = sarhpc("caption", run.root)
    assert done.returncode == 5
    assert f"sarhpc tile {run.root}" in done.stderr


def test_stop_is_sticky_until_resume(tmp_path: Path, model: Path) -> None:
    run = tiny_run(tmp_path / "run", model)
    assert sarhpc("stop", run.root).returncode == 0
    stopped = sarhpc("simulate", run.root, "--executor", "debug")
    assert stopped.returncode == 2
    assert "sarhpc resume" in stopped.stderr
    assert not run.ledger("simulate").sealed
    assert "sarhpc resume" in sarhpc("status", run.root).stdout


def test_unknown_keys_and_missing_files_exit_2(tmp_path: Path) -> None:
    done = sarhpc("init", tmp_path / "run", "--config", "configs/demo.yaml", "tile.tile_pixels=9")
    assert done.returncode == 2
    assert "tile.tile_px" in done.stderr
    assert not (tmp_path / "run").exists()
    assert sarhpc("status", tmp_path / "none").returncode == 2


def test_shipped_configurations_are_valid() -> None:
    from hpc.config import load
    from sarhpc.archive.procedural.config import ProceduralConfig
    from sarhpc.diffusion.config import AutoencoderConfig, BundleConfig
    from sarhpc.stages.config import RunConfig

    folder = Path(__file__).resolve().parents[2] / "configs"
    pool, autoencoder = folder / "embedded" / "pool.yaml", folder / "embedded" / "vae.yaml"
    load(ProceduralConfig, pool)
    load(AutoencoderConfig, autoencoder)
    bundles = [folder / "embedded" / "bundle.yaml", *sorted((folder / "bundles").glob("*.yaml"))]
    for path in bundles:
        load(BundleConfig, path)
    runs = {*folder.rglob("*.yaml")} - {*bundles, pool, autoencoder}
    assert len(runs) >= 6
    for path in sorted(runs):
        load(RunConfig, path)
