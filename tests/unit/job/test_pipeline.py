from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from slowness import slowness

from hpc.errors import (
    ConfigError,
    FingerprintMismatchError,
    HpcError,
    IncompleteError,
    RunInUseError,
    VerificationError,
)
from hpc.job.pipeline import Stage, Work, run_stage, unsealed_stages
from hpc.observe.state import StageState, stage_state
from hpc.publish import publish_bytes
from hpc.store.attempts import read_attempts
from hpc.store.lease import live_holder
from hpc.store.ledger import RECORD_SCHEMA, Failure, Ledger, Record
from hpc.store.plan import Plan, make_plan, planned_shards, publish_plan, read_plan
from hpc.store.rundir import RunDir, create_run, now, open_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path / "run", "a: 1\n", "f00d")


def record(plan_id: str, shard: str, samples: int = 2) -> Record:
    return Record(shard, plan_id, f"/d/{shard}.tar", samples, 9, "aa", 0, "h", now(), now())


def stand_records(ledger: Ledger, plan: Plan) -> None:
    """Records of all shards, written without the care (and the time) of publishing."""
    for shard in plan.shards:
        path = ledger.directory / "records" / shard.id[:3] / f"{shard.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": RECORD_SCHEMA, **vars(record(plan.id, shard.id))}))


def publish_all(work: Work) -> None:
    for shard in work.ledger.missing(work.plan):
        publish_bytes(work.run.root / "data" / f"{shard.id}.bin", shard.id.encode())
        work.ledger.publish(record(work.plan.id, shard.id))


def stage(name: str = "tile", needs: tuple[str, ...] = (), work=publish_all, n: int = 3) -> Stage:
    return Stage(name, needs, lambda _: make_plan(name, [{"n": i} for i in range(n)]), work)


def test_a_run_is_private_and_frozen(run: RunDir) -> None:
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o700
    assert create_run(run.root, "a: 1\n", "f00d").info == run.info
    with pytest.raises(FingerprintMismatchError, match="never changes"):
        create_run(run.root, "a: 2\n", "beef")
    assert run.config_file.read_text() == "a: 1\n"


def test_a_strange_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not empty and not a run"):
        create_run(tmp_path, "", "f")
    with pytest.raises(ConfigError, match="sarhpc init"):
        open_run(tmp_path)


def test_plan_id_follows_content_and_a_plan_never_changes(tmp_path: Path) -> None:
    plan = make_plan("tile", [{"scene": "a"}, {"scene": "b"}], fingerprint="f")
    publish_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").id == plan.id
    other = make_plan("tile", [{"scene": "a"}], fingerprint="f")
    assert other.id != plan.id
    with pytest.raises(FingerprintMismatchError, match="never changes"):
        publish_plan(other, tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text('{"schema": "x"')
    with pytest.raises(VerificationError):
        read_plan(tmp_path / "plan.json")


def test_sealing_compacts_records_and_refuses_gaps(tmp_path: Path) -> None:
    plan = make_plan("tile", [{}] * 3)
    ledger = Ledger(tmp_path)
    ledger.publish(record(plan.id, "000000"))
    ledger.publish(record(plan.id, "000002"))
    with pytest.raises(IncompleteError, match="first 000001"):
        ledger.seal(plan)
    ledger.publish(record(plan.id, "000001"))
    ledger.seal(plan)
    assert not (tmp_path / "records").exists()
    assert list(Ledger(tmp_path).records()) == ["000000", "000001", "000002"]
    assert ledger.missing(plan) == []


def test_a_stale_record_of_another_plan_is_not_sealed(tmp_path: Path) -> None:
    plan = make_plan("tile", [{}])
    ledger = Ledger(tmp_path)
    ledger.publish(record("someotherplan", "000000"))
    with pytest.raises(VerificationError, match="someotherplan"):
        ledger.seal(plan)


def test_a_failure_counts_tries_until_the_record_comes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    failure = Failure("000001", "p", 0, 1, "DataError", "torn", now())
    ledger.fail(failure)
    ledger.fail(failure)
    assert ledger.failures()["000001"].tries == 2
    ledger.publish(record("p", "000001"))
    assert ledger.failures() == {}


def test_a_stage_runs_once_and_then_has_nothing_to_do(run: RunDir) -> None:
    assert "3 of 3" in run_stage(run, stage())
    assert "nothing to do" in run_stage(run, stage())
    state = stage_state(run, stage())
    assert (state.state, state.done, state.planned, state.samples) == ("COMPLETE", 3, 3, 6)
    assert [row.get("reason") for row in read_attempts(run.stage("tile"))] == [None, "done"]


def test_downstream_waits_for_the_seal(run: RunDir) -> None:
    first, second = stage("tile"), stage("caption", needs=("tile",))
    with pytest.raises(IncompleteError, match="needs tile"):
        run_stage(run, second)
    assert stage_state(run, second).state == "WAITING"
    run_stage(run, first)
    assert [s.name for s in unsealed_stages(run, [first, second])] == ["caption"]
    assert stage_state(run, second).state == "READY"


def test_what_was_done_is_kept_when_work_breaks(run: RunDir) -> None:
    def breaks(work: Work) -> None:
        work.ledger.publish(record(work.plan.id, "000000"))
        raise HpcError("the roof fell in")

    with pytest.raises(HpcError, match="roof"):
        run_stage(run, stage(work=breaks))
    state = stage_state(run, stage())
    assert (state.state, state.done) == ("FAILED", 1)
    assert state.failure is not None
    assert "the roof fell in" in state.failure
    assert "2 of 3" in run_stage(run, stage())


def test_three_attempts_without_progress_end_the_loop(run: RunDir) -> None:
    def breaks(work: Work) -> None:
        raise HpcError("always")

    for _ in range(3):
        with pytest.raises(HpcError, match="always"):
            run_stage(run, stage(work=breaks))
    with pytest.raises(HpcError, match=r"no progress.*always"):
        run_stage(run, stage())
    assert "3 of 3" in run_stage(run, stage(), force=True)


def test_a_second_run_on_a_directory_in_use_is_refused(run: RunDir) -> None:
    path = run.stage("tile") / ".lease.json"
    code = (
        "import sys, time; from pathlib import Path; from hpc.store.lease import lease\n"
        f"with lease(Path({str(path)!r})):\n print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunInUseError, match=f"process {holder.pid}"):
            run_stage(run, stage())
        assert stage_state(run, stage()).state == "RUNNING"
    finally:
        holder.kill()
        holder.wait()
    assert live_holder(path) is None
    assert "3 of 3" in run_stage(run, stage())


def test_a_plan_mismatch_shows_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    publish_plan(make_plan("tile", [{"scene": "a"}, {"scene": "b"}], fingerprint="f"), path)
    before = path.read_bytes()
    with pytest.raises(FingerprintMismatchError) as error:
        publish_plan(make_plan("tile", [{"scene": "a"}, {"scene": "c"}], fingerprint="g"), path)
    assert "configuration: f -> g" in str(error.value)
    assert "shard 000001: {'scene': 'b'} -> {'scene': 'c'}" in str(error.value)
    assert path.read_bytes() == before


def test_shards_of_a_plan_are_counted_without_parsing_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert planned_shards(path) == 0
    plan = make_plan("tile", [{"text": '\n["000000",{}]'}] * 3, rejected={"x": '\n["y"'})
    publish_plan(plan, path)
    assert planned_shards(path) == 3
    assert read_plan(path) == plan


def test_a_termination_by_signal_is_written_as_such(run: RunDir) -> None:
    def is_terminated(work: Work) -> None:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        run_stage(run, stage(work=is_terminated))
    assert read_attempts(run.stage("tile"))[-1]["exit"] == 143


def test_other_ranks_do_not_wait_for_a_rank_that_only_seals(run: RunDir) -> None:
    def never(work: Work) -> None:
        raise AssertionError("a rank alone in a collective would hang")

    plan = make_plan("tile", [{"n": i} for i in range(3)])
    publish_plan(plan, run.plan_file("tile"))
    for shard in plan.shards:
        run.ledger("tile").publish(record(plan.id, shard.id))
    assert "nothing to do" in run_stage(run, stage(work=never), rank=1)
    assert "0 of 3" in run_stage(run, stage(work=never), rank=0)


def test_a_failure_left_beside_a_record_is_no_failure(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.publish(record("p", "000001"))
    ledger.fail(Failure("000001", "p", 0, 1, "DataError", "killed before it was removed", now()))
    assert ledger.failures() == {}


def test_sealing_sweeps_what_killed_writers_left(tmp_path: Path) -> None:
    plan, ledger = make_plan("tile", [{}]), Ledger(tmp_path)
    ledger.publish(record(plan.id, "000000"))
    litter = [tmp_path / ".plan.json.h.1.0.tmp", tmp_path / "failed" / ".000000.json.h.1.1.tmp"]
    (tmp_path / "failed").mkdir()
    for path in litter:
        path.write_text("torn")
        os.utime(path, (0, 0))
    (tmp_path / "records" / "000" / ".000000.json.h.1.2.tmp").write_text("torn")
    ledger.seal(plan)
    assert not any(path.exists() for path in litter)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failed", "manifest.jsonl"]
    # A crash between manifest and removal leaves records, which the next sealing takes away.
    (tmp_path / "records" / "000").mkdir(parents=True)
    ledger.seal(plan)
    assert not (tmp_path / "records").exists()


class LateReader(Ledger):
    """A reader that looks whether the stage is sealed just before another process seals it."""

    plan: Plan | None = None

    @property
    def sealed(self) -> bool:
        before = super().sealed
        if self.plan is not None:
            Ledger(self.directory).seal(self.plan)
        return before


@pytest.mark.parametrize("read", [Ledger.records, Ledger.recorded_ids])
def test_a_reader_during_sealing_finds_every_record(
    tmp_path: Path, read: Callable[[Ledger], Collection[str]]
) -> None:
    plan, reader = make_plan("tile", [{}] * 3), LateReader(tmp_path)
    stand_records(reader, plan)
    reader.plan = plan
    assert set(read(reader)) == {"000000", "000001", "000002"}


@pytest.mark.slow
def test_status_of_ten_thousand_shards_takes_less_than_a_second(run: RunDir) -> None:
    plan = make_plan("tile", [{"scene": f"s{n}", "tiles": [[n, n]] * 20} for n in range(10_000)])
    publish_plan(plan, run.plan_file("tile"))
    ledger = run.ledger("tile")
    stand_records(ledger, plan)

    def quickest() -> tuple[float, StageState]:
        seconds = []
        for _ in range(3):
            clock = time.process_time()
            state = stage_state(run, stage())
            seconds.append(time.process_time() - clock)
        return min(seconds), state

    seconds, state = quickest()
    assert seconds < slowness()
    assert (state.state, state.done, state.planned) == ("PARTIAL", 10_000, 10_000)
    ledger.seal(plan)
    seconds, state = quickest()
    assert seconds < slowness()
    assert (state.state, state.samples) == ("COMPLETE", 20_000)


def test_a_run_whose_creation_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "config.yaml").write_text("a: 0\n")
    (root / ".overrides.txt.h.1.0.tmp").write_text("")
    run = create_run(root, "a: 1\n", "f00d")
    assert run.config_file.read_text() == "a: 1\n"
