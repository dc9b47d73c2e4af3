"""Progress inside the shards under way: of live workers only, and what it says of the rest."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from queued_runs import STAGES, stand

from hpc.job import shard_progress
from hpc.job.shard_progress import FOLDER, Devices, ShardUnderWay, counted, remove_progress
from hpc.observe.state import stage_state
from hpc.observe.status import run_status
from hpc.observe.under_way import SILENT_S, shards_under_way
from hpc.observe.view import key_values, status_lines
from hpc.store.attempts import begin_attempt
from hpc.store.identity import own_identity
from hpc.store.lease import lease
from hpc.store.rundir import RunDir, create_run

ELSEWHERE = dataclasses.replace(own_identity(), boot_id="another kernel", job=None, restart=None)
HERE = own_identity()


@pytest.fixture(autouse=True)
def every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_progress, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(shard_progress, "_slow_workers", set())


def publish(stage: Path, name: str, shard: ShardUnderWay, age_s: float = 0.0) -> None:
    path = stage / FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(shard)))
    os.utime(path, (time.time() - age_s,) * 2)


def under_way(done: int, *, shard: str = "000001", gpus: int = 0, cores: int = 0) -> ShardUnderWay:
    return ShardUnderWay(shard, done, 64, 10.0, 1.0, Devices(gpus, cores), ELSEWHERE)


def test_samples_are_counted_while_they_are_made_and_the_file_goes_with_the_shard(
    tmp_path: Path,
) -> None:
    seen = []
    for _ in counted(range(3), tmp_path, "000007", 3, Devices(cores=2)):
        inside = shards_under_way(tmp_path, time.time(), ())
        assert inside is not None
        seen.append((inside.shards, inside.done, inside.goal, inside.cores))
    assert seen == [(1, 1, 3, 2), (1, 2, 3, 2), (1, 3, 3, 2)]
    assert list((tmp_path / FOLDER).iterdir()) == []
    remove_progress(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_fast_shard_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_progress, "WRITE_EVERY_S", 60.0)
    list(counted(range(1000), tmp_path, "000007", 1000))
    assert not (tmp_path / FOLDER).exists()


def test_an_error_in_the_shard_leaves_no_file(tmp_path: Path) -> None:
    for _ in counted(range(3), tmp_path, "000007"):
        break
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_rates_of_all_workers_make_samples_per_gpu_hour(tmp_path: Path) -> None:
    publish(tmp_path, "a-1", under_way(20, gpus=1))
    publish(tmp_path, "b-1", under_way(30, shard="000002", gpus=1))
    inside = shards_under_way(tmp_path, time.time(), ())
    assert inside is not None
    assert (inside.shards, inside.done, inside.goal, inside.gpus) == (2, 50, 128, 2)
    assert inside.per_s == pytest.approx(5.0)
    assert inside.per_gpu_hour == pytest.approx(9000)
    assert inside.per_core_hour is None
    assert inside.shards_per_s == pytest.approx(5.0 / 64)
    assert inside.to_json()["per_gpu_hour"] == 9000


def test_where_there_is_no_gpu_the_hours_are_of_cores(tmp_path: Path) -> None:
    publish(tmp_path, "a-1", under_way(20, cores=4))
    inside = shards_under_way(tmp_path, time.time(), ())
    assert inside is not None
    assert (inside.per_gpu_hour, inside.per_core_hour) == (None, pytest.approx(1800))


def test_a_finished_shard_and_a_second_worker_on_one_count_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "a-1", under_way(20))
    publish(tmp_path, "b-1", under_way(30))
    publish(tmp_path, "c-1", under_way(60, shard="000002"))
    inside = shards_under_way(tmp_path, time.time(), {"000002"})
    assert inside is not None
    assert (inside.shards, inside.done) == (1, 30)


@pytest.mark.parametrize(
    ("age_s", "pause_s", "counts"),
    [(SILENT_S / 2, 1.0, True), (2 * SILENT_S, 1.0, False), (2 * SILENT_S, SILENT_S, True)],
)
def test_a_worker_elsewhere_counts_until_it_is_silent_for_longer_than_its_samples_take(
    tmp_path: Path, age_s: float, pause_s: float, counts: bool
) -> None:
    publish(tmp_path, "a-1", dataclasses.replace(under_way(20), pause_s=pause_s), age_s)
    assert (shards_under_way(tmp_path, time.time(), ()) is not None) is counts


def test_a_live_worker_here_counts_however_slow_it_is(tmp_path: Path) -> None:
    publish(tmp_path, "a-1", dataclasses.replace(under_way(20), worker=HERE), 7200)
    assert shards_under_way(tmp_path, time.time(), ()) is not None


CODE = """
import sys, time
from pathlib import Path
from hpc.job import shard_progress
shard_progress.WRITE_EVERY_S = 0.0
for item in shard_progress.counted(range(9), Path(sys.argv[1]), "000003", 9):
    print(item, flush=True)
    time.sleep(60)
"""


def test_a_killed_worker_counts_no_more_and_the_next_one_removes_its_file(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert shards_under_way(tmp_path, time.time(), ()) is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shards_under_way(tmp_path, time.time(), ()) is None
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    for _ in counted(range(1), tmp_path, "000004"):
        assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shard": 3}', "x" * 10_000])
def test_a_damaged_file_counts_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "a-1.json").write_text(text)
    assert shards_under_way(tmp_path, time.time(), ()) is None


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def test_the_status_shows_rate_and_remaining_time_of_the_workers_while_the_stage_is_held(
    run: RunDir,
) -> None:
    # An element that started a second ago after others had made shards for hours.
    stand(run, "tile", 10, 5)
    (run.stage("tile") / FOLDER).mkdir()
    publish(run.stage("tile"), "a-1", under_way(32, shard="000007", gpus=1))
    publish(run.stage("tile"), "b-1", under_way(32, shard="000008", gpus=1))
    assert stage_state(run, STAGES[0]).under_way is None, "nobody holds the stage"
    with lease(run.stage("tile") / ".lease-3.json"):
        begin_attempt(run.stage("tile"), 0, element=3)
        status = run_status(run, [STAGES[0]])
        found = status.stages[0].disk
        # 6.4 images/s make 0.1 shards/s; four whole shards are left, of two of them a half.
        assert found.per_s == pytest.approx(0.1)
        assert found.left_s == pytest.approx(40.0)
        row = " ".join(" ".join(line.text for line in status_lines(status)).split())
        assert "2 shards under way: 64/128 samples, 6.4/s, 11,520 per GPU-hour" in row
        assert " tile/samples_per_s=6.4 tile/shards_per_s=0.1 " in key_values(status)
        shown = json.loads(json.dumps(status.to_json()))["stages"][0]["under_way"]
    assert (shown["done"], shown["goal"], shown["per_gpu_hour"]) == (64, 128, 11520.0)
    assert stage_state(run, STAGES[0]).under_way is None
