"""A shard of images while it is made: what the status of its stage shows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from line_runs import make_tiny_model, seal_export, tiny_run

from hpc.job import shard_progress
from hpc.job.pipeline import ensure_plan
from hpc.observe.state import stage_state
from hpc.observe.under_way import UnderWay
from hpc.store.lease import lease
from hpc.store.rundir import RunDir
from sarhpc.stages.generate import make_corpus_shard
from sarhpc.stages.registry import stage_named
from sarhpc.stages.run_config import load_run_config

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    model = make_tiny_model(tmp_path / "model")
    words = ["generate.images=48", "generate.prompts=[a lake]", "generate.shard_samples=24"]
    run = tiny_run(tmp_path / "run", model, words)
    seal_export(run, model)
    return run


def test_images_of_a_shard_under_way_are_shown_with_their_rate_per_core_hour(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_progress, "WRITE_EVERY_S", 0.0)
    stage = stage_named(load_run_config(run), "generate")
    first = ensure_plan(run, stage).shards[0]
    seen: list[UnderWay] = []
    left: list[float] = []
    making = threading.Thread(target=make_corpus_shard, args=(run, first))
    with lease(run.stage("generate") / ".lease-0.json"):
        making.start()
        while making.is_alive():
            state = stage_state(run, stage)
            if state.under_way is not None and state.left_s is not None:
                seen.append(state.under_way)
                left.append(state.left_s)
        making.join()
        assert stage_state(run, stage).under_way is None, "it has ended"
    assert seen
    counts = [found.done for found in seen]
    assert counts == sorted(counts)
    assert all(1 <= count <= 24 for count in counts)
    assert {(found.shards, found.goal, found.gpus, found.cores) for found in seen} == {
        (1, 24, 0, 1)
    }
    last = seen[-1]
    assert last.per_core_hour == pytest.approx(3600 * last.per_s)
    # Two shards of 24 images at the rate of this one.
    assert left[-1] == pytest.approx((48 - last.done) / last.per_s, rel=0.01)
