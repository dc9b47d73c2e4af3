"""What `status`, `logs` and `verify` say of the records of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from line_runs import seal_export
from stage_verbs import say, seal

from hpc.job.pipeline import Stage, Work, run_stage
from hpc.store.ledger import Failure, Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from hpc.store.tree import digest_tree


def test_status_of_fresh_partly_written_and_sealed_stages(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(run, "simulate")
    plan = make_plan("tile", [{}] * 3)
    publish_plan(plan, run.plan_file("tile"))
    ledger = run.ledger("tile")
    ledger.publish(Record("000000", plan.id, "/d", 2, 1, "a", 0, "h", now(), now()))
    ledger.fail(Failure("000001", plan.id, 0, 1, "DataError", "torn at byte 17", now()))
    code, out, _ = say(capsys, "status", run.root, "--json")
    assert code == 0
    stages = {stage["name"]: stage for stage in json.loads(out)["stages"]}
    simulate, tile = stages["simulate"], stages["tile"]
    assert (simulate["state"], simulate["samples"], simulate["rejected"]) == ("COMPLETE", 6, 2)
    assert (tile["state"], tile["done"], tile["planned"]) == ("FAILED", 1, 3)
    assert (tile["samples"], tile["failed"]) == (2, 1)
    assert stages["train"]["state"] == "WAITING"
    assert "1/3" in say(capsys, "status", run.root)[1]
    code, out, _ = say(capsys, "logs", run.root, "--failed")
    assert (code, out) == (0, "tile 000001 tries=1 DataError: torn at byte 17\n")


def test_logs_tell_how_the_last_attempt_broke(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, "logs", run.root)[1] == "no logs yet\n"
    assert say(capsys, "logs", run.root, "--failed")[1] == "no shard failed\n"

    def breaks(work: Work) -> None:
        raise OSError("the card is gone")

    with pytest.raises(OSError, match="card"):
        run_stage(run, Stage("simulate", (), lambda _: make_plan("simulate", [{}]), breaks))
    code, out, _ = say(capsys, "logs", run.root, "--failed")
    assert (code, "attempt 0 exit=1: OSError: the card is gone" in out) == (0, True)
    run.logs("").mkdir()
    (run.logs("") / "1_log.err").write_text("".join(f"line {n}\n" for n in range(9)))
    assert say(capsys, "logs", run.root, "--tail", "2")[1].endswith("line 7\nline 8\n")
    assert "line" not in say(capsys, "logs", run.root, "--tail", "0")[1]


def test_verify_finds_changed_missing_and_strange_artefacts(
    run: RunDir, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = seal(run, "simulate")
    seal_export(run, model)
    assert say(capsys, "verify", run.root, "--deep")[:2] == (0, "3 artefacts checked, 0 wrong\n")

    content = first.read_bytes()
    first.write_bytes(content[:-1] + b"x")
    assert say(capsys, "verify", run.root)[0] == 0, "sizes alone do not tell"
    code, out, _ = say(capsys, "verify", run.root, "--deep")
    assert code == 4
    assert f"simulate 000000: {first} has the right size and the wrong content" in out

    first.write_bytes(content[:-1])
    second.unlink()
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    with (model / "unet" / "diffusion_pytorch_model.safetensors").open("ab") as weights:
        weights.write(b" and more")
    code, out, err = say(capsys, "verify", run.root)
    assert code == 4
    assert "has 59 bytes, its record says 60" in out
    assert f"{second} is missing" in out
    assert f"export 000000: {model} holds {size + 9} bytes, its record says {size}" in out
    assert out.endswith("3 artefacts checked, 3 wrong\n")
    assert "manifest.jsonl" in err


def test_verify_finds_a_record_of_another_plan(
    run: RunDir, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_plan(make_plan("export", [{}]), run.plan_file("export"))
    digest = digest_tree(model)
    run.ledger("export").publish(
        Record("000000", "elsewhere", str(model), 0, digest.bytes, digest.sha256, 0, "h", "", "")
    )
    code, out, _ = say(capsys, "verify", run.root)
    assert (code, "belongs to plan elsewhere" in out) == (4, True)
