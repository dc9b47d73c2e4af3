"""The folder of the attempts: whether one can be recorded, and what compaction leaves in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpc.store import attempts as attempts_module
from hpc.store.attempts import (
    begin_attempt,
    compact_attempts,
    element_attempts,
    end_attempt,
    read_attempts,
    recording_obstacle,
)


@pytest.mark.parametrize("name", [".", "attempts"])
def test_a_folder_that_takes_no_attempt_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    stage = tmp_path / "run" / "tile"
    broken = stage / name
    broken.parent.mkdir(parents=True)
    broken.write_text("a file")
    why = recording_obstacle(stage)
    assert why is not None
    assert why.startswith(f"{broken} is no writable folder")
    assert f"`sarhpc resume {stage.parent}`" in why


@pytest.mark.parametrize("mode", [0o500, 0o600])
def test_a_folder_that_cannot_be_written_or_entered_takes_none(tmp_path: Path, mode: int) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write and enter everywhere")
    begin_attempt(tmp_path, 0)
    assert recording_obstacle(tmp_path) is None
    (tmp_path / "attempts").chmod(mode)
    try:
        assert "attempts is no writable folder" in str(recording_obstacle(tmp_path))
    finally:
        (tmp_path / "attempts").chmod(0o700)


def test_nothing_is_in_the_way_of_folders_that_are_there_or_not_yet(tmp_path: Path) -> None:
    assert recording_obstacle(tmp_path / "not" / "yet") is None
    begin_attempt(tmp_path, 0)
    assert recording_obstacle(tmp_path) is None


def test_what_belongs_to_somebody_else_is_not_judged(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    (tmp_path / "attempts").write_text("a file")
    os.chown(tmp_path / "attempts", 12345, -1)
    assert recording_obstacle(tmp_path) is None


def test_compaction_removes_the_files_of_killed_writers_and_then_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_attempt(tmp_path, begin_attempt(tmp_path, 0), 1, 0, "done")
    folder = tmp_path / "attempts"
    monkeypatch.setattr("hpc.publish.file_system_time", lambda _: 10_000.0)
    for name, age_s in ((".young.tmp", 59.5), (".old.tmp", 60.0)):
        (folder / name).write_text("half")
        os.utime(folder / name, (10_000 - age_s, 10_000 - age_s))
    compact_attempts(tmp_path)
    assert [path.name for path in folder.iterdir()] == [".young.tmp"], "its writer may live"
    (folder / ".young.tmp").unlink()
    compact_attempts(tmp_path)
    assert not folder.exists()
    assert [row["attempt"] for row in read_attempts(tmp_path)] == [0, 0]


@pytest.mark.parametrize(("kept", "numbers"), [(2, [2]), (5, [2]), (9, [0, 1, 2])])
def test_each_element_keeps_its_share_of_the_newest_and_at_least_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, numbers: list[int]
) -> None:
    monkeypatch.setattr(attempts_module, "KEPT_SEALED", kept)
    for element in range(3):
        for _ in range(3):
            end_attempt(tmp_path, begin_attempt(tmp_path, 0, element=element), 1, 0, "done")
    compact_attempts(tmp_path)
    for element in range(3):
        rows = element_attempts(tmp_path, element)
        assert sorted({row["attempt"] for row in rows}) == numbers
