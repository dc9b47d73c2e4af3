"""Checkpoints that belong to a run, and those that somebody put there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpc import publish
from hpc.cluster.keys import run_key
from hpc.errors import ConfigError, VerificationError
from hpc.job.agreement import SingleProcess
from hpc.job.checkpoint import CheckpointError, CheckpointStore
from hpc.job.manifest import MANIFEST
from hpc.job.signatures import SIGNATURES, RunSignature, require_own_checkpoints


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private run directory, of a user who made no other."""
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "state"))
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    return run


def store_of(root: Path, *, signed: bool = True) -> CheckpointStore:
    signature = RunSignature(root) if signed else None
    folder = root / "train" / "checkpoints"
    return CheckpointStore(folder, SingleProcess(), attempt=0, signature=signature)


def save(root: Path, *steps: int, signed: bool = True, word: bytes = b"own") -> None:
    if signed:
        run_key(root)  # the verb made it, long before the job
        time.sleep(0.02)
    for step in steps:
        store_of(root, signed=signed).save(
            step, lambda folder: (folder / "weights.bin").write_bytes(word) and None, {}
        )


def plant(root: Path, step: int) -> Path:
    """Put a whole checkpoint beside those of the run, as somebody without its key can."""
    elsewhere = root.parent / f"elsewhere-{step}"
    save(elsewhere, step, signed=False, word=b"theirs")
    name = f"step_{step:08d}"
    return Path(
        shutil.copytree(elsewhere / "train/checkpoints" / name, root / "train/checkpoints" / name)
    )


def read(root: Path) -> bytes | None:
    """What the newest checkpoint holds that is loaded."""
    seen: list[bytes] = []

    def note(folder: Path, state: Mapping[str, Any]) -> None:
        seen.append((folder / "weights.bin").read_bytes())

    return seen[-1] if store_of(root).load(note) is not None else None


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "train" / "checkpoints").iterdir()}


def test_a_run_loads_what_it_saved(root: Path) -> None:
    save(root, 1, 2, 3)
    assert read(root) == b"own"
    assert [found.problem for found in store_of(root).checkpoints()] == [None, None]
    signatures = json.loads((root / "train/checkpoints" / SIGNATURES).read_text())["signatures"]
    assert {"step_00000002", "step_00000003"} <= set(signatures)
    save(root, 4)
    signatures = json.loads((root / "train/checkpoints" / SIGNATURES).read_text())["signatures"]
    assert "step_00000001" not in signatures, "that of a deleted checkpoint goes with the next"


def test_a_planted_checkpoint_is_passed_over_and_never_read(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(root, 1, 2)
    plant(root, 9)
    assert read(root) == b"own"
    assert "step_00000009.bad" in names(root)
    assert "no job of this run signed it" in caplog.text


def test_a_planted_checkpoint_takes_no_place_of_the_newest(root: Path) -> None:
    save(root, 1, 2)
    plant(root, 9)
    save(root, 3)
    assert {"step_00000002", "step_00000003"} <= names(root), "retention counts its own only"


def test_a_planted_checkpoint_alone_ends_in_an_error_that_says_what_it_means(root: Path) -> None:
    save(root, 1)
    shutil.rmtree(root / "train/checkpoints/step_00000001")
    plant(root, 9)
    with pytest.raises(CheckpointError, match=r"step_00000009 .*--trust-checkpoint") as error:
        read(root)
    assert str(root) in str(error.value)
    assert "step_00000009" in names(root), "nothing was moved"
    require_own_checkpoints(root, trust=True)
    assert read(root) == b"theirs"


@pytest.mark.parametrize("how", ["manifest", "copied under its name", "signature"])
def test_what_was_changed_after_it_was_signed_is_not_loaded(root: Path, how: str) -> None:
    save(root, 1, 2)
    folder = root / "train/checkpoints"
    if how == "manifest":
        manifest = folder / "step_00000002" / MANIFEST
        manifest.write_text(manifest.read_text().replace('"attempt": 0', '"attempt": 5'))
    elif how == "signature":
        (folder / SIGNATURES).write_text("{}")
    else:
        shutil.rmtree(folder / "step_00000002")
        plant(root, 2)
    expected = None if how == "signature" else b"own"
    if expected is None:
        with pytest.raises(CheckpointError, match="no job of this run signed it"):
            read(root)
    else:
        assert read(root) == expected
        assert "step_00000002.bad" in names(root)


def test_the_checkpoint_of_another_stage_or_run_is_not_that_of_this_one(root: Path) -> None:
    save(root, 1)
    shutil.copytree(root / "train", root / "caption-train")
    other = RunSignature(root).find_problem(root / "caption-train/checkpoints/step_00000001")
    assert other == "its manifest is not the one that this run signed"


def test_an_old_run_of_its_owner_resumes_once_with_a_warning_and_is_signed(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(root, 1, 2, signed=False)
    time.sleep(0.05)
    require_own_checkpoints(root, trust=False)
    assert read(root) == b"own"
    assert "written before checkpoints were signed" in caplog.text
    caplog.clear()
    assert read(root) == b"own"
    assert "before checkpoints were signed" not in caplog.text, "the second time it is signed"


def test_an_old_run_that_others_can_write_to_needs_a_word(root: Path) -> None:
    root.chmod(0o777)
    save(root, 1, signed=False)
    (root / "train/checkpoints/step_00000001").chmod(0o777)
    time.sleep(0.05)
    require_own_checkpoints(root, trust=False)
    with pytest.raises(CheckpointError, match="others may write to"):
        read(root)
    require_own_checkpoints(root, trust=True)
    assert read(root) == b"own"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_an_old_checkpoint_of_another_user_needs_a_word(root: Path) -> None:
    save(root, 1, signed=False)
    os.chown(root / "train/checkpoints/step_00000001/weights.bin", 65534, 65534)
    time.sleep(0.05)
    with pytest.raises(CheckpointError, match="belongs to user 65534"):
        read(root)


def test_a_run_of_somebody_else_needs_a_word_before_anything_is_submitted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, 1)
    key = run_key(root)
    # The same run, unpacked by somebody with another home directory.
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "another"))
    with pytest.raises(VerificationError, match=r"sarhpc resume .* --trust-checkpoint"):
        require_own_checkpoints(root, trust=False)
    assert run_key(root) == key
    require_own_checkpoints(root, trust=True)
    assert run_key(root) != key, "whoever sent the run knows its old key"
    assert read(root) == b"own"
    require_own_checkpoints(root, trust=False)


def test_a_copy_without_the_key_needs_a_word_before_anything_is_submitted(root: Path) -> None:
    """As `cp -r` makes it of a colleague's run: the key can be read by the colleague alone."""
    save(root, 1)
    (root / ".key").unlink()
    with pytest.raises(VerificationError, match=r"is absent: .* --trust-checkpoint"):
        require_own_checkpoints(root, trust=False)
    require_own_checkpoints(root, trust=True)
    assert read(root) == b"own"


def test_a_pipe_is_no_key(root: Path) -> None:
    os.mkfifo(root / ".key", 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        require_own_checkpoints(root, trust=False)


def test_a_foreign_run_without_checkpoints_gets_a_key_of_its_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run_key(root)
    monkeypatch.setenv("SARHPC_STATE", str(tmp_path / "another"))
    require_own_checkpoints(root, trust=False)
    assert run_key(root) != key


def test_a_moved_or_copied_run_is_its_owners_still(root: Path, tmp_path: Path) -> None:
    save(root, 1)
    copied = tmp_path / "copied"
    shutil.copytree(root, copied)
    moved = root.rename(tmp_path / "moved")
    for place in (copied, moved):
        require_own_checkpoints(place, trust=False)
        assert read(place) == b"own"


def test_a_key_that_others_could_read_is_replaced_on_a_word(root: Path) -> None:
    save(root, 1)
    (root / ".key").chmod(0o644)
    with pytest.raises(ConfigError, match="--trust-checkpoint"):
        require_own_checkpoints(root, trust=False)
    require_own_checkpoints(root, trust=True)
    assert read(root) == b"own"


def test_killed_between_signature_and_rename_the_step_is_saved_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, 1)

    def fail(point: str) -> None:
        if point == "publish.directory_before_rename":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "fault", fail)
        with pytest.raises(Exception, match="No space left"):
            save(root, 2)
    save(root, 2)
    assert read(root) == b"own"
    assert [found.problem for found in store_of(root).checkpoints()] == [None, None]
