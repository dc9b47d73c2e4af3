"""Files on the node's own disk: copied once, checked, and gone with their last reader."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from small_disk import fill, small_disk

from hpc.errors import VerificationError
from hpc.job import staging
from hpc.job.staging import Space, free_space, node_local, staged


@pytest.fixture
def files(tmp_path: Path) -> dict[Path, str]:
    """Two shards of the same name in two folders."""
    made = {}
    for split in ("train", "val"):
        path = tmp_path / "shared" / split / "000000.tar"
        path.parent.mkdir(parents=True)
        path.write_bytes(split.encode() * 1000)
        made[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return made


def test_copies_are_read_from_the_node_and_gone_at_the_end(
    files: dict[Path, str], tmp_path: Path
) -> None:
    local = tmp_path / "local"
    with staged(files, local) as paths:
        assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in files]
        assert all(local in path.parents for path in paths)
        assert paths[0].parent.stat().st_mode & 0o777 == 0o700
    assert list(local.iterdir()) == []


def test_the_processes_of_a_node_share_one_copy_until_the_last_has_left(
    files: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    local = tmp_path / "local"
    with staged(files, local) as first:
        written = [path.stat().st_mtime_ns for path in first]
        with staged(files, local) as second:
            assert second == first
        assert [path.stat().st_mtime_ns for path in first] == written
    assert list(local.iterdir()) == []


@pytest.mark.parametrize("job", ["12", "13"])
def test_a_folder_that_others_can_write_is_neither_used_nor_cleaned(
    job: str, files: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be guessed: a link of another user in it would have a file emptied."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with staged(files, tmp_path / "local") as paths:
        name = paths[0].parent.name
    planted = tmp_path / "local" / name.replace("12", job)
    planted.mkdir()
    planted.chmod(0o777)
    document = tmp_path / "thesis.tex"
    document.write_text("years of work")
    for lock in (".lock", ".copying"):
        (planted / lock).symlink_to(document)
    with staged(files, tmp_path / "local") as paths:
        assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in files]
        assert planted not in paths[0].parents
    assert document.read_text() == "years of work"
    assert sorted(planted.iterdir()) == [planted / ".copying", planted / ".lock"]


def test_what_a_killed_job_left_is_removed_and_a_living_ones_is_not(
    files: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local"
    code = (
        "import os, sys; from pathlib import Path; from hpc.job.staging import staged\n"
        "with staged({}, Path(sys.argv[1])):\n"
        "    print('staged', flush=True); sys.stdin.read(); os._exit(9)"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(local)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "staged\n"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    theirs = local / "sarhpc-staged-11-0"
    with staged(files, local):
        assert theirs.exists()
    other.communicate()
    assert theirs.exists()
    with staged(files, local):
        assert not theirs.exists()


@pytest.mark.parametrize("free", [Space(1000, 1 << 20), Space(1 << 30, 1)])
def test_what_does_not_fit_is_read_where_it_lies(
    files: dict[Path, str],
    tmp_path: Path,
    free: Space,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(staging, "free_space", lambda directory: free)
    caplog.set_level(logging.WARNING)
    with staged(files, tmp_path / "local") as paths:
        assert paths == list(files)
    assert "do not fit" in caplog.text


def test_a_shard_that_is_not_what_its_record_says_is_found(
    files: dict[Path, str], tmp_path: Path
) -> None:
    damaged = next(iter(files))
    damaged.write_bytes(b"other bytes")
    with pytest.raises(VerificationError, match="verify --deep"), staged(files, tmp_path / "local"):
        pass
    assert list((tmp_path / "local").iterdir()) == []


def test_without_a_place_nothing_is_copied(
    files: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged(files, None) as paths:
        assert paths == list(files)
    (tmp_path / "file").write_text("")
    with staged(files, tmp_path / "file") as paths:
        assert paths == list(files)
    monkeypatch.setenv("JOBDIR", "/local/12")
    assert node_local("$JOBDIR/shards") == Path("/local/12/shards")
    assert node_local("$NOT_SET_HERE/shards") is None
    assert node_local(None) is None


def test_room_is_counted_in_bytes_and_inodes(tmp_path: Path) -> None:
    free = free_space(tmp_path)
    assert free.bytes > 0
    assert free.inodes > 0
    assert not Space(100, 100).fits(Space(95, 1))
    assert not Space(100, 100).fits(Space(1, 95))
    assert Space(100, 100).fits(Space(90, 90))


@pytest.mark.parametrize("inodes", [2, 3, 4, 5])
def test_on_a_node_whose_disk_is_full_files_are_read_in_place(
    files: dict[Path, str], tmp_path: Path, inodes: int
) -> None:
    with small_disk(tmp_path / "local", f"size=64k,nr_inodes={inodes}") as local:
        fill(local)
        with staged(files, local) as paths:
            assert paths == list(files)
        assert [path.name for path in local.iterdir()] == ["filling"]
