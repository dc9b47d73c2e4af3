"""The stage `evaluate`: parts that resume, plans of before, gates, and the autoencoder's time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from evaluated_runs import masters_and_a_model_without, run_before_evaluation
from image_sets_on_disk import shard_of, speckle_codes
from line_runs import make_tiny_model

from hpc.errors import DataError, IncompleteError, VerificationError
from hpc.job.pipeline import run_stage
from hpc.store.plan import make_plan, publish_plan, read_plan
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli import main
from sarhpc.stages.evaluate import EVALUATE, plan_evaluation
from sarhpc.stages.inputs.prompts import sample_shards
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.reconstruction import reconstruct_tiles
from sarhpc.stages.work.sharded import manifest_sha

pytestmark = pytest.mark.slow
STRICT = ["evaluate.gates.lsd_db=0.0001"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def evaluate(run: RunDir) -> dict[str, Any]:
    run_stage(run, stage_named(load_run_config(run), "evaluate"))
    return json.loads((run.stage("evaluate") / "evaluation.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, model: Path
) -> tuple[RunDir, dict[str, Any]]:
    """A run whose corpus does not pass its gates, and its evaluation."""
    run = run_before_evaluation(tmp_path_factory.mktemp("evaluated") / "run", model, STRICT)
    return run, evaluate(run)


def tables(run: RunDir) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run.stage("evaluate") / "tables").iterdir())}


def test_parts_are_shards_and_a_resumed_stage_makes_only_what_is_missing(
    tmp_path: Path, model: Path
) -> None:
    run = run_before_evaluation(tmp_path / "run", model)
    shard = run.root / "data" / "synthetic" / "000001.tar"
    whole = shard.read_bytes()
    pixels = whole.rfind(b"IDAT") + 50
    shard.write_bytes(whole[:pixels] + bytes(100) + whole[pixels + 100 :])
    with pytest.raises(IncompleteError, match=r"image 00000100005 of .*000001\.tar"):
        evaluate(run)
    plan = read_plan(run.plan_file("evaluate"))
    assert [shard.inputs.get("set") for shard in plan.shards] == ["real", "this run", None]
    done = run.ledger("evaluate").records()
    assert {record.detail["set"] for record in done.values()} == {"real"}
    before = tables(run)
    shard.write_bytes(whole)
    found = evaluate(run)
    assert tables(run).items() >= before.items()
    assert run.ledger("evaluate").records()["000000"].attempt == 0
    assert (found["drawn"], found["splits"]) == ({"real": 24, "this run": 12}, {"val": 24})
    assert set(found["sets"]) == {"real", "this run", "autoencoder"}
    groups = pq.read_table(run.stage("evaluate") / "tables" / "000000.parquet").column("group")
    assert {f"f{n}" for n in range(12)} == {*groups.to_pylist()}, "flight lines, not scenes"
    page = (run.root / "report.html").read_text()
    assert "Real tiles are from: val (24)." in page
    assert "level_spread_ratio" in page
    assert "12 images in 2 shards" in page
    assert str(run.stage("evaluate") / "evaluation.json") in page


def test_a_plan_of_before_with_one_shard_is_brought_to_its_end(
    tmp_path: Path, model: Path, evaluated: tuple[RunDir, dict[str, Any]]
) -> None:
    run = run_before_evaluation(tmp_path / "old", model, STRICT)
    inputs = {"real": manifest_sha(run, "caption"), "synthetic": manifest_sha(run, "generate")}
    fingerprint = EVALUATE.fingerprint(load_run_config(run))
    publish_plan(
        make_plan("evaluate", [inputs], fingerprint=fingerprint), run.plan_file("evaluate")
    )
    found = evaluate(run)
    assert found == evaluated[1]


def test_a_stage_that_began_elsewhere_goes_on_where_its_run_was_moved(
    tmp_path: Path, model: Path
) -> None:
    run = run_before_evaluation(tmp_path / "run", model)
    publish_plan(plan_evaluation(run), run.plan_file("evaluate"))
    run.root.rename(tmp_path / "moved")
    found = evaluate(open_run(tmp_path / "moved"))
    assert found["sets"]["this run"]["tiles"] == 12


def test_a_corpus_that_fails_its_gates_is_reported_and_fails_the_stage_only_where_asked(
    tmp_path: Path, model: Path, evaluated: tuple[RunDir, dict[str, Any]]
) -> None:
    reported, found = evaluated
    assert reported.ledger("evaluate").sealed
    assert not found["gates_passed"]
    run = run_before_evaluation(tmp_path / "failing", model, [*STRICT, "evaluate.gates_fail=true"])
    with pytest.raises(VerificationError, match="lsd_db fail"):
        evaluate(run)
    assert not run.ledger("evaluate").sealed
    assert "lsd_db" in (run.root / "report.html").read_text()
    made = (run.stage("evaluate") / "evaluation.json").stat().st_mtime_ns
    with pytest.raises(VerificationError):
        evaluate(run)
    assert (run.stage("evaluate") / "evaluation.json").stat().st_mtime_ns == made


def test_copies_of_training_tiles_are_searched_in_the_corpus_of_a_run(
    tmp_path: Path, model: Path
) -> None:
    shard_of(
        tmp_path / "train/000000.tar",
        speckle_codes(9, 60, px=64),
        lambda n: {"split": "train", "scene_id": f"t{n}"},
    )
    words = [
        f"evaluate.memory={{shards: {tmp_path / 'train'}}}",
        "evaluate.gates.memorised=0.2",
        "evaluate.orientation_steps=0",
    ]
    run = run_before_evaluation(tmp_path / "with", model, words, px=64)
    found = evaluate(run)
    assert found["memory"]["memorised"]["of"] == 12
    assert found["memory"]["training_tiles"] == 60
    assert found["memory"]["held_out"]["of"] == 24
    assert {g["name"]: g["verdict"] for g in found["gates"]}["memorised"] == "pass"
    assert (run.root / "report.html").read_text().count('alt="training tile ') == 6
    assert len([*(run.stage("evaluate") / "memory").iterdir()]) == 3 + 6


def test_the_result_of_a_run_is_printed_as_json(
    model: Path, evaluated: tuple[RunDir, dict[str, Any]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, found = evaluated
    assert main(["evaluate", str(run.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    fresh = run_before_evaluation(tmp_path / "run", model)
    assert main(["evaluate", str(fresh.root), "--json"]) == 2
    assert "is not evaluated yet" in capsys.readouterr().err
    assert main(["evaluate", str(run.root), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gates"] == found["gates"]


def test_a_set_without_masters_is_compared_by_codes_and_takes_nothing_from_the_others(
    tmp_path: Path, model: Path
) -> None:
    words = [f"compare.models={{base: {model}}}", "evaluate.autoencoder_s=0"]
    run = run_before_evaluation(tmp_path / "run", model, words)
    masters_and_a_model_without(run)
    found = evaluate(run)
    assert found["pixels"] == "amplitude"
    assert found["views"] == [
        ["amplitude", ["this run"]],
        ["8-bit codes", ["this run", "base"]],
    ]
    page = (run.root / "report.html").read_text()
    assert "base: 8-bit codes, compared with the real tiles in the same pixels" in page
    assert set(found["sets"]) == {"real", "this run", "base"}
    assert set(found["better"]) == {"this run<base", "base<this run"}
    assert any("“base” has 8 bits only" in note for note in found["notes"])
    assert any("autoencoder is not measured" in note for note in found["notes"])
    kinds = [
        (shard.inputs["set"], shard.inputs["pixels"])
        for shard in read_plan(run.plan_file("evaluate")).shards
        if "files" in shard.inputs
    ]
    assert kinds == [
        ("real", "amplitude"),
        ("this run", "amplitude"),
        ("real", "8-bit codes"),
        ("this run", "8-bit codes"),
        ("base", "8-bit codes"),
    ]


def test_a_corpus_without_images_is_an_error_that_names_it(tmp_path: Path, model: Path) -> None:
    run = run_before_evaluation(tmp_path / "run", model)
    for file in (run.stage("generate")).glob("manifest.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [
            json.dumps({**row, "samples": 0}) if "samples" in row else json.dumps(row)
            for row in rows
        ]
        file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="“this run” has no images"):
        plan_evaluation(run)


def test_new_settings_leave_the_fingerprint_of_the_stage_as_it_was(
    tmp_path: Path, model: Path
) -> None:
    config = load_run_config(run_before_evaluation(tmp_path / "run", model))
    before = EVALUATE.fingerprint(config)
    changed = dataclasses.replace(config.evaluate, autoencoder_s=1.0)
    assert EVALUATE.fingerprint(dataclasses.replace(config, evaluate=changed)) != before
    stored = Path(__file__).parents[2] / "golden" / "run_0_1" / "common" / "run"
    old = load_run_config(open_run(stored))
    names = {"real_splits", "tiles", "bootstrap", "seed", "gallery"}
    from hpc.config import decisive

    assert set(decisive(old)["evaluate"]) == names


@pytest.mark.parametrize(("budget_s", "taken"), [(1000.0, 24), (9.5, 7), (4.5, 0), (0.0, 0)])
def test_the_autoencoder_takes_as_many_tiles_as_fit_in_its_time(
    tmp_path: Path, model: Path, budget_s: float, taken: int
) -> None:
    run = run_before_evaluation(tmp_path / "run", model, real=1)
    [shard] = sample_shards(run, ["val"])
    places = [(shard, row) for row in range(24)]
    times = iter(range(100))
    found = reconstruct_tiles(
        model / "vae", places, "8-bit codes", (32, 32), budget_s, clock=lambda: float(next(times))
    )
    assert len(found.rows) == taken
    if taken == 24:
        assert "all 24 real tiles" in found.note
    elif taken:
        # A second a tile, and two were spent to find that out.
        assert f"{taken} of 24 real tiles" in found.note
        assert list(found.rows) == sorted({*found.rows})
        assert found.rows[-1] - found.rows[0] > 12
    else:
        assert found.features is None
        assert "not measured" in found.note


def test_a_shard_cut_short_ends_an_evaluation_from_outside_as_one_of_two_sets(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_before_evaluation(tmp_path / "run", model)
    shard = Path(next(iter(run.ledger("generate").records().values())).path)
    shard.write_bytes(shard.read_bytes()[:700])
    assert main(["evaluate", str(run.root), "--out", str(tmp_path / "out")]) == 4
    assert f"{shard} is cut short" in capsys.readouterr().err
