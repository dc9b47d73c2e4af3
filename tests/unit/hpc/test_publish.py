from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc import publish
from hpc.errors import TransientError

POINTS = ["after_open", "before_fsync", "before_rename", "after_rename"]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch):
    def set_fault(spec: str) -> None:
        publish._passages.clear()
        monkeypatch.setenv("SARHPC_FAULT", spec)

    return set_fault


def test_published_bytes_have_the_digest_returned(tmp_path: Path) -> None:
    digest = publish.publish_bytes(tmp_path / "deep" / "a.bin", b"abc")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"abc"
    assert digest == publish.Digest(3, hashlib.sha256(b"abc").hexdigest())
    assert publish.digest_file(tmp_path / "deep" / "a.bin") == digest


@pytest.mark.parametrize("point", POINTS[:3])
def test_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, faults, point: str) -> None:
    target = tmp_path / "a"
    publish.publish_bytes(target, b"old")
    faults(f"publish.{point}:1:enospc")
    with pytest.raises(TransientError, match="no space left") as caught:
        publish.publish_bytes(target, b"new")
    assert caught.value.exit_code == 75
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("point", POINTS)
def test_kill_leaves_the_old_or_the_new_file_whole(tmp_path: Path, point: str) -> None:
    target = tmp_path / "a"
    publish.publish_bytes(target, b"old" * 1000)
    code = (
        "from pathlib import Path; from hpc.publish import publish_bytes;"
        f"publish_bytes(Path({str(target)!r}), b'new' * 1000)"
    )
    env = {**os.environ, "SARHPC_FAULT": f"publish.{point}:1:kill"}
    done = subprocess.run([sys.executable, "-c", code], env=env)
    assert done.returncode == -9
    assert target.read_bytes() in (b"old" * 1000, b"new" * 1000)
    publish.remove_stale_temporaries(tmp_path, older_than_s=-1)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_exception_in_the_block_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), publish.publishing(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_directory_appears_whole_and_replaces_whole(tmp_path: Path, faults) -> None:
    target = tmp_path / "d"
    with publish.publishing_directory(target) as staging:
        (staging / "x").write_text("1")
        assert not target.exists()
    faults("publish.directory_before_rename:1:raise")
    with (
        pytest.raises(publish.HpcError, match="fault injected"),
        publish.publishing_directory(target) as staging,
    ):
        (staging / "x").write_text("2")
    assert (target / "x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_kill_between_the_two_renames_of_a_directory_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "d"
    with publish.publishing_directory(target) as staging:
        (staging / "x").write_text("1")
    code = (
        "from pathlib import Path; from hpc.publish import publishing_directory\n"
        f"with publishing_directory(Path({str(target)!r})) as staging:\n"
        "    (staging / 'x').write_text('2')"
    )
    point = "publish.directory_between_renames:1"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "SARHPC_FAULT": f"{point}:kill"}
    )
    assert done.returncode == -9
    assert not target.exists()
    publish.remove_stale_temporaries(tmp_path, older_than_s=-1)
    assert (target / "x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]

    failed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "SARHPC_FAULT": point})
    assert failed.returncode == 1
    assert (target / "x").read_text() == "1"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (target / "x").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_sweep_spares_the_young(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.h.1.0.tmp", tmp_path / ".b.h.1.1.tmp"
    for path in (old, young):
        path.write_text("")
    os.utime(old, (time.time() - 100, time.time() - 100))
    assert publish.remove_stale_temporaries(tmp_path, older_than_s=50) == [old]
    assert young.exists()
