"""Small complete runs for the tests of the whole pipeline."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from forked import Forked, start
from tiny_bundle import make_bundle

from hpc.config import fingerprint, loads, to_yaml
from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, create_run, now
from hpc.store.tree import digest_tree
from sarhpc.launch.job import work
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard
from sarhpc.stages.config import RunConfig

CAPTIONS = ["a lake", "a dense forest", "a crop field", "a town with houses", "a road", "a river"]

TINY = """
simulate: {seed: 3, scenes: 4, scenes_per_line: 2, size_px: 160}
tile:
  tile_px: 32
  shard_samples: 4
  min_signal: 0.0
  max_saturated: 1.0
  split: {fractions: [0.5, 0.5, 0.0], cell_m: 200.0, buffer_m: 0.0}
caption: {captioner: truth, template: {token: "A SAR image of"}}
train:
  global_batch: 4
  micro_batch: 2
  max_steps: 4
  warmup_steps: 1
  precision: fp32
  ema_decay: 0.5
  checkpoint_every_steps: 2
  validation_every_steps: 4
  validation_prompts: [a lake]
  validation_seeds: [0]
  validation_steps: 2
generate: {images: 24, steps: 2, batch: 2, shard_samples: 2}
evaluate: {tiles: 40, bootstrap: 5, gallery: 3, orientation_steps: 0}
cluster: {workers: 2, ranks: 2}
"""
"""A line of seconds: 160 px scenes, 32 px tiles, tiny models."""

KNOWN_PIXELS = {
    "schema": "sarhpc.contract/1", "calibration": "sigma0", "tiles": 1,
    "normalisation": {"mode": "db", "low": [0.01, 0.01], "top": [9.0, 9.0]},
}  # fmt: skip
"""A contract by which generated images keep a 16-bit master."""


def make_tiny_model(folder: Path) -> Path:
    """A diffusers folder of real, random, tiny models for 32 px tiles."""
    return make_bundle(folder, captions=CAPTIONS)


def tiny_run(root: Path, model: Path, overrides: Sequence[str] = ()) -> RunDir:
    """A run directory frozen with the tiny configuration."""
    words = [f"train.base_model={model}", *overrides]
    config = loads(RunConfig, TINY, words)
    return create_run(root, to_yaml(config), fingerprint(config), words)


def seal_export(run: RunDir, model: Path) -> None:
    """Stand a finished `export` in the run, as if `model` had been trained there."""
    plan = make_plan("export", [{}])
    publish_plan(plan, run.plan_file("export"))
    digest = digest_tree(model)
    record = Record(
        "000000", plan.id, str(model), 0, digest.bytes, digest.sha256, 0, "test", now(), now()
    )
    run.ledger("export").publish(record)
    run.ledger("export").seal(plan)


def seal_captions(run: RunDir) -> None:
    """Stand two captioned shards in the run, one to train on and one held out."""
    plan = make_plan("caption", [{"n": 0}, {"n": 1}])
    publish_plan(plan, run.plan_file("caption"))
    rng = np.random.default_rng(0)
    for task, split in zip(plan.shards, ("train", "val"), strict=True):
        path = run.root / "data" / "samples" / split / f"{task.id}.tar"
        samples = [
            Sample(
                sample_key(task.number, index),
                {
                    "sar.png": encode_gray8(rng.integers(0, 256, (32, 32), np.uint8)),
                    "txt": b"a lake",
                    "meta.json": encode_json({}),
                },
            )
            for index in range(2)
        ]
        made = write_shard(path, samples)
        run.ledger("caption").publish(
            Record(task.id, plan.id, str(path), 2, made.bytes, made.sha256, 0, "h", now(), now(),
                   1.0, {}, {"split": split})
        )  # fmt: skip
    run.ledger("caption").seal(plan)


def start_stage(run: RunDir, stage: str, env: Mapping[str, str] | None = None) -> Forked:
    """The work of one stage in a process group of its own."""
    log = run.root / f"{stage}.test.log"
    # Tests kill more often in vain than a crash loop may.
    return start(work, str(run.root), stage, force=True, log=log, env=env)


def start_ranks(run: RunDir, stage: str, world: int = 2) -> list[Forked]:
    """The work of one stage as so many ranks of this machine, as the local executor starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [start_stage(run, stage, {**group, **rank}) for rank in ranks]


def stage_log(run: RunDir, stage: str) -> str:
    """The end of what `start_stage` has written."""
    return (run.root / f"{stage}.test.log").read_text()[-3000:]


def kill_group(process: Forked) -> None:
    """SIGKILL to the process, its Dask workers and everything else in its session."""
    for pid in _session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _session(leader: int) -> list[int]:
    import psutil

    members = [leader]
    for candidate in psutil.process_iter():
        try:
            if os.getsid(candidate.pid) == leader and candidate.pid != leader:
                members.append(candidate.pid)
        except ProcessLookupError:
            continue
    return members


def shard_digests(run: RunDir, stage: str) -> dict[str, str]:
    """SHA-256 of the tar behind each record of a stage, by shard id."""
    records = run.ledger(stage).records()
    return {shard: digest_file(Path(record.path)).sha256 for shard, record in records.items()}
