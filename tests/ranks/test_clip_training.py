"""CLIP is fine-tuned on any ranks, any part of the batch a pass, and after any end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_tiles import SMALL, clip_training, metric_rows, write_radar_tiles
from line_runs import stage_log, start_ranks, tiny_run
from safetensors.torch import load_file
from test_training_stop import wait_for
from training_ranks import contents, differences, enter_rank, finish, start, step_folder
from transformers import CLIPModel, CLIPProcessor

from hpc.observe.state import stage_state
from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.captioning.contrastive.config import ClipJudgeConfig, ClipTrainConfig
from sarhpc.shards.contract import read_contract
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.training.judged import FOLDER, best_first, read_judged

pytestmark = pytest.mark.slow

KILL = -9


@dataclass(frozen=True)
class ClipJob:
    """The arguments of every rank of a contrastive training."""

    root: Path
    tiles: Path
    cfg: ClipTrainConfig
    attempt: int = 1
    faults: dict[int, str] = field(default_factory=dict)


def clip_rank(job: ClipJob, rank: int, world: int, port: int) -> None:
    """One rank, from its environment to its exit code."""
    enter_rank(job, rank, world, port)
    from clip_tiles import fine_tune_clip

    from hpc.errors import HpcError
    from sarhpc.training.ranks import join, leave

    ranks = join(job.cfg.threads, deterministic=True, seed=job.cfg.seed, on_cpu=True)
    try:
        fine_tune_clip(job.cfg, job.tiles, job.root, ranks, job.attempt)
    except HpcError as error:
        (job.root / f"error_{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(error.exit_code) from error
    leave()


def fit_ranks(job: ClipJob, world: int = 2) -> list[int | None]:
    """Exit codes of a job's ranks."""
    return finish(start(job, world, clip_rank))


def losses(job: ClipJob) -> list[float]:
    return [row["loss"] for row in metric_rows(job.root, "loss")]


def weights(job: ClipJob) -> dict[str, torch.Tensor]:
    return load_file(job.root / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles with eight different captions: 20 to learn from, 24 held out."""
    root = tmp_path_factory.mktemp("tiles")
    write_radar_tiles(root, "train", 20)
    write_radar_tiles(root, "val", 24, shard=1)
    return root


@pytest.fixture(scope="module")
def alone(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipJob:
    """One rank that sees its whole batch in one pass."""
    # At a high rate rounding alone leads elsewhere within six steps.
    job = ClipJob(tmp_path_factory.mktemp("alone"), tiles, clip_training(lr=2e-4))
    assert fit_ranks(job, world=1) == [0]
    return job


@pytest.mark.parametrize(
    ("stage", "precision", "micro"),
    [
        (0, "fp32", 2),
        (2, "fp32", None),
        (3, "fp32", 1),
        (1, "bf16", 2),
        pytest.param(1, "fp32", 4, marks=pytest.mark.long),
        pytest.param(3, "bf16", 2, marks=pytest.mark.long),
    ],
)
def test_ranks_and_passes_change_neither_loss_nor_weights(
    alone: ClipJob, tmp_path: Path, stage: int, precision: str, micro: int | None
) -> None:
    """All tiles of the global batch are negatives, whatever a rank sees of it in a pass."""
    changed = replace(alone.cfg, zero_stage=stage, precision=precision, micro_batch=micro)
    job = ClipJob(tmp_path, alone.tiles, changed)
    assert fit_ranks(job) == [0, 0]
    exact = precision == "fp32"
    assert losses(job) == pytest.approx(losses(alone), rel=2e-5 if exact else 3e-2)
    one, other = weights(alone), weights(job)
    assert one.keys() == other.keys()
    # A key's bias moves no softmax: its gradient is rounding alone, which AdamW makes a step of.
    compared = [name for name in one if not name.endswith("k_proj.bias")]
    apart = {name: float((one[name] - other[name]).abs().mean()) for name in compared}
    assert max(apart.values()) < (2e-5 if exact else 2e-3), apart
    found = [[row["val_r1"] for row in metric_rows(each.root, "val_r1")] for each in (alone, job)]
    assert len(found[1]) == 2
    if exact:
        assert found[0] == found[1]


@pytest.mark.parametrize("stage", [0, pytest.param(3, marks=pytest.mark.long)])
def test_four_steps_kill_and_two_more_equal_six_to_the_bit(
    tiles: Path, tmp_path: Path, stage: int
) -> None:
    cfg = clip_training(
        zero_stage=stage, micro_batch=2, checkpoint_every_steps=2, judge=ClipJudgeConfig(among=8)
    )
    whole = ClipJob(tmp_path / "whole", tiles, cfg)
    assert fit_ranks(whole) == [0, 0]
    killed = ClipJob(tmp_path / "killed", tiles, cfg, faults={1: "training.after_step:5:kill"})
    codes = fit_ranks(killed)
    assert KILL in codes
    assert None not in codes, "the surviving rank hung instead of ending"
    assert not (killed.root / "model").exists()
    assert step_folder(killed, 4).is_dir()
    resumed = replace(killed, faults={}, attempt=2)
    assert fit_ranks(resumed) == [0, 0]
    ends = [contents(step_folder(job, 6)) for job in (whole, resumed)]
    assert differences(*ends) == []
    published = [
        (job.root / "model" / "model.safetensors").read_bytes() for job in (whole, resumed)
    ]
    assert published[0] == published[1]
    assert losses(resumed) == losses(whole)
    assert len(losses(resumed)) == 6


def test_the_best_step_is_published_as_a_stock_clip(tiles: Path, tmp_path: Path) -> None:
    cfg = clip_training(
        steps=90,
        val_every=30,
        batch=20,
        micro_batch=10,
        lr=4e-3,
        zero_stage=2,
        save_dtype="float16",
        judge=ClipJudgeConfig(among=8),
    )
    job = ClipJob(tmp_path, tiles, cfg)
    assert fit_ranks(job, world=1) == [0]
    judged = read_judged(job.root / FOLDER)
    assert [row["step"] for row in judged] == [30, 60, 90]
    report: dict[str, Any] = json.loads((job.root / "model" / "clip_train.json").read_text())
    best = best_first(job.root / FOLDER)[0]
    assert (report["step"], report["global_batch"]) == (best, 20)
    assert "global batch" in report["negatives"]
    kept = {row["step"]: row["val_r1"] for row in judged}
    assert report["after"]["val_r1"] == pytest.approx(kept[best], abs=0.1)
    assert report["after"]["val_r1"] > 0.5 > 3 * report["after"]["val_chance"]
    model = CLIPModel.from_pretrained(job.root / "model")
    assert float(model.logit_scale.exp()) <= 100.01
    processor = CLIPProcessor.from_pretrained(job.root / "model")
    assert processor.tokenizer("a lake").input_ids


def test_captions_that_tell_nothing_apart_are_refused_before_a_step(tmp_path: Path) -> None:
    from sarhpc.shards.reader import read_shard
    from sarhpc.shards.writer import write_shard

    for shard, split in enumerate(("train", "val")):
        path = write_radar_tiles(tmp_path / "tiles", split, 12, shard)
        write_shard(path, [sample.with_members(txt=b"a lake") for sample in read_shard(path)])
    job = ClipJob(tmp_path / "job", tmp_path / "tiles", clip_training())
    assert fit_ranks(job, world=1) == [1]
    reported = (job.root / "error_0.txt").read_text()
    assert "captions of the 12 tiles to learn from are all the same" in reported
    assert not (job.root / "metrics.jsonl").exists()


def test_a_judge_without_enough_different_captions_says_how_many_there_are(
    tiles: Path, tmp_path: Path
) -> None:
    job = ClipJob(tmp_path, tiles, clip_training(judge=ClipJudgeConfig(among=30)))
    assert fit_ranks(job, world=1) == [1]
    reported = (job.root / "error_0.txt").read_text()
    assert "8 different captions among the held-out tiles, and 30 are needed" in reported


def sealed_captions(run: RunDir, tiles: Path) -> None:
    """Stand a finished `caption` with the shards of `train` and `val` in the run."""
    plan = make_plan("caption", [{}, {}])
    publish_plan(plan, run.plan_file("caption"))
    for task, split in zip(plan.shards, ("train", "val"), strict=True):
        [path] = (tiles / split).glob("*.tar")
        digest = digest_file(path)
        run.ledger("caption").publish(
            Record(task.id, plan.id, str(path), 20, digest.bytes, digest.sha256, 0, "here", now(),
                   now(), 0.0, {}, {"split": split})
        )  # fmt: skip
    run.ledger("caption").seal(plan)


def test_the_stage_stops_on_all_ranks_of_its_job_and_goes_on(tiles: Path, tmp_path: Path) -> None:
    small = [f"clip_train.new.{name}={value}" for name, value in asdict(SMALL).items()]
    words = [*small, "clip_train.base_model=null", "clip_train.steps=120", "clip_train.batch=8",
             "clip_train.micro_batch=2", "clip_train.device=cpu", "clip_train.log_every=1",
             "clip_train.zero_stage=1", "clip_train.val_every=1000", "cluster.ranks=2"]  # fmt: skip
    run = tiny_run(tmp_path / "run", tmp_path / "model", words)
    sealed_captions(run, tiles)
    stage = stage_named(load_run_config(run), "clip-train")
    folder = run.stage("clip-train")
    ranks = start_ranks(run, "clip-train")
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 6)
    run.stop_file.touch()
    assert [rank.wait(120) for rank in ranks] == [0, 0], stage_log(run, "clip-train")
    state = stage_state(run, stage)
    assert state.progress is not None
    assert (state.state, state.progress.goal) == ("PARTIAL", 120)
    assert 3 <= state.progress.done < 120
    assert not (folder / "model").exists()
    run.stop_file.unlink()
    ranks = start_ranks(run, "clip-train")
    assert [rank.wait(400) for rank in ranks] == [0, 0], stage_log(run, "clip-train")
    [record] = run.ledger("clip-train").records().values()
    assert Path(record.path) == folder / "model"
    assert run.ledger("clip-train").sealed
    contract = read_contract(folder / "model")
    assert contract is not None
    assert contract.normalisation is not None
    assert contract.normalisation.mode == "mu+3sigma"
