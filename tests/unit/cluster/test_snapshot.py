"""Code snapshots: what stood in the checkout, whole, once, and never changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpc.cluster import snapshot
from hpc.cluster.snapshot import FACTS, LARGE_BYTES, PATCH, take_snapshot
from hpc.errors import HpcError
from hpc.publish import Digest

WEIGHTS = bytes(LARGE_BYTES + 1)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    source = tmp_path / "checkout"
    (source / "package").mkdir(parents=True)
    (source / "package" / "__init__.py").write_text("ANSWER = 1\n")
    (source / "package" / "weights.bin").write_bytes(WEIGHTS)
    (source / "unwanted.txt").write_text("x")
    (source / ".gitignore").write_text("*.secret\n")
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "one")
    return source


def take(tmp_path: Path, checkout: Path) -> Path:
    return take_snapshot(tmp_path / "run" / "code", checkout, ["package", "absent"])


def imported(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "import package; print(package.ANSWER)"],
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_snapshot_keeps_uncommitted_work_and_outlives_changes(
    tmp_path: Path, checkout: Path
) -> None:
    (checkout / "package" / "__init__.py").write_text("from package.new import ANSWER\n")
    (checkout / "package" / "new.py").write_text("ANSWER = 2\n")
    (checkout / "package" / "key.secret").write_text("hidden")
    folder = take(tmp_path, checkout)
    (checkout / "package" / "new.py").write_text("ANSWER = 3\n")
    assert imported(folder) == "2"
    assert not (folder / "package" / "key.secret").exists()
    assert not (folder / "unwanted.txt").exists()
    facts = json.loads((folder / FACTS).read_text())
    assert {*facts["changed"]} == {"package/__init__.py", "package/new.py"}
    assert (facts["files"], facts["id"]) == (3, folder.name)
    assert "+from package.new import ANSWER" in (folder / PATCH).read_text()


def test_the_same_code_is_stored_once_and_other_code_apart(tmp_path: Path, checkout: Path) -> None:
    first = take(tmp_path, checkout)
    assert take(tmp_path, checkout) == first
    (checkout / "package" / "__init__.py").write_text("ANSWER = 4\n")
    second = take(tmp_path, checkout)
    assert second != first
    assert (imported(first), imported(second)) == ("1", "4")
    # Large files are shared between snapshots, and never with the checkout.
    weights = [folder / "package" / "weights.bin" for folder in (first, second, checkout)]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino != weights[2].stat().st_ino
    (checkout / "package" / "weights.bin").write_bytes(b"other")
    assert weights[0].read_bytes() == WEIGHTS


def test_a_snapshot_that_another_command_publishes_meanwhile_stays(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = snapshot._check
    first: list[tuple[Path, int]] = []

    def publish_before(folder: Path, digests: Mapping[str, Digest]) -> None:
        check(folder, digests)
        if not first:
            monkeypatch.setattr(snapshot, "_check", check)
            published = take(tmp_path, checkout)
            first.append((published, published.stat().st_ino))

    monkeypatch.setattr(snapshot, "_check", publish_before)
    second = take(tmp_path, checkout)
    assert [(second, second.stat().st_ino)] == first
    assert [path.name for path in second.parent.iterdir()] == [second.name]


def test_nothing_in_a_snapshot_may_be_written(tmp_path: Path, checkout: Path) -> None:
    folder = take(tmp_path, checkout)
    assert all(path.stat().st_mode & 0o222 == 0 for path in [folder, *folder.rglob("*")])
    assert list(folder.rglob("__pycache__/*.pyc"))


def test_code_without_git_is_taken_as_it_lies(tmp_path: Path, checkout: Path) -> None:
    bare = tmp_path / "site-packages"
    (bare / "package" / "__pycache__").mkdir(parents=True)
    (bare / "package" / "__init__.py").write_text("ANSWER = 5\n")
    (bare / "package" / "__pycache__" / "x.pyc").write_bytes(b"stale")
    folder = take(tmp_path, bare)
    assert imported(folder) == "5"
    facts = json.loads((folder / FACTS).read_text())
    assert (facts["commit"], facts["files"]) == (None, 1)


def test_files_a_run_does_not_need_are_left_out(tmp_path: Path, checkout: Path) -> None:
    folder = take_snapshot(
        tmp_path / "code", checkout, ["package"], lambda name: name.endswith(".bin")
    )
    assert not (folder / "package" / "weights.bin").exists()


def test_a_place_without_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HpcError, match="none of the packages"):
        take(tmp_path, tmp_path)
