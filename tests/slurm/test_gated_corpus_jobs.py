"""A corpus behind a gate, made by an array whose processes are killed at random."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from pathlib import Path

import psutil
import pytest
from chain_runs import sarhpc, write_profile
from gated_runs import gated_run, make_corpus, real_tiles
from line_runs import make_tiny_model, shard_digests
from mini_slurm import MiniSlurm
from soak_faults import Scene, kill_batch_script, kill_job, kill_process, preempt

from hpc.publish import digest_file
from hpc.store.rundir import RunDir
from sarhpc.corpus.index import read_index
from sarhpc.shards.reader import read_shard

FAULTS = (kill_process, kill_batch_script, kill_job, preempt)


def supervisor(cluster: MiniSlurm, run: RunDir) -> psutil.Popen:
    command = [sys.executable, "-m", "sarhpc.cli", "supervise", str(run.root), "--every", "2"]
    with (run.root.parent / "supervise.log").open("ab") as log:
        return psutil.Popen(command, env=cluster.env, stdout=log, stderr=log)


def disturbed(
    cluster: MiniSlurm, run: RunDir, faults: int, draw: random.Random, most_s: float
) -> int:
    """Kill and preempt at random while the corpus is made; returns how often."""
    ledger, done, until = run.ledger("generate"), 0, time.monotonic() + most_s
    watching = supervisor(cluster, run)
    try:
        while not ledger.sealed:
            assert time.monotonic() < until, (run.root.parent / "supervise.log").read_text()[-3000:]
            before = len(ledger.recorded_ids())
            pause = time.monotonic() + draw.uniform(0, 4)
            # A kill needs progress since the last one: an array that makes none is given up.
            while not ledger.sealed and (
                len(ledger.recorded_ids()) <= before or time.monotonic() < pause
            ):
                assert time.monotonic() < until
                time.sleep(0.2)
            if done < faults and not ledger.sealed:
                done += draw.choice(FAULTS)(Scene(cluster, run.root, draw, watching)) is not None
        watching.wait(timeout=120)
    finally:
        if watching.is_running():
            watching.kill()
    return done


def assert_rows_match(run: RunDir) -> int:
    """Each row of the index is of the bytes and the metadata of its sample; the number of rows."""
    root, rows = run.root / "data/synthetic", 0
    metas = {
        sample.key: sample.meta
        for record in run.ledger("generate").records().values()
        for sample in read_shard(Path(record.path))
    }
    for row in read_index(root / "index.parquet"):
        with (root / row["shard"]).open("rb") as file:
            file.seek(row["offset"])
            png = file.read(row["size"])
        meta = metas.pop(row["key"])
        assert hashlib.sha256(png).hexdigest() == row["sha256"]
        assert (row["prompt"], row["seed"], row["draw"], row["verdict"]) == (
            meta["prompt"], meta["seed"], meta["gate"]["draw"], "accepted",
        )  # fmt: skip
        rows += 1
    assert metas == {}
    return rows


def files(run: RunDir) -> dict[str, str]:
    """Digest of each quarantine shard and of what describes the corpus.

    A killed writer leaves a hidden temporary file, which is removed once it is an hour old.
    """
    root = run.root / "data"
    paths = [*(root / "quarantine").glob("[!.]*"), *(root / "synthetic").glob("[!.]*")]
    return {str(path.relative_to(root)): digest_file(path).sha256 for path in paths}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "per_shard", "faults"),
    [
        pytest.param(300, 25, 3, marks=pytest.mark.timeout(1800)),
        pytest.param(10_000, 50, 30, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_a_gated_corpus_killed_at_random_is_complete_and_has_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, cluster: MiniSlurm, images: int, per_shard: int, faults: int
) -> None:
    model = make_tiny_model(tmp_path / "model")
    tiles = real_tiles(tmp_path / "tiles", model)
    size = (f"generate.images={images}", f"generate.shard_samples={per_shard}")
    calm = gated_run(tmp_path / "calm/run", model, tiles, *size)
    make_corpus(calm)
    run = gated_run(tmp_path / "killed/run", model, tiles, *size)
    profile = write_profile(tmp_path)
    profile.write_text(profile.read_text().replace("{elements: 2,", "{elements: 3,"))
    done = sarhpc(cluster, "generate", run.root, "--profile", profile)
    assert done.returncode == 0, done.stderr
    begun = time.monotonic()
    killed = disturbed(cluster, run, faults, random.Random(images), 6 * images + 600)
    reported = json.loads((run.root / "data/synthetic/gate.json").read_text())
    print(
        f"{images} images in {time.monotonic() - begun:.0f} s with {killed} faults, "
        f"{reported['quarantined']} of {reported['draws']} draws quarantined, "
        f"{reported['unmet']} unmet"
    )
    assert killed >= min(faults, 2)
    assert shard_digests(run, "generate") == shard_digests(calm, "generate")
    assert files(run) == files(calm)
    assert 0.01 < reported["quarantined"] / reported["draws"] < 0.15
    assert assert_rows_match(run) == reported["accepted"] == images - reported["unmet"]
    assert reported["unmet"] <= images / 100
