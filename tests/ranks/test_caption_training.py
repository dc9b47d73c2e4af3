"""The captioner is fine-tuned as the diffusion model is: on any ranks, and after any end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from caption_tiles import GROUNDS, SMALL, ground_training_of, write_grounds
from line_runs import stage_log, start_ranks, tiny_run
from safetensors.torch import load_file
from test_training_stop import wait_for
from training_ranks import contents, differences, enter_rank, finish, start, step_folder
from transformers import BertTokenizerFast, BlipForConditionalGeneration

from hpc.observe.state import stage_state
from hpc.publish import digest_file
from hpc.store.attempts import read_attempts
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.captioning.config import CaptionTrainConfig
from sarhpc.captioning.tuning.finetune import REPORT, TABLE
from sarhpc.captioning.tuning.schedule import warmup_cosine
from sarhpc.shards.loader import Cursor, SampleOrder
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.training.checkpoints.checkpointing import read_weights

pytestmark = pytest.mark.slow

KILL = -9
WEIGHTS = "model.safetensors"
MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class CaptionJob:
    """The arguments of every rank of a fine-tuning."""

    root: Path
    cfg: CaptionTrainConfig
    attempt: int = 1
    faults: dict[int, str] = field(default_factory=dict)


def caption_rank(job: CaptionJob, rank: int, world: int, port: int) -> None:
    """One rank, from its environment to its exit code."""
    enter_rank(job, rank, world, port)
    from caption_training import fine_tune

    from hpc.errors import HpcError
    from sarhpc.training.ranks import join, leave

    ranks = join(job.cfg.threads, deterministic=True, seed=job.cfg.seed, on_cpu=True)
    try:
        fine_tune(job.cfg, job.root / "blip", job.root, ranks, job.attempt)
    except HpcError as error:
        (job.root / f"error_{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        raise SystemExit(error.exit_code) from error
    leave()


def fit_ranks(job: CaptionJob, world: int = 2) -> list[int | None]:
    """Exit codes of a job's ranks."""
    return finish(start(job, world, caption_rank))


def rows(job: CaptionJob, key: str = "loss") -> dict[int, dict[str, Any]]:
    """Rows of metrics.jsonl with `key`, by step; no step may be there twice."""
    lines = map(json.loads, (job.root / "metrics.jsonl").read_text().splitlines())
    found = [row for row in lines if key in row]
    assert [row["step"] for row in found] == sorted({row["step"] for row in found})
    return {row["step"]: row for row in found}


def losses(job: CaptionJob) -> list[float]:
    return [row["loss"] for row in rows(job).values()]


def events(job: CaptionJob) -> list[str]:
    lines = map(json.loads, (job.root / "metrics.jsonl").read_text().splitlines())
    return [row["event"] for row in lines if "event" in row]


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CaptionTrainConfig:
    """Six steps of eight of twelve images, on a model with dropout."""
    from sarhpc.captioning.captioners.build import new_blip
    from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer

    root = tmp_path_factory.mktemp("grounds")
    write_grounds(root, "train", 0, 100)
    write_grounds(root, "val", 1, 900)
    blip = new_blip(SMALL, train_bert_tokenizer(GROUNDS, SMALL.vocabulary))
    blip.model.config.text_config.hidden_dropout_prob = 0.1
    (root / "dropping").mkdir()
    blip.save(root / "dropping")
    return ground_training_of(
        root,
        base_model=str(root / "dropping"),
        steps=6,
        lr=1e-3,
        warmup_steps=2,
        val_every=3,
        eval_images=10,
        log_every=1,
        readers=1,
    )


@pytest.fixture(scope="module")
def alone(cfg: CaptionTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> CaptionJob:
    """One rank's training of a model without dropout, whose masks hang on the ranks."""
    job = CaptionJob(tmp_path_factory.mktemp("alone"), replace(cfg, base_model=None))
    assert fit_ranks(job, world=1) == [0]
    return job


@pytest.mark.parametrize(
    ("stage", "precision", "micro"),
    [
        (0, "fp32", None),
        (2, "fp32", 2),
        (1, "bf16", 4),
        (3, "bf16", 2),
        pytest.param(1, "fp32", 2, marks=pytest.mark.long),
        pytest.param(3, "fp32", None, marks=pytest.mark.long),
    ],
)
def test_two_ranks_learn_what_one_learns_whatever_is_sharded(
    alone: CaptionJob, tmp_path: Path, stage: int, precision: str, micro: int | None
) -> None:
    changed = replace(alone.cfg, zero_stage=stage, precision=precision, micro_batch=micro)
    job = CaptionJob(tmp_path, changed)
    assert fit_ranks(job) == [0, 0]
    # What differs is the order of sums, or in bf16 the arithmetic; a part of the batch that was
    # weighed wrongly, or decay on what has none, would show in the third digit.
    exact = precision == "fp32"
    assert losses(job) == pytest.approx(losses(alone), rel=1e-5 if exact else 2e-2)
    scale = warmup_cosine(changed.warmup_steps, changed.steps)
    rates = [row["lr"] for row in rows(job).values()]
    assert rates == pytest.approx([changed.lr * scale(step) for step in range(changed.steps)])
    one, other = (load_file(each.root / "blip" / WEIGHTS) for each in (alone, job))
    assert one.keys() == other.keys()
    # A key's bias moves no softmax: its gradient is rounding alone, which AdamW makes a step of.
    compared = [name for name in one if exact or not name.endswith("key.bias")]
    apart = [float((one[name] - other[name]).abs().mean()) for name in compared]
    assert max(apart) < (1e-6 if exact else 1e-4)
    report = json.loads((job.root / "blip" / REPORT).read_text())
    assert (
        report["parameters"] == json.loads((alone.root / "blip" / REPORT).read_text())["parameters"]
    )
    validation = [{step: row["val_loss"] for step, row in rows(each, "val_loss").items()}
                  for each in (alone, job)]  # fmt: skip
    assert list(validation[1]) == [3, 6]
    assert validation[1] == pytest.approx(validation[0], rel=1e-5 if exact else 2e-2)


def test_all_weights_are_in_the_checkpoint_and_what_is_published_is_a_stock_blip(
    alone: CaptionJob,
) -> None:
    published = BlipForConditionalGeneration.from_pretrained(alone.root / "blip")
    learnt = read_weights(step_folder(alone, 6), average=False)
    named = {f"model.{name}": tensor for name, tensor in published.named_parameters()}
    assert learnt.keys() == named.keys()
    assert all(torch.equal(learnt[name], tensor) for name, tensor in named.items())
    tokenizer = BertTokenizerFast.from_pretrained(alone.root / "blip")
    said = published.generate(pixel_values=torch.zeros(1, 3, 32, 32), max_new_tokens=4)
    assert isinstance(tokenizer.decode(said[0], skip_special_tokens=True), str)
    assert "| after |" in (alone.root / TABLE).read_text()
    assert events(alone) == ["start", "before", "after"]


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.long), 3])
def test_four_steps_kill_and_two_more_equal_six_to_the_bit(
    cfg: CaptionTrainConfig, tmp_path: Path, stage: int
) -> None:
    changed = replace(cfg, zero_stage=stage, checkpoint_every_steps=2)
    whole = CaptionJob(tmp_path / "whole", changed)
    assert fit_ranks(whole) == [0, 0]
    killed = CaptionJob(tmp_path / "killed", changed, faults={1: "training.after_step:5:kill"})
    codes = fit_ranks(killed)
    assert KILL in codes
    assert None not in codes, "the surviving rank hung instead of ending"
    assert not (killed.root / "blip").exists()
    assert step_folder(killed, 4).is_dir()
    before = (killed.root / "before.json").stat().st_mtime_ns
    resumed = replace(killed, faults={}, attempt=2)
    assert fit_ranks(resumed) == [0, 0]

    ends = [contents(step_folder(job, 6)) for job in (whole, resumed)]
    files = "\n".join(ends[0])
    for part in ("model_states", "rng/rank_00001"):
        assert part in files
    assert differences(*ends) == []
    weights = [(job.root / "blip" / WEIGHTS).read_bytes() for job in (whole, resumed)]
    assert weights[0] == weights[1]
    assert list(rows(resumed)) == [1, 2, 3, 4, 5, 6]
    assert losses(resumed) == losses(whole)
    assert events(resumed) == ["start", "before", "after"]
    assert (resumed.root / "before.json").stat().st_mtime_ns == before, "judged twice"


def test_one_rank_goes_on_at_the_very_sample_where_two_were_killed(
    alone: CaptionJob, tmp_path: Path
) -> None:
    changed = replace(alone.cfg, zero_stage=2, checkpoint_every_steps=3)
    faults = dict.fromkeys((0, 1), "training.after_step:5:kill")
    killed = CaptionJob(tmp_path, changed, faults=faults)
    assert fit_ranks(killed) == [KILL, KILL]
    assert losses(killed)[:3] == pytest.approx(losses(alone)[:3], rel=1e-5)
    place = contents(step_folder(killed, 3))["state"]["cursor"]
    assert Cursor(**place) == SampleOrder(changed.seed, 12).advance(Cursor(), 3 * changed.batch)
    resumed = replace(killed, faults={}, attempt=2)
    assert fit_ranks(resumed, world=1) == [0]
    assert losses(resumed) == pytest.approx(losses(alone), rel=1e-5)
    cursors = [contents(step_folder(job, 6))["state"]["cursor"] for job in (alone, resumed)]
    assert cursors[0] == cursors[1]
    one, other = (load_file(each.root / "blip" / WEIGHTS) for each in (alone, resumed))
    assert max(float((one[name] - other[name]).abs().mean()) for name in one) < 1e-6


def test_a_signal_to_one_rank_saves_on_all_and_the_rest_follows_to_the_bit(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    changed = replace(cfg, steps=150, zero_stage=1, val_every=1000, eval_images=4)
    whole = CaptionJob(tmp_path / "whole", changed)
    assert fit_ranks(whole) == [0, 0]
    job = CaptionJob(tmp_path / "stopped", changed)
    ranks = start(job, 2, caption_rank)
    metrics = job.root / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 5)
    os.kill(ranks[1].pid or 0, signal.SIGUSR2)
    assert finish(ranks) == [0, 0]
    told_by = (job.root / "error_0.txt").read_text()
    assert told_by.startswith("StopRequestedError: training saved step ")
    step = max(rows(job))
    assert step < changed.steps
    assert [path.name for path in (job.root / "checkpoints").glob("step_*")] == [f"step_{step:08d}"]
    assert not (job.root / "blip").exists()
    assert fit_ranks(replace(job, attempt=2)) == [0, 0]
    ends = [contents(step_folder(each, changed.steps)) for each in (whole, job)]
    assert differences(*ends) == []
    assert losses(job) == losses(whole)


def test_a_step_that_is_not_finite_ends_all_ranks_with_the_names_of_its_batch(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    job = CaptionJob(tmp_path, replace(cfg, lr=1e30, zero_stage=2, warmup_steps=0))
    assert fit_ranks(job) == [3, 3]
    [path] = tmp_path.glob("trouble_step_*.json")
    document = json.loads(path.read_text())
    assert document["then"] == "stopped"
    assert [len(rank["keys"]) for rank in document["ranks"]] == [4, 4]
    assert "caption_train.lr" in (tmp_path / "error_1.txt").read_text()
    assert not (tmp_path / "blip").exists()


def test_a_batch_that_the_ranks_cannot_divide_is_refused(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path)
    job = CaptionJob(tmp_path, replace(cfg, batch=9, eval_images=0))
    assert fit_ranks(job) == [2, 2]
    assert "caption_train.batch=9 is no multiple" in (tmp_path / "error_0.txt").read_text()


def sealed_tiles(run: RunDir, shard: Path) -> None:
    """Stand a finished `tile` of one shard in the run."""
    plan = make_plan("tile", [{}])
    publish_plan(plan, run.plan_file("tile"))
    digest = digest_file(shard)
    run.ledger("tile").publish(
        Record("000000", plan.id, str(shard), 12, digest.bytes, digest.sha256, 0, "here", now(),
               now(), 0.0, {}, {"split": "train"})
    )  # fmt: skip
    run.ledger("tile").seal(plan)


def test_the_stage_stops_on_all_ranks_of_its_job_and_goes_on_with_the_line(
    cfg: CaptionTrainConfig, tmp_path: Path
) -> None:
    small = [f"caption_train.new.{name}={value}" for name, value in asdict(SMALL).items()]
    words = [*small, "caption_train.base_model=null", "caption_train.steps=120",
             "caption_train.batch=4", "caption_train.device=cpu", "caption_train.log_every=1",
             f"caption_train.train=[{{path: {cfg.train[0].path}}}]", "cluster.ranks=2",
             "caption_train.max_tokens=12", "caption_train.zero_stage=1"]  # fmt: skip
    run = tiny_run(tmp_path / "run", tmp_path / "model", words)
    sealed_tiles(run, Path(cfg.train[0].path) / "train" / "000000.tar")
    ranks = start_ranks(run, "caption-train")
    stage = stage_named(load_run_config(run), "caption-train")
    folder = run.stage("caption-train")
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 6)
    run.stop_file.touch()
    assert [rank.wait(120) for rank in ranks] == [0, 0], stage_log(run, "caption-train")
    state = stage_state(run, stage)
    assert state.progress is not None
    assert (state.state, state.planned, state.progress.goal) == ("PARTIAL", 1, 120)
    assert 3 <= state.progress.done < 120
    assert state.checkpoint == f"step_{state.progress.done:08d}"
    assert state.progress.note.startswith("loss ")
    manifest = json.loads((folder / "checkpoints" / state.checkpoint / MANIFEST).read_text())
    assert manifest["world_size"] == 2
    kept = json.loads((folder / "micro_batch.json").read_text())
    assert kept == {"micro_batch": 2, "ranks": 2}, "a rank's whole share, kept for the next start"

    run.stop_file.unlink()
    ranks = start_ranks(run, "caption-train")
    assert [rank.wait(400) for rank in ranks] == [0, 0], stage_log(run, "caption-train")
    [record] = run.ledger("caption-train").records().values()
    assert Path(record.path) == folder / "model"
    assert run.ledger("caption-train").sealed
    starts = [row for row in read_attempts(folder) if "from" in row]
    assert [row["from"] for row in starts] == [0, state.progress.done]
    assert len(stage.progress_times(run) if stage.progress_times else ()) >= 120
