"""The caption stage with GIT whose captions CLIP picks among: the same shards however it went."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from caption_layouts import karpathy, save
from caption_models import save_clip, save_git, teach_clip, teach_git, words
from caption_tiles import GROUNDS, SMALL, draw_ground
from caption_training import process_as_before
from line_runs import shard_digests, tiny_run

from hpc.job.pipeline import ensure_plan, run_stage, seal
from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.captioning.tuning.finetune import TABLE
from sarhpc.diffusion.tokenizer import train_clip_tokenizer
from sarhpc.shards.reader import read_shard
from sarhpc.stages import caption
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.sharded import make_and_record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `git` and `clip`, taught the four grounds."""
    root = tmp_path_factory.mktemp("models")
    teach_git(save_git(root / "git", words()), steps=60)
    tokenizer = train_clip_tokenizer(GROUNDS, 600, root / "tokenizer")
    teach_clip(save_clip(root / "clip", tokenizer))
    return root


def begin(root: Path, shards: Path, *overrides: str) -> RunDir:
    """A run whose tiles are the coloured grounds."""
    run = tiny_run(root, Path("/model"), ["caption.captioner=git", *overrides])
    paths = sorted(shards.rglob("*.tar"))
    plan = make_plan("tile", [{} for _ in paths])
    publish_plan(plan, run.plan_file("tile"))
    for task, path in zip(plan.shards, paths, strict=True):
        digest = digest_file(path)
        run.ledger("tile").publish(
            Record(task.id, plan.id, str(path), 12, digest.bytes, digest.sha256, 0, "here", now(),
                   now(), 0.0, {}, {"split": path.parent.name})
        )  # fmt: skip
    run.ledger("tile").seal(plan)
    return run


def work_through(run: RunDir, *, backwards: bool) -> None:
    stage = stage_named(load_run_config(run), "caption")
    plan = ensure_plan(run, stage)
    for task in reversed(plan.shards) if backwards else plan.shards:
        # Each shard by a process of its own, as after a restart: nothing is kept loaded.
        caption._loaded.clear()
        make_and_record(caption.make_caption_shard, str(run.root), "caption", plan.id, 0, task)
    seal(run, stage, plan)


def test_shards_are_byte_identical_whatever_order_and_restarts(
    models: Path, ground_shards: Path, tmp_path: Path
) -> None:
    settings = [
        f"caption.model={models}/git", f"caption.clip.model={models}/clip",
        "caption.decoding=nucleus", "caption.temperature=2.0", "caption.clip.candidates=3",
        "caption.batch=5", "caption.max_tokens=12", "caption.device=cpu", "caption.min_words=1",
    ]  # fmt: skip
    runs = [begin(tmp_path / name, ground_shards, *settings) for name in ("one", "other")]
    for run, backwards in zip(runs, (False, True), strict=True):
        work_through(run, backwards=backwards)
    one, other = (shard_digests(run, "caption") for run in runs)
    assert one == other
    assert len(one) == 2
    (record, *_) = runs[0].ledger("caption").records().values()
    for sample in read_shard(Path(record.path)):
        meta = sample.meta
        assert meta["caption_model"] == "git+clip"
        texts = [row["text"] for row in meta["caption_scores"]]
        assert meta["caption_raw"] in texts
        assert len(set(texts)) == len(texts) <= 3


def test_another_seed_draws_other_captions(
    models: Path, ground_shards: Path, tmp_path: Path
) -> None:
    settings = [
        f"caption.model={models}/git", "caption.decoding=nucleus", "caption.temperature=3.0",
        "caption.top_p=1.0", "caption.batch=6", "caption.max_tokens=12", "caption.device=cpu",
        "caption.degenerate=fallback",
    ]  # fmt: skip
    digests = []
    for seed in (0, 1):
        run = begin(tmp_path / str(seed), ground_shards, *settings, f"caption.seed={seed}")
        work_through(run, backwards=False)
        digests.append(shard_digests(run, "caption"))
    assert digests[0] != digests[1]


def test_the_stage_learns_from_published_sets_named_by_kind_and_variable(
    ground_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grounds = list(GROUNDS.items())
    for name, first in (("one", 0), ("other", 2)):
        entries = [
            (f"{number}.tif", split, [grounds[first + number][0]])
            for number, split in ((0, "train"), (1, "test"))
        ]
        pixels = {
            f"imgs/{number}.tif": draw_ground(grounds[first + number][1], number)
            for number in (0, 1)
        }
        save(tmp_path / "sets" / name, karpathy(entries, name), "dataset.json", pixels)
    monkeypatch.setenv("SETS", str(tmp_path / "sets"))
    train, test = (
        ", ".join(
            f"{{kind: sydney, name: {name}, path: $SETS/{name}, split: {split}}}"
            for name in ("one", "other")
        )
        for split in ("train", "test")
    )
    small = [f"caption_train.new.{name}={value}" for name, value in asdict(SMALL).items()]
    run = begin(
        tmp_path / "run", ground_shards, *small,
        f"caption_train.train=[{train}]",
        f"caption_train.val=[{test}]",
        "caption_train.base_model=null", "caption_train.steps=2", "caption_train.batch=2",
        "caption_train.device=cpu",
    )  # fmt: skip
    stage = stage_named(load_run_config(run), "caption-train")
    with process_as_before():
        run_stage(run, stage)
    folder = run.stage("caption-train")
    start = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert [(one["name"], one["images"]) for one in start["train_sets"]] == [
        ("one", 1),
        ("other", 1),
    ]
    assert stage.live_progress is not None
    progress = stage.live_progress(run)
    assert progress is not None
    assert (progress.done, progress.goal, progress.unit) == (2, 2, "steps")
    assert progress.note.startswith("BLEU-4 ")
    assert progress.note.endswith(" after_set")
    assert stage.live_progress is not None
    assert stage.progress(run) == 2
    table = (folder / TABLE).read_text()
    assert "| one test | 1 | before |" in table
    assert "| other test | 1 | after |" in table
