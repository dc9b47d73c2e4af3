"""A run that stands before its evaluation: sealed stages with small shards, made in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from image_sets_on_disk import shard_of, speckle_codes
from line_runs import seal_export, tiny_run

from hpc.publish import digest_file
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.shards.images import decode_gray8, encode_array
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.writer import write_shard


def seal(run: RunDir, stage: str, shards: Sequence[tuple[Path, int, dict[str, str]]]) -> None:
    """Stand a finished stage in the run, with a record for each shard."""
    plan = make_plan(stage, [{} for _ in shards])
    publish_plan(plan, run.plan_file(stage))
    for task, (path, samples, detail) in zip(plan.shards, shards, strict=True):
        digest = digest_file(path) if path.is_file() else None
        size, sha = (digest.bytes, digest.sha256) if digest else (0, "0" * 64)
        record = Record(
            task.id,
            plan.id,
            str(path),
            samples,
            size,
            sha,
            0,
            "test",
            now(),
            now(),
            0.1,
            {},
            detail,
        )
        run.ledger(stage).publish(record)
    run.ledger(stage).seal(plan)


def captioned(path: Path, text: str) -> Path:
    """The shard with a caption in every sample."""
    samples = [Sample(s.key, {**s.members, "txt": text.encode()}) for s in read_shard(path)]
    write_shard(path, samples)
    return path


def run_before_evaluation(
    root: Path, model: Path, overrides: Sequence[str] = (), real: int = 2, px: int = 32
) -> RunDir:
    """A run with `real` shards of 24 real tiles of 12 scenes, and two of 6 generated ones."""
    run = tiny_run(root, model, ["evaluate.tiles=12", *overrides])
    law = {"mode": "mu+3sigma", "mu": 0.1, "sigma": 0.1, "top": 1.0}
    facts: dict[str, Any] = {"split": "val", "caption": {"SHORT": "a lake"}, "normalisation": law}
    samples = run.root / "data" / "samples" / "val"
    shards = []
    for number in range(real):
        path = shard_of(
            samples / f"{number:06d}.tar",
            speckle_codes(number, 24, px=px),
            lambda n: facts | {"scene_id": f"s{n % 12}", "flight_line": f"f{n % 12}"},
        )
        shards.append((captioned(path, "a lake"), 24, {"split": "val"}))
    seal(run, "caption", shards)
    made = []
    for number in range(2):
        path = shard_of(
            run.root / "data" / "synthetic" / f"{number:06d}.tar",
            speckle_codes(50 + number, 6, px=px),
            lambda n: {"synthetic": True, "prompt": "a lake", "seed": n, "normalisation": law},
        )
        made.append((captioned(path, "a lake"), 6, {}))
    seal(run, "generate", made)
    seal(run, "train", [(run.root / "train" / "step_00000004", 0, {})])
    (run.stage("train") / "metrics.jsonl").touch()
    seal_export(run, model)
    run.stage("export").mkdir(exist_ok=True)
    (run.stage("export") / "model").symlink_to(model)
    return run


def masters_and_a_model_without(run: RunDir) -> None:
    """Give every tile and image of the run a 16-bit master, and seal `compare` without them."""
    for folder in ("samples/val", "synthetic"):
        for path in sorted((run.root / "data" / folder).glob("*.tar")):
            samples = [
                Sample(s.key, {**s.members, **_master(s, levels=folder == "synthetic")})
                for s in read_shard(path)
            ]
            write_shard(path, samples)
    path = run.root / "data" / "compare" / "base" / "000000.tar"
    shard_of(path, speckle_codes(90, 6, px=32), {"synthetic": True, "prompt": "a lake", "seed": 1})
    seal(run, "compare", [(captioned(path, "a lake"), 6, {"set": "base"})])


def _master(sample: Sample, levels: bool) -> dict[str, bytes]:
    codes = decode_gray8(sample.members["sar.png"]).astype(np.uint16)
    facts = {"master_law": "level"} if levels else {"master_scale": 1 / 255 / 257}
    return {
        "sar16.npy": encode_array(codes * np.uint16(257)),
        "meta.json": encode_json({**sample.meta, **facts}),
    }
