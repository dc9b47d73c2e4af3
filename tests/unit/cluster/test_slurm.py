"""Questions to Slurm against fake commands: sites that lack something, controllers away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, accounted, queued

from hpc.cluster import slurm
from hpc.cluster.slurm_text import (
    expand_hosts,
    gpu_count,
    gpu_type,
    parse_accounting,
    plain_id,
    rows,
    seconds,
    slurm_time,
)

ODD = "a|b; $(touch owned) 'quoted' \"twice\"\nnext line\tünï"


def test_queue_reads_every_field_of_a_running_and_a_waiting_job(fake_slurm: FakeSlurm) -> None:
    waiting = queued("12_[3-9%2]", "PENDING", TimeLeft="UNLIMITED", Reason="JobArrayTaskLimit")
    running = queued("11", TimeLeft="1-02:03:04", RestartCnt="2", NodeList="n[1-2]")
    fake_slurm.change(jobs=[running, waiting])
    first, second = slurm.queue(["11", "12"])
    assert (first.id, first.state, first.nodes, first.restarts) == ("11", "RUNNING", "n[1-2]", 2)
    assert first.left_s == 93784
    assert first.elapsed_s == 90
    assert (second.job_id, second.reason, second.nodes) == ("12", "JobArrayTaskLimit", "")
    assert second.left_s is None
    assert len(fake_slurm.calls()) == 1


def test_odd_names_and_comments_arrive_as_text(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("11", Name=ODD, Comment=ODD), queued("12")])
    found = slurm.queue()
    assert [job.id for job in found] == ["11", "12"]
    assert (found[0].name, found[0].comment) == (ODD, ODD)
    assert found[1].comment == ""


def test_ids_unknown_to_slurm_are_absent(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("11")])
    assert [job.id for job in slurm.queue(["11", "999"])] == ["11"]
    assert slurm.queue(["999"]) == []
    assert slurm.queue([]) == []


def test_ended_jobs_show_only_when_asked_for(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("11", "FAILED"), queued("12")])
    assert [job.id for job in slurm.queue(["11", "12"])] == ["12"]
    assert [job.ended for job in slurm.queue(["11", "12"], ended=True)] == [True, False]


def test_more_ids_than_an_argument_holds_are_still_one_question(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("30001"), queued("5")])
    assert [job.id for job in slurm.queue([str(n) for n in range(10_000, 40_000)])] == ["30001"]
    assert len(fake_slurm.calls()) == 1


def test_a_job_is_found_by_the_token_in_its_comment(fake_slurm: FakeSlurm) -> None:
    ours = queued("11", "COMPLETED", Comment="sarhpc:run:tile:beef")
    fake_slurm.change(jobs=[ours, queued("12", Comment="sarhpc:run:tile:beefy")])
    assert [job.id for job in slurm.find_by_comment("beef")] == ["11"]
    assert [job.id for job in slurm.find_by_comment("sarhpc:run:tile:beefy")] == ["12"]


def test_defaults_the_user_set_for_the_commands_do_not_change_the_answer(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "true")
    fake_slurm.change(jobs=[queued("11")])
    assert len(slurm.queue()) == 1
    slurm.cancel(["11"])
    assert slurm.queue() == []


def test_a_controller_that_comes_back_is_asked_again_and_counted(fake_slurm: FakeSlurm) -> None:
    slurm.COUNTS.clear()
    fake_slurm.change(jobs=[queued("11")], down=3)
    assert len(slurm.queue()) == 1
    assert slurm.COUNTS == {"squeue": 4}
    fake_slurm.change(down=2)
    slurm.requeue("11")
    assert slurm.queue()[0].state == "PENDING"
    fake_slurm.change(down=2)
    slurm.cancel(["11"])
    assert slurm.queue() == []


def test_a_controller_that_stays_away_is_a_transient_error_with_a_next_step(
    fake_slurm: FakeSlurm,
) -> None:
    fake_slurm.change(down=100)
    with pytest.raises(slurm.SlurmUnavailableError, match=r"3 attempts.*scontrol ping") as caught:
        slurm.queue(retries=2)
    assert caught.value.exit_code == 75
    assert len(fake_slurm.calls()) == 3


def test_what_must_not_be_done_twice_is_tried_once(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(down=1)
    with pytest.raises(slurm.SlurmUnavailableError):
        slurm.run_command(["sbatch", "--parsable"], retries=0, input_text="#!/bin/sh\n")
    assert len(fake_slurm.calls("sbatch")) == 1


def test_a_command_that_hangs_is_given_up(fake_slurm: FakeSlurm) -> None:
    (fake_slurm.bin / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(slurm.SlurmUnavailableError, match="no answer in"):
        slurm.run_command(["squeue"], retries=0, timeout_s=0.2)


def test_a_refusal_is_told_in_slurms_words_and_not_repeated(fake_slurm: FakeSlurm) -> None:
    with pytest.raises(slurm.SlurmRefusedError, match="Invalid job id specified for job 999"):
        slurm.update("999", TimeLimit=10)
    assert len(fake_slurm.calls()) == 1


def test_update_passes_every_field(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("11")])
    slurm.update("11", TimeLimit=10, Comment=ODD)
    words = ["scontrol", "update", "JobId=11", "TimeLimit=10", f"Comment={ODD}"]
    assert fake_slurm.calls() == [words]


def test_requeue_of_a_job_that_waits_already_is_no_error(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(jobs=[queued("11", "PENDING")])
    slurm.requeue("11")
    assert fake_slurm.calls() == [["scontrol", "requeue", "11"]]
    assert [job["State"] for job in fake_slurm.state["jobs"]] == ["PENDING"]


def test_without_scontrol_a_requeue_says_what_to_set(fake_site: Callable[..., FakeSlurm]) -> None:
    fake_site(without=("scontrol",)).change(jobs=[queued("11")])
    with pytest.raises(slurm.SlurmMissingError, match="requeue: chain"):
        slurm.requeue("11")
    assert slurm.time_left_s("11") == 3510
    assert slurm.limits() == slurm.Limits()
    assert slurm.cluster_name() is None
    assert [p.preempt_mode for p in slurm.partitions()] == []


def test_time_left_comes_from_scontrol_where_squeue_is_missing(
    fake_site: Callable[..., FakeSlurm],
) -> None:
    fake_site(without=("squeue",)).change(jobs=[queued("11")])
    assert slurm.time_left_s("11") == 3510
    assert not slurm.is_available()


def test_time_left_is_none_without_a_limit_or_without_slurm(
    fake_site: Callable[..., FakeSlurm],
) -> None:
    site = fake_site(without=("scontrol",))
    site.change(jobs=[queued("11", TimeLeft="UNLIMITED"), queued("12", "PENDING")])
    assert slurm.time_left_s("11") is None
    assert slurm.time_left_s("12") is None
    assert slurm.time_left_s("13") is None
    site.change(down=100)
    assert slurm.time_left_s("11") is None


def test_accounting_keeps_every_attempt_of_every_element(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(
        accounted=[
            accounted("11", "PREEMPTED"),
            accounted("11", "CANCELLED by 0", ElapsedRaw="5", NodeList="None assigned"),
            accounted("12_3", AllocTRES="cpu=8,gres/gpu:a100=4,gres/gpu=4", End="Unknown"),
            accounted("13"),
        ]
    )
    found = slurm.accounting(["11", "12"], since="2026-01-01T00:00:00+00:00")
    assert [(a.job_id, a.state, a.elapsed_s, a.gpus) for a in found] == [
        ("11", "PREEMPTED", 60, 2),
        ("11", "CANCELLED", 5, 2),
        ("12", "COMPLETED", 60, 4),
    ]
    assert found[1].nodes == ""
    assert found[2].ended == ""
    assert len(fake_slurm.calls()) == 1


@pytest.mark.parametrize("lack", ["disabled", "missing", "down"])
def test_without_accounting_there_are_no_attempts_and_the_log_says_so(
    lack: str, fake_site: Callable[..., FakeSlurm], caplog: pytest.LogCaptureFixture
) -> None:
    site = fake_site(without=("sacct",) if lack == "missing" else ())
    if lack == "disabled":
        site.configure(AccountingStorageType="accounting_storage/none")
    site.change(accounted=[accounted("11")], down=100 if lack == "down" else 0)
    assert slurm.accounting(["11"], since="2026-01-01T00:00:00") == []
    assert "no accounting" in caplog.text


def test_signal_and_cancel_reach_every_job_in_one_call(fake_slurm: FakeSlurm) -> None:
    slurm.signal(["11", "12_3"], "USR2")
    slurm.cancel(["11", "12_[3-9:2%1]"])
    slurm.cancel([])
    assert fake_slurm.calls() == [
        ["scancel", "--signal=USR2", "11", "12_3"],
        ["scancel", "11", "12_[3,5,7,9]"],
    ]


def test_limits_are_those_of_the_cluster_and_of_the_user(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(
        associations=["physics|500|normal,long", "maths||normal"],
        qos=["normal|300", "debug|2", "long|"],
    )
    told = slurm.limits()
    assert (told.max_array_size, told.max_jobs, told.kill_wait_s) == (1001, 300, 30)
    assert told.sends_user_signal
    assert told.cred_expire_s == 120
    fake_slurm.change(qos=[])
    assert slurm.limits("physics").max_jobs == 500
    assert slurm.limits("maths").max_jobs is None


def test_a_site_without_user_signals_and_accounting_says_so(
    fake_site: Callable[..., FakeSlurm],
) -> None:
    site = fake_site(without=("sacctmgr",))
    site.configure(SlurmctldParameters="(null)", AccountingStorageTRES="cpu,mem,node")
    told = slurm.limits()
    assert not told.sends_user_signal
    assert told.accounting
    assert not told.accounts_gpus
    assert told.max_jobs is None
    site.configure(AccountingStorageType="accounting_storage/none")
    assert not slurm.limits().accounting


def test_partitions_keep_their_kinds_of_node_and_their_preemption(fake_slurm: FakeSlurm) -> None:
    kind = {"a": "up", "l": "1-00:00:00", "c": "64+", "m": "480000", "f": "(null)", "p": "10"}
    fake_slurm.change(
        partitions=[
            {**kind, "P": "gpu*", "D": "2", "G": "gpu:a100:4(S:0-1)", "f": "a100,nvme"},
            {**kind, "P": "gpu*", "D": "6", "G": "gpu:v100:2,nvme:1"},
            {**kind, "P": "cpu", "D": "9", "G": "(null)", "l": "infinite", "a": "down"},
        ],
        partition_details=["PartitionName=gpu PriorityTier=1 PreemptMode=REQUEUE GraceTime=60"],
    )
    gpu, cpu = slurm.partitions()
    assert [(k.count, k.gpus, k.gpu_type) for k in gpu.kinds] == [(2, 4, "a100"), (6, 2, "v100")]
    assert (gpu.default, gpu.max_time_s, gpu.gpus_per_node) == (True, 86400, 4)
    assert (gpu.preempt_mode, gpu.grace_s, gpu.priority_tier) == ("REQUEUE", 60, 1)
    assert (cpu.default, cpu.up, cpu.max_time_s, cpu.preempt_mode) == (False, False, None, None)
    assert cpu.kinds[0].cpus == 64


def test_nodes_say_whether_jobs_can_start_there(fake_slurm: FakeSlurm) -> None:
    fake_slurm.change(
        nodes=[
            {"N": "n1", "T": "idle", "E": "none"},
            {"N": "n1", "T": "idle", "E": "none"},
            {"N": "n2", "T": "drained", "E": "bad | disk"},
            {"N": "n3", "T": "idle*", "E": "Not responding"},
        ]
    )
    found = slurm.nodes()
    assert [(n.name, n.usable, n.reason) for n in found] == [
        ("n1", True, ""),
        ("n2", False, "bad | disk"),
        ("n3", False, "Not responding"),
    ]


def test_commands_take_words_as_they_are(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    slurm.cancel([f"$(touch {owned})", f"; touch {owned}"])
    assert fake_slurm.calls()[0][1:] == [f"$(touch {owned})", f"; touch {owned}"]
    assert not owned.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:02", 2),
        ("10:00", 600),
        ("1:00:00", 3600),
        ("364-23:59:58", 31535998),
        ("UNLIMITED", None),
        ("infinite", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_times_are_read_in_every_form(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "count", "kind"),
    [
        ("gpu:2", 2, ""),
        ("gpu:a100:4", 4, "a100"),
        ("gpu:a100:4(S:0-1),nvme:1", 4, "a100"),
        ("gpu:a100_1g.5gb:4,gpu:a100:2", 6, "a100_1g.5gb"),
        ("billing=1,cpu=1,node=1", 0, ""),
        ("cpu=8,gres/gpu=4,node=2", 4, ""),
        ("gres/gpu:a100=3,gres/gpu:v100=1", 4, ""),
        ("gres/gpu:a100=4,gres/gpu=4", 4, ""),
        ("(null)", 0, ""),
    ],
)
def test_gpus_are_counted_in_every_form(text: str, count: int, kind: str) -> None:
    assert gpu_count(text) == count
    assert gpu_type(text) == kind


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("jzxh[001-002,010],login", ["jzxh001", "jzxh002", "jzxh010", "login"]),
        ("r1n[08-11]-ib", ["r1n08-ib", "r1n09-ib", "r1n10-ib", "r1n11-ib"]),
    ],
)
def test_host_lists_are_expanded(text: str, names: list[str]) -> None:
    assert expand_hosts(text) == names


def test_ids_are_told_as_scancel_takes_them() -> None:
    assert plain_id("17") == "17"
    assert plain_id("17_4") == "17_4"
    assert plain_id("17_[3-5,9]") == "17_[3-5,9]"
    assert plain_id("17_[3-5,9%2]") == "17_[3,4,5,9]"
    assert plain_id("17_[1-9:4]") == "17_[1,5,9]"


def test_a_line_break_in_a_name_does_not_hide_an_attempt() -> None:
    row = "\x1f".join(["9", "COMPLETED", "3", "", "1", "n1", "0:0", "a", "b", "two\nlines", ""])
    found = parse_accounting(f"{row}\n{row}\n")
    assert [(a.name, a.elapsed_s) for a in found] == [("two lines", 3)] * 2


def test_rows_that_are_no_rows_are_passed_over() -> None:
    assert list(rows("noise\x1e\na\x1fb\x1fc\x1e\n", 2)) == [["a", "b\x1fc"]]


def test_moments_are_told_in_this_machines_time() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    expected = moment.astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    assert slurm_time("2026-01-01T12:00:00+00:00") == expected
    assert slurm_time("2026-01-01T12:00:00") == "2026-01-01T12:00:00"


def test_a_missing_command_is_told_with_what_to_do(fake_site: Callable[..., FakeSlurm]) -> None:
    fake_site(without=("squeue",))
    with pytest.raises(slurm.SlurmMissingError, match=r"no squeue on this machine.*--executor"):
        slurm.queue()
