"""A corpus of a prompt table: planned once, the same bits in any shards, compared with the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from line_runs import TINY, make_tiny_model, seal_captions, seal_export, tiny_run
from PIL import Image
from shard_checks import validate_shard
from small_disk import small_disk

from hpc.errors import VerificationError
from hpc.job.pipeline import ensure_plan, seal
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.cli import main
from sarhpc.generation.prompts.images import IMAGES_FILE
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.compare import plan_comparison
from sarhpc.stages.generate import make_corpus_shard, plan_corpus
from sarhpc.stages.planned_corpus import coverage_so_far
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.sharded import make_and_record

TABLE = """\
prompt,count,seed,negative_prompt,class,incidence
a lake,3,,,water,20
a wood,2,,blur,forest,30
"a town, seen from far",1,11,,town,20
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def table_run(folder: Path, model: Path, *words: str) -> RunDir:
    folder.mkdir(exist_ok=True)
    table = folder / "prompts.csv"
    table.write_text(TABLE)
    given = [f"generate.table.file={table}", "generate.images=null", *words]
    run = tiny_run(folder / "run", model, given)
    seal_captions(run)
    seal_export(run, model)
    return run


def made(run: RunDir, shards: Sequence[int] | None = None) -> list[Sample]:
    """Generate the planned shards, in the order given, and seal the stage if that is all."""
    stage = stage_named(load_run_config(run), "generate")
    plan = ensure_plan(run, stage)
    order = range(len(plan.shards))[::-1] if shards is None else shards
    for number in order:
        make_and_record(
            make_corpus_shard, str(run.root), "generate", plan.id, 0, plan.shards[number]
        )
    if shards is None:
        seal(run, stage, plan)
    records = run.ledger("generate").records().values()
    assert all(validate_shard(Path(record.path)) for record in records)
    return [sample for record in records for sample in read_shard(Path(record.path))]


def contents(samples: Sequence[Sample]) -> set[tuple[str, int, bytes]]:
    return {(s.meta["prompt"], s.meta["seed"], s.members["sar.png"]) for s in samples}


@pytest.mark.slow
def test_images_carry_their_rows_and_are_the_same_in_other_shards(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = table_run(tmp_path / "a", model)
    samples = made(run)
    rows = sorted((s.meta["prompt"], s.meta["negative_prompt"], s.meta["seed"]) for s in samples)
    assert [row[:2] for row in rows] == [
        *[("A SAR image of a lake", "")] * 3,
        ("A SAR image of a town, seen from far", ""),
        *[("A SAR image of a wood", "blur")] * 2,
    ]
    assert rows[3][2] == 11, "the seed of the table"
    by_class = {s.meta["labels"]["class"]: s.meta["labels"]["incidence"] for s in samples}
    assert by_class == {"water": "20", "forest": "30", "town": "20"}
    others = made(table_run(tmp_path / "b", model, "generate.shard_samples=4"))
    assert len(contents(samples)) == 6
    assert contents(samples) == contents(others), "bits depend on neither shards nor neighbours"
    coverage = json.loads((run.root / "data/synthetic/coverage.json").read_text())
    assert (coverage["planned"], coverage["achieved"], coverage["prompts"]) == (6, 6, 3)
    assert coverage["most_of_a_prompt"] == 3
    assert coverage["fields"]["class"]["water"] == {"planned": 3, "achieved": 3}
    assert main(["costs", str(run.root)]) == 0
    shown = capsys.readouterr().out
    assert "6 of 6 planned images, 3 prompts, at most 3 of one" in shown
    assert "class: forest 2, town 1, water 3" in shown


@pytest.mark.slow
def test_what_is_made_so_far_is_compared_with_the_plan(tmp_path: Path, model: Path) -> None:
    run = table_run(tmp_path / "a", model)
    first = made(run, [0])
    found = coverage_so_far(run, load_run_config(run))
    assert found is not None
    assert (found.planned, found.achieved) == (6, 2)
    classes = [sample.meta["labels"]["class"] for sample in first]
    for name, (planned, achieved) in found.fields["class"].items():
        assert planned == {"water": 3, "forest": 2, "town": 1}[name]
        assert achieved == classes.count(name)


def test_a_plan_is_small_final_and_the_same_again(tmp_path: Path, model: Path) -> None:
    run = table_run(tmp_path / "a", model)
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    assert [(t.inputs["first"], t.inputs["count"]) for t in plan.shards] == [(0, 2), (2, 2), (4, 2)]
    assert "prompts" not in plan.shards[0].inputs
    assert plan_corpus(run).id == plan.id
    assert read_plan(run.plan_file("generate")).id == plan.id


def test_other_images_than_were_planned_are_refused(tmp_path: Path, model: Path) -> None:
    run = table_run(tmp_path / "a", model)
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    file = run.stage("generate") / IMAGES_FILE
    other = table_run(tmp_path / "b", model, "generate.seed=5")
    ensure_plan(other, stage_named(load_run_config(other), "generate"))
    file.write_bytes((other.stage("generate") / IMAGES_FILE).read_bytes())
    with pytest.raises(VerificationError, match="not those of the plan"):
        make_corpus_shard(run, plan.shards[0])
    file.write_bytes(b"PAR1")
    with pytest.raises(VerificationError, match="cannot be read"):
        make_corpus_shard(run, plan.shards[0])
    with pytest.raises(VerificationError, match="cannot be read"):
        coverage_so_far(run, load_run_config(run))
    file.unlink()
    with pytest.raises(VerificationError, match="cannot be read"):
        make_corpus_shard(run, plan.shards[0])


def test_other_models_are_asked_for_the_first_images(tmp_path: Path, model: Path) -> None:
    run = table_run(
        tmp_path / "a", model, f"compare.models={{base: '{model}'}}", "compare.images=3"
    )
    plan = ensure_plan(run, stage_named(load_run_config(run), "generate"))
    compared = plan_comparison(run).shards
    assert [(t.inputs["first"], t.inputs["count"]) for t in compared] == [(0, 2), (2, 1)]
    assert compared[0].inputs["images_sha256"] == plan.shards[0].inputs["images_sha256"]


def dry_run(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    folder.mkdir(exist_ok=True)
    config = folder / "tiny.yaml"
    config.write_text(TINY)
    line = ["run", str(folder / "run"), "--config", str(config), "--dry-run", *words]
    code = main([*line, "--from", "generate", "--until", "generate", "generate.images=96"])
    shown = capsys.readouterr()
    assert not (folder / "run").exists(), "looking changes nothing"
    return code, shown.out, shown.err


def test_a_dry_run_counts_bytes_of_imported_images_by_their_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "images"
    source.mkdir()
    Image.fromarray(np.zeros((128, 128), np.uint8)).save(source / "a.png")
    imported = (f"imported.path={source}", "tile.tile_px=512", "imported.px=")
    _, small, _ = dry_run(tmp_path, capsys, GRAMMAR, *imported[:2], f"{imported[2]}128")
    assert "an image: about 51.6 kB" in small
    code, _, error = dry_run(
        tmp_path, capsys, GRAMMAR, *imported[:2], f"{imported[2]}32", "generate.gate={}"
    )
    assert code == 2
    assert "generate.gate measures tiles of at least 64 px, and imported.px is 32" in error


GRAMMAR = "generate.table={coverage: balanced, grammar: {classes: [water, forest, field, town]}}"


def test_a_dry_run_shows_the_table_and_what_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, _ = dry_run(tmp_path, capsys, GRAMMAR)
    assert code == 0
    assert "class: water 24, forest 24, field 24, town 24" in shown
    assert "96 images of " in shown
    assert "in 116 inodes" in shown
    gate = f"generate.gate={{shards: {tmp_path}}}"
    _, shown, _ = dry_run(tmp_path, capsys, GRAMMAR, gate)
    assert "in 164 inodes" in shown, "each of 48 shards may have one of quarantined images"


def test_a_disk_that_is_too_small_is_told_before_it_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size, reported in (
        ("size=64k", "6.55e-05 GB may be written"),
        ("nr_inodes=50", "may be created"),
    ):
        with small_disk(tmp_path / size, size) as disk:
            code, _, error = dry_run(tmp_path / "run", capsys, GRAMMAR, f"data={disk}/corpus")
            assert code == 2
            assert f"no room in {disk}" in error
            assert reported in error
            # What lies on another disk needs no room here.
            words = [f"data={disk}/corpus", "--from", "export", "--until", "export"]
            config = tmp_path / "run" / "tiny.yaml"
            line = ["run", str(tmp_path / "other"), "--config", str(config), "--dry-run", *words]
            assert main(line) == 0


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (
            ["cluster.quota_gb=0.0001"],
            "0.0001 GB may be written (by ",
        ),
        (["cluster.quota_inodes=100"], "116 files, 100 may be created"),
    ],
)
def test_a_dry_run_refuses_what_the_quota_cannot_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reported: str
) -> None:
    code, shown, error = dry_run(tmp_path, capsys, GRAMMAR, *words)
    assert code == 2
    assert "class: water 24" in shown, "it shows what does not fit"
    assert reported in error


def test_a_wrong_table_is_told_before_anything_is_submitted(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = table_run(tmp_path / "a", model)
    (tmp_path / "a" / "prompts.csv").write_text("prompt,count\na lake,-1\n")
    assert main(["generate", str(run.root), "--executor", "debug"]) == 2
    error = capsys.readouterr().err
    assert "prompts.csv line 2: count is '-1'" in error
    assert not run.plan_file("generate").exists()
    assert not (run.root / "submissions").exists()


def test_a_run_without_room_is_refused_before_anything_is_submitted(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = table_run(tmp_path / "a", model, "cluster.quota_inodes=3")
    assert main(["generate", str(run.root), "--executor", "debug"]) == 2
    assert "no room in " in capsys.readouterr().err
    assert not run.plan_file("generate").exists()
