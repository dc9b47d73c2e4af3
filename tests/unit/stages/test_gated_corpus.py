"""A corpus behind a gate: planned limits, redraws, quarantine, and what is reported of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from gated_runs import gated_run, image_run, make_corpus, real_tiles
from image_sets_on_disk import real_set
from line_runs import KNOWN_PIXELS, make_tiny_model, shard_digests
from shard_checks import validate_shard

from hpc.errors import ConfigError, VerificationError
from hpc.job.pipeline import Work, ensure_plan, run_stage
from hpc.publish import publish_json
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.corpus.index import read_index
from sarhpc.generation.gate_errors import NothingAcceptedError
from sarhpc.shards.contract import CONTRACT_FILE
from sarhpc.shards.reader import read_shard
from sarhpc.stages.generate import make_corpus_shard, plan_corpus
from sarhpc.stages.inputs.gate_limits import rate_of
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.settings import require_settings

pytestmark = pytest.mark.slow

IMAGES, PER_SHARD = 80, 20
SIZE = (f"generate.images={IMAGES}", f"generate.shard_samples={PER_SHARD}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return real_tiles(tmp_path_factory.mktemp("tiles") / "run", model)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, model: Path, tiles: Path) -> RunDir:
    """A finished corpus; tests read it."""
    run = gated_run(tmp_path_factory.mktemp("corpus") / "run", model, tiles, *SIZE)
    make_corpus(run)
    return run


def test_a_corpus_meets_its_plan_by_redraws_and_its_index_matches_its_samples(
    corpus: RunDir,
) -> None:
    root = corpus.root / "data"
    records = corpus.ledger("generate").records()
    quarantined = sum(sum(record.rejected.values()) for record in records.values())
    draws = sum(int(record.detail["draws"]) for record in records.values())
    assert 1 <= quarantined <= 0.2 * draws, "about one in twenty"
    assert sum(record.samples for record in records.values()) == IMAGES
    samples = {s.key: s for r in records.values() for s in read_shard(Path(r.path))}
    redrawn = [s for s in samples.values() if s.meta["gate"]["draw"]]
    assert redrawn
    for row in read_index(root / "synthetic/index.parquet"):
        meta = samples[row["key"]].meta
        assert (row["seed"], row["verdict"], row["draw"]) == (
            meta["seed"], "accepted", meta["gate"]["draw"],
        )  # fmt: skip
        assert json.loads(row["verdict_values"]) == meta["gate"]["values"]
        assert row["near_duplicate_of"] is None or row["near_duplicate_of"] < row["key"]
    found = [s for p in sorted((root / "quarantine").glob("*.tar")) for s in read_shard(p)]
    assert len(found) == quarantined
    assert all(validate_shard(path) for path in (root / "quarantine").glob("*.tar"))
    for sample in found:
        gate = sample.meta["gate"]
        assert gate["verdict"] == "quarantined"
        assert gate["reasons"]
        assert gate["key"] in samples
        assert sample.meta["prompt"] == samples[gate["key"]].meta["prompt"]


def test_card_index_report_and_record_tell_what_the_gate_did(
    corpus: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = json.loads((corpus.root / "data/synthetic/gate.json").read_text())
    records = corpus.ledger("generate").records().values()
    assert reported["planned"] == reported["accepted"] + reported["unmet"] == IMAGES
    assert reported["quarantined"] == sum(sum(record.rejected.values()) for record in records)
    assert sum(reported["reasons"].values()) >= reported["quarantined"]
    assert reported["limits"]["tiles"] == 240
    line = f"{reported['quarantined']} of {reported['draws']} draws quarantined"
    assert line in (corpus.root / "data/synthetic/README.md").read_text()
    assert main(["costs", str(corpus.root)]) == 0
    assert line in capsys.readouterr().out


def test_verify_checks_the_quarantine_too(
    corpus: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    [path, *_] = sorted((corpus.root / "data/quarantine").glob("*.tar"))
    kept = path.read_bytes()
    assert main(["verify", str(corpus.root), "--deep"]) == 0
    path.write_bytes(kept[:-1] + b"x")
    assert main(["verify", str(corpus.root), "--deep"]) == 4
    assert f"{path} has the wrong content" in capsys.readouterr().out
    path.unlink()
    assert main(["verify", str(corpus.root)]) == 4
    assert f"{path} is missing" in capsys.readouterr().out
    path.write_bytes(kept)


@pytest.mark.slow
def test_status_has_the_reasons_while_shards_are_made(
    tmp_path: Path, model: Path, tiles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = gated_run(tmp_path / "run", model, tiles, *SIZE)
    make_corpus(run, [0, 1, 2])
    assert main(["status", str(run.root), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    [found] = [stage for stage in stages if stage["name"] == "generate"]
    assert found["rejected"] == sum(found["reasons"].values()) > 0
    assert main(["status", str(run.root)]) == 0
    assert "out: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_bytes_in_another_order_with_the_limits_of_the_plan(
    tmp_path: Path, corpus: RunDir, model: Path, tiles: Path
) -> None:
    run = gated_run(tmp_path / "run", model, tiles, *SIZE)
    ensure_plan(run, stage_named(load_run_config(run), "generate"))
    make_corpus(run, [3, 1, 0, 2])
    assert shard_digests(run, "generate") == shard_digests(corpus, "generate")
    for name in ("synthetic/index.parquet", "synthetic/gate.json", "quarantine/000001.tar"):
        ours, theirs = run.root / "data" / name, corpus.root / "data" / name
        assert ours.exists() == theirs.exists()
        assert not ours.exists() or ours.read_bytes() == theirs.read_bytes()
    assert plan_corpus(run).id == read_plan(run.plan_file("generate")).id
    [limits] = run.stage("generate").glob("gate-*.json")
    limits.write_text(limits.read_text().replace("0.08", "0.09"))
    task = read_plan(run.plan_file("generate")).shards[0]
    with pytest.raises(VerificationError, match="other limits than were planned"):
        make_corpus_shard(run, task)
    limits.unlink()
    with pytest.raises(VerificationError, match="restore it"):
        make_corpus_shard(run, task)


def test_without_a_gate_plan_and_shards_are_those_of_before(tmp_path: Path, model: Path) -> None:
    run = image_run(tmp_path / "run", model, "generate.prompts=[a lake]", "generate.images=4")
    make_corpus(run)
    assert "gate_sha256" not in read_plan(run.plan_file("generate")).shards[0].inputs
    record = run.ledger("generate").records()["000000"]
    assert not record.detail
    assert all("gate" not in s.meta for s in read_shard(Path(record.path)))
    assert not (run.root / "data/quarantine").exists()
    assert not (run.root / "data/synthetic/gate.json").exists()


@pytest.mark.slow
def test_a_gate_that_rejects_everything_ends_the_stage_with_exit_4_and_leaves_the_images(
    tmp_path: Path, model: Path
) -> None:
    radar = real_set(tmp_path / "radar", tiles=200)
    size = ("generate.images=200", "generate.shard_samples=40")
    run = gated_run(tmp_path / "run", model, radar, *size)
    stage = stage_named(load_run_config(run), "generate")
    plan = ensure_plan(run, stage)
    work = Work(run, plan, run.ledger("generate"), 0, element=0)
    with pytest.raises(NothingAcceptedError) as raised:
        stage.work(work)
    assert raised.value.exit_code == 4
    reported = str(raised.value)
    assert "none of 64 images" in reported
    assert "200 real tiles" in reported
    quarantine = run.root / "data/quarantine/000000.tar"
    inspect, again = re.findall(r"`sarhpc (.*?)`", reported)
    assert main([*shlex.split(inspect), "--out", str(tmp_path / "page.html")]) == 0
    words = shlex.split(again.replace("NEW", str(tmp_path / "new")))
    assert main([*words, "--dry-run"]) == 0, "the advice can be followed"
    assert str(quarantine) in inspect
    assert len(list(read_shard(quarantine))) == 64
    assert len(run.ledger("generate").failures()) == 1, "it stops at the first shard"
    assert run.ledger("generate").records() == {}
    with pytest.raises(NothingAcceptedError):
        run_stage(run, stage)


def refused(run: RunDir) -> str:
    with pytest.raises(ConfigError) as raised:
        plan_corpus(run)
    assert not run.plan_file("generate").exists()
    return str(raised.value)


def test_limits_that_cannot_be_had_are_told_when_the_corpus_is_planned(
    tmp_path: Path, model: Path, tiles: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    reported = refused(gated_run(tmp_path / "a", model, empty))
    assert "no shards below" in reported
    assert "generate.gate=null" in reported
    gate = "generate.gate={}"
    reported = refused(image_run(tmp_path / "b", model, "generate.prompts=[a lake]", gate))
    assert "none of 2 real tiles can be measured" in reported, "they have 32 px"
    gate = "generate.gate={splits: [test]}"
    reported = refused(image_run(tmp_path / "f", model, "generate.prompts=[a lake]", gate))
    assert "the run has no tiles of test" in reported, "and those of another split are not taken"
    few = real_tiles(tmp_path / "c", model, 16)
    reported = refused(gated_run(tmp_path / "d", model, few))
    assert "16 real tiles" in reported
    assert "17 allow 50%" in reported
    known = tmp_path / "known"
    shutil.copytree(model, known)
    publish_json(known / CONTRACT_FILE, {**KNOWN_PIXELS, "pixel_m": [0.5, 0.5]})
    reported = refused(gated_run(tmp_path / "e", known, _coarser(tmp_path / "tiles", tiles)))
    assert "pixel_m: 0.5 against 2" in reported


def _coarser(folder: Path, tiles: Path) -> Path:
    from sarhpc.shards.sample import encode_json
    from sarhpc.shards.writer import write_shard

    samples = (
        sample.with_members(meta__json=encode_json({**sample.meta, "pixel_m": 2.0}))
        for path in sorted(tiles.glob("*.tar"))
        for sample in read_shard(path)
    )
    write_shard(folder / "000000.tar", samples)
    return folder


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ({"tile.tile_px": "32"}, "at least 64 px, and tile.tile_px is 32"),
        ({"generate.height_px": "32"}, "32 px"),
        ({"generate.gate.shards": "/nowhere"}, "/nowhere is no folder"),
        ({"generate.gate.splits": "[vall]"}, r"\['vall'\]: give some of train, val, test"),
        ({"generate.gate.splits": "[val]", "generate.gate.shards": "/"}, "give one of them"),
        ({"generate.gate.false_rejects": "0"}, "false_rejects"),
        ({"generate.gate.false_rejects": "1.0"}, "less than 1"),
        ({"generate.gate.redraws": "-1"}, "redraws"),
        ({"generate.gate.redraws": "99999"}, "redraws is 99999"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_submitted(
    words: dict[str, Any], reported: str
) -> None:
    from line_runs import TINY

    from hpc.config import loads
    from sarhpc.stages.config import RunConfig

    settings = {"generate.gate.redraws": "1", "tile.tile_px": "64", **words}
    config = loads(RunConfig, TINY, [f"{key}={value}" for key, value in settings.items()])
    with pytest.raises(ConfigError, match=reported):
        require_settings(config, ["generate"], lambda _: 1)


def test_too_few_tiles_take_the_least_rate_that_they_allow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert rate_of(0.01, 899) == 0.01
    assert rate_of(0.01, 212) == pytest.approx(9 / 213)
    assert "needs 899 real tiles, there are 212" in caplog.text
    with pytest.raises(ConfigError, match="16 real tiles"):
        rate_of(0.01, 16)
