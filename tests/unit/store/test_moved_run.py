"""A run directory that was moved is whole, and a copy is judged by its own files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from line_runs import seal_captions, tiny_run

from hpc.errors import ConfigError
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now, open_run
from sarhpc.cli import main
from sarhpc.stages.encode import plan_encoding
from sarhpc.stages.inputs.prompts import sample_shards

OLD_RUN = Path(__file__).parents[2] / "golden" / "run_0_1"


def old_run(place: Path) -> Path:
    """A run of version 0.1, which knows its artefacts by absolute paths only."""
    for tree in ("common", "training", "generation"):
        shutil.copytree(OLD_RUN / tree, place, dirs_exist_ok=True)
    for path in sorted(place.rglob("*.stored")):
        path.rename(path.with_suffix(""))
    records = [*place.glob("run/*/manifest.jsonl"), *place.glob("run/*/records/*/*.json")]
    for path in records:
        path.write_text(path.read_text().replace("/stored-run", str(place)))
    return place / "run"


def new_run(place: Path) -> Path:
    run = tiny_run(place / "run", place / "base")
    seal_captions(run)
    return run.root


@pytest.fixture(params=["old", "new"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / "made"
    place.mkdir()
    return {"old": old_run, "new": new_run}[request.param](place)


def verify(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", str(root), "--deep"])
    return code, capsys.readouterr().out


def a_shard(root: Path) -> Path:
    return sorted(root.rglob("data/samples/train/*.tar"))[0]


def test_a_moved_run_verifies_and_reads_its_own_shards(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = verify(made, capsys)
    assert before[0] == 0, before[1]
    (tmp_path / "elsewhere").mkdir()
    moved = made.rename(tmp_path / "elsewhere" / "renamed")
    assert verify(moved, capsys) == before
    assert sample_shards(open_run(moved), ["train"]) == [a_shard(moved)]


@pytest.mark.parametrize("harm", ["bytes", "missing", "all of them missing"])
def test_damage_in_a_copy_is_found_beside_a_sound_original(
    harm: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    shard = a_shard(copy)
    if harm == "bytes":
        content = bytearray(shard.read_bytes())
        content[600] ^= 1
        shard.write_bytes(content)
    elif harm == "missing":
        shard.unlink()
    else:
        shutil.rmtree(copy / "data" / "samples" / "train")
    code, said = verify(copy, capsys)
    assert code == 4
    assert f"{shard} " in said
    assert str(made) not in said
    assert verify(made, capsys)[0] == 0


def test_damage_in_the_original_is_not_that_of_its_copy(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    a_shard(made).unlink()
    assert verify(copy, capsys)[0] == 0
    assert verify(made, capsys)[0] == 4


def test_what_is_planned_after_a_move_is_planned_as_before_it(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "vae").mkdir(parents=True)
    run = tiny_run(tmp_path / "run", base, ["encode={}"])
    seal_captions(run)
    before = plan_encoding(run)
    assert before.shards[0].inputs["samples"] == "data/samples/train/000000.tar"
    moved = open_run(run.root.rename(tmp_path / "moved"))
    assert plan_encoding(moved).id == before.id
    assert moved.located(before.shards[0].inputs["samples"]) == a_shard(moved.root)


def record_of(path: Path, plan: str) -> Record:
    return Record("000000", plan, str(path), 1, 1, "0", 0, "h", now(), now())


def test_shards_outside_the_run_stay_where_they_are(tmp_path: Path) -> None:
    """Even where their folder has the name of the run, which is how an old place is recognised."""
    scratch = tmp_path / "scratch" / "run"
    shard = scratch / "data" / "tiles" / "000000.tar"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"1")
    run = create_run(tmp_path / "home" / "run", "a: 1\n", "f00d")
    plan = make_plan("tile", [{}])
    publish_plan(plan, run.plan_file("tile"))
    run.ledger("tile").publish(record_of(shard, plan.id))
    moved = RunDir(run.root.rename(tmp_path / "moved"))
    assert Path(moved.ledger("tile").records()["000000"].path) == shard
    beside = run.root / ".." / "beside.tar"
    assert run.stored(beside) == str(beside), "not inside, however it is spelt"


def test_records_on_disk_name_files_of_the_run_by_their_place_in_it(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", "a: 1\n", "f00d")
    plan = make_plan("tile", [{}])
    publish_plan(plan, run.plan_file("tile"))
    inside = run.root / "data" / "000000.tar"
    run.ledger("tile").publish(record_of(inside, plan.id))
    file = run.stage("tile") / "records" / "000" / "000000.json"
    assert json.loads(file.read_text())["path"] == "data/000000.tar"
    assert run.ledger("tile").records()["000000"] == record_of(inside, plan.id)
    manifest = run.ledger("tile").seal(plan)
    assert json.loads(manifest.read_text())["path"] == "data/000000.tar"
    assert os.fspath(inside) == run.ledger("tile").records()["000000"].path


@pytest.mark.parametrize("name", ["at 12:30", "50%", "back\\slash", "two\nlines"])
def test_a_directory_in_which_jobs_would_import_other_code_is_refused_before_it_is_made(
    name: str, tmp_path: Path
) -> None:
    """`:` separates entries of PYTHONPATH; Slurm replaces `%` and `\\` in names of logs."""
    with pytest.raises(ConfigError, match="use another run name or directory"):
        create_run(tmp_path / name / "run", "a: 1\n", "f00d")
    assert not (tmp_path / name).exists()
