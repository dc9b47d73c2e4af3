"""The order of publishing: bytes on disk, then the name, then the directory that holds it.

A power cut shows whether a sync is missing, a killed process does not, so the calls are recorded.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from disk_calls import record_disk_calls

from hpc import publish
from hpc.errors import HpcError, TransientError


def test_a_file_is_durable_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_disk_calls(monkeypatch)
    target = tmp_path / "deep" / "deeper" / "a.bin"
    publish.publish_bytes(target, b"abc")
    written, renamed, listed = calls.found
    assert (written.name, renamed.name, listed.name) == ("fsync", "replace", "fsync")
    assert written.path == renamed.path
    assert written.size == 3, "all of it was flushed before the sync"
    assert renamed.target == target
    assert listed.path == target.parent


def test_a_directory_is_durable_to_its_last_file_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_disk_calls(monkeypatch)
    target = tmp_path / "d"
    with publish.publishing_directory(target) as staging:
        (staging / "deep" / "deeper").mkdir(parents=True)
        for name in ("a", "deep/b", "deep/deeper/c"):
            (staging / name).write_text(name)
    renamed = calls.at("replace", target)
    before = {call.path for call in calls.found[:renamed]}
    inside = ("", "a", "deep", "deep/b", "deep/deeper", "deep/deeper/c")
    assert before == {staging / name for name in inside}
    assert [call.path for call in calls.found[renamed + 1 :]] == [tmp_path]


def test_an_old_directory_steps_aside_by_name_and_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_text("1")
    calls = record_disk_calls(monkeypatch)
    with publish.publishing_directory(target) as staging:
        (staging / "new").write_text("2")
    moved = [call for call in calls.found if call.name != "fsync"]
    assert [call.name for call in moved] == ["replace", "replace", "rmtree"]
    assert (moved[0].path, moved[1].target) == (target, target)
    assert moved[2].path == moved[0].target
    assert calls.found[-1].path == tmp_path
    assert [path.name for path in target.iterdir()] == ["new"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk_or_quota_is_transient_and_publishes_nothing(
    tmp_path: Path, number: int, kind: str
) -> None:
    target = tmp_path / "x"
    block = publish.publishing if kind == "file" else publish.publishing_directory
    with (
        pytest.raises(TransientError, match=f"no space left while writing {target}"),
        block(target),
    ):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_other_errors_of_the_disk_are_not_called_a_full_one(tmp_path: Path, kind: str) -> None:
    block = publish.publishing if kind == "file" else publish.publishing_directory
    with pytest.raises(OSError, match="Input/output") as error, block(tmp_path / "x"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert error.value.errno == errno.EIO
    assert list(tmp_path.iterdir()) == []


def test_unfinished_names_are_hidden_beside_the_target_and_unique(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    names = [publish.temporary_path(target) for _ in range(3)]
    assert len(set(names)) == 3
    for path in names:
        assert path.parent == tmp_path
        assert path.name.startswith(".a.json.")
        assert path.name.endswith(".tmp")
        assert str(os.getpid()) in path.name


def test_json_is_written_one_way_only(tmp_path: Path) -> None:
    digest = publish.publish_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    text = '{\n "a": [\n  "\\u00e9"\n ],\n "b": 1\n}\n'
    assert (tmp_path / "a.json").read_text() == text
    assert digest.bytes == len(text)


def test_a_fault_hits_its_own_passage_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SARHPC_FAULT", "test.other:1:raise,test.second_time:2:raise")
    publish.fault("test.second_time")
    with pytest.raises(HpcError, match=r"fault injected at test\.second_time"):
        publish.fault("test.second_time")
    publish.fault("test.second_time")
    with pytest.raises(HpcError, match=r"test\.other"):
        publish.fault("test.other")


def test_sweeping_takes_old_files_and_directories_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".d.h.1.0.tmp").mkdir()
    (tmp_path / ".d.h.1.0.tmp" / "part").write_text("x")
    (tmp_path / ".f.h.1.1.tmp").write_text("x")
    kept = {"a.tmp", ".hidden", ".fresh.h.1.2.tmp"}
    for name in kept:
        (tmp_path / name).write_text("x")
    for name in (".d.h.1.0.tmp", ".f.h.1.1.tmp", "a.tmp", ".hidden"):
        os.utime(tmp_path / name, (0, 0))
    swept = publish.remove_stale_temporaries(tmp_path, older_than_s=3600)
    assert [path.name for path in swept] == [".d.h.1.0.tmp", ".f.h.1.1.tmp"]
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_directory_that_was_moved_aside_comes_back_unless_a_new_one_is_there(
    tmp_path: Path,
) -> None:
    for name in (".old.aside", ".both.aside", "both"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    publish.remove_stale_temporaries(tmp_path, older_than_s=0)
    assert (tmp_path / "old" / "from").read_text() == ".old.aside"
    assert (tmp_path / "both" / "from").read_text() == "both"
    assert not (tmp_path / ".old.aside").exists()


def test_an_empty_new_directory_is_not_replaced_by_the_old_one(tmp_path: Path) -> None:
    for name in (".d.aside", "d"):
        (tmp_path / name).mkdir()
    (tmp_path / ".d.aside" / "old").write_text("1")
    publish.remove_stale_temporaries(tmp_path, older_than_s=0)
    assert list((tmp_path / "d").iterdir()) == []


def test_a_leftover_that_another_sweep_has_just_taken_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / ".a.h.1.0.tmp"
    leftover.write_text("x")

    is_dir = Path.is_dir

    def taken(path: Path) -> bool:
        if path == leftover:
            os.unlink(path)
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", taken)
    assert publish.remove_stale_temporaries(tmp_path, older_than_s=-1) == [leftover]


def test_a_slow_disk_takes_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("SARHPC_FAULT", "test.slow:1:wait")
    publish.fault("test.slow")
    assert slept == [10.0]


POINTS = ("after_open", "before_fsync", "before_rename", "after_rename")
DIRECTORY_POINTS = ("before_rename", "between_renames", "after_rename")


@pytest.mark.parametrize(
    "point",
    [
        *(f"publish.{name}" for name in POINTS),
        *(f"publish.directory_{n}" for n in DIRECTORY_POINTS),
    ],
)
def test_every_point_of_publishing_can_be_made_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").write_text("1")
    monkeypatch.setattr(publish, "_passages", {})
    monkeypatch.setenv("SARHPC_FAULT", f"{point}:1:raise")
    with pytest.raises(HpcError, match=f"fault injected at {point}$"):
        if "directory" in point:
            with publish.publishing_directory(tmp_path / "d") as staging:
                (staging / "new").write_text("2")
        else:
            publish.publish_bytes(tmp_path / "a", b"1")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert [path.name for path in (tmp_path / "d").iterdir()] in (["old"], ["new"])


def test_missing_folders_above_a_directory_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "d"
    for text in ("1", "2"):
        with publish.publishing_directory(target) as staging:
            (staging / "x").write_text(text)
    assert (target / "x").read_text() == "2"


def test_a_directory_left_aside_is_not_in_the_way(tmp_path: Path) -> None:
    for name in ("d", ".d.aside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    with publish.publishing_directory(tmp_path / "d") as staging:
        (staging / "from").write_text("new")
    assert (tmp_path / "d" / "from").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_an_error_before_anything_was_written_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for block in (publish.publishing, publish.publishing_directory):
        with pytest.raises((FileExistsError, NotADirectoryError)), block(tmp_path / "file" / "x"):
            pass


def test_what_is_as_old_as_the_limit_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.publish.file_system_time", lambda _: 1000.0)
    for name, written in ((".a.h.1.0.tmp", 950), (".b.h.1.0.tmp", 951)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (written, written))
    assert [p.name for p in publish.remove_stale_temporaries(tmp_path, 50)] == [".a.h.1.0.tmp"]


def test_a_node_whose_clock_is_ahead_removes_no_file_of_a_live_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    with publish.publishing(tmp_path / "target") as file:
        file.write(b"x")
        assert publish.remove_stale_temporaries(tmp_path, 3600) == []
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_leftover_that_its_writer_renames_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".a.h.1.0.tmp").symlink_to(tmp_path / "gone")
    assert publish.remove_stale_temporaries(tmp_path, older_than_s=-1) == []
