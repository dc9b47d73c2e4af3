"""Which environment variables a configuration reads, whoever wrote it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

import hpc.config
from hpc.cluster.profile import load_profile
from hpc.config import load, loads, resolved, to_yaml
from hpc.errors import ConfigError
from hpc.resolvers import is_allowed


@dataclass
class Inner:
    text: str = "a"
    words: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)


@dataclass
class Outer:
    folder: str = "here"
    inner: Inner = field(default_factory=Inner)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("NEVER_SET", "")
    monkeypatch.delenv("NEVER_SET")


def written(tmp_path: Path, text: str, mode: int = 0o644, uid: int | None = None) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    path.chmod(mode)
    if uid is not None:
        if os.getuid() != 0:
            pytest.skip("only root gives a file to another user")
        os.chown(path, uid, -1)
    return path


def test_the_users_own_file_reads_folders_and_other_keys(tmp_path: Path) -> None:
    path = written(tmp_path, "folder: ${oc.env:SCRATCH}/a\ninner: {text: '${folder}/b'}")
    config = load(Outer, path, ["inner.words=['${oc.env:NEVER_WORK,/tmp}']"])
    assert config == Outer("/scratch/me/a", Inner("/scratch/me/a/b", ["/tmp"]))
    assert resolved(path, ["inner.words=['${oc.env:NEVER_WORK,/tmp}']"]) == {
        "folder": "${oc.env:SCRATCH}/a",
        "inner.text": "${folder}/b",
        "inner.words[0]": "${oc.env:NEVER_WORK,/tmp}",
    }


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET}",
        "${ oc.env : 'SECRET' }",
        "${oc.env:SCRATCH,${oc.env:SECRET}}",
        '${oc.env:NEVER_WORK,"${oc.env:SECRET}"}',
        "${oc.env:${inner.text}}",
        "${oc.${inner.text}:SECRET}",
        "${oc.decode:'${oc.env:SECRET}'}",
        "${oc.select:inner.text}",
        "x ${folder} ${oc.env:SECRET}",
    ],
)
@pytest.mark.parametrize("key", ["folder", "inner.words[0]", "inner.words[0][1]", "inner.named.k"])
def test_another_variable_or_resolver_is_refused_however_it_is_written(
    tmp_path: Path, value: str, key: str
) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    text = {
        "folder": f"folder: {quoted}",
        "inner.words[0][1]": f"inner: {{words: !!pairs [a: {quoted}]}}",
        "inner.words[0]": f"inner: {{words: [{quoted}]}}",
        "inner.named.k": f"inner: {{named: {{k: {quoted}}}}}",
    }[key]
    with pytest.raises(ConfigError) as error:
        load(Outer, written(tmp_path, text))
    assert key in str(error.value)
    assert "config.yaml" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_the_command_line_is_held_to_the_same_list() -> None:
    assert loads(Outer, "", ["folder=${oc.env:SCRATCH}"]).folder == "/scratch/me"
    with pytest.raises(ConfigError, match=r"folder in the command line is .*could hold a secret"):
        loads(Outer, "", ["folder=${oc.env:SECRET}"])


@pytest.mark.parametrize(
    ("mode", "uid", "says"),
    [(0o644, 4321, "user 4321"), (0o664, None, "chmod go-w"), (0o666, None, "chmod go-w")],
)
def test_a_file_of_somebody_else_reads_no_variable_at_all(
    tmp_path: Path, mode: int, uid: int | None, says: str
) -> None:
    path = written(tmp_path, "folder: ${oc.env:SCRATCH}", mode, uid)
    if uid is None:
        if os.getuid() != 0:
            pytest.skip("only root gives a file to a group of which it is no member")
        os.chown(path, -1, 4321)
    with pytest.raises(ConfigError, match=says):
        load(Outer, path)
    path.write_text("folder: there\ninner: {text: '${folder}/b'}")
    assert load(Outer, path).inner.text == "there/b"
    # What the user adds to it on the command line is the user's own.
    assert load(Outer, path, ["folder=${oc.env:SCRATCH}"]).inner.text == "/scratch/me/b"


def test_who_wrote_a_file_is_asked_of_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be somebody else's, who puts a file of the user in its place at once."""
    path = written(tmp_path, "folder: ${oc.env:SCRATCH}", uid=4321)
    (own := tmp_path / "own.yaml").write_text("folder: here")
    opened = hpc.config.open_regular

    def swapped(read: Path) -> BinaryIO:
        file = opened(read)
        own.rename(path)
        return file

    monkeypatch.setattr(hpc.config, "open_regular", swapped)
    with pytest.raises(ConfigError, match="user 4321"):
        load(Outer, path)


def test_a_frozen_configuration_is_read_as_it_stands() -> None:
    text = to_yaml(Outer("${oc.env:SECRET}", Inner("\\${folder} ${bad}")))
    assert loads(Outer, text, origin="frozen") == Outer(
        "${oc.env:SECRET}", Inner("\\${folder} ${bad}")
    )
    # One of another version, or with an override, is read by way of OmegaConf.
    part = "folder: ${oc.env:SECRET}"
    assert loads(Outer, part, origin="frozen").folder == "${oc.env:SECRET}"
    again = loads(Outer, text, ["inner.words=[a]"], origin="frozen")
    assert (again.folder, again.inner.words) == ("${oc.env:SECRET}", ["a"])
    assert again.inner.text == "\\${folder} ${bad}"


def test_a_variable_that_changes_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loads(Outer, "folder: ${oc.env:SCRATCH}").folder == "/scratch/me"
    monkeypatch.setenv("SCRATCH", "/other")
    assert loads(Outer, "folder: ${oc.env:SCRATCH}").folder == "/other"


def test_a_profile_reads_the_same_variables(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {HF_HOME: '${oc.env:SCRATCH}/hf'}")
    assert load_profile(path).env == {"HF_HOME": "/scratch/me/hf"}
    path.write_text("env: {TOKEN: '${oc.env:SECRET}'}")
    with pytest.raises(ConfigError, match=r"env\.TOKEN in .*config\.yaml"):
        load_profile(path)


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [
        *((name, True) for name in ("HOME", "WORK", "CINECA_SCRATCH", "SARHPC_PROJECT", "STORE",
                                    "ALL_CCFRSCRATCH", "PSCRATCH", "WORKDIR", "SLURM_JOB_ID")),
        *((name, False) for name in ("SLURM_JWT", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY",
                                     "HF_TOKEN", "PATH", "home", "SCRATCH_KEY", "NETWORK", "")),
    ],
)  # fmt: skip
def test_what_names_a_folder_or_the_user_is_allowed(variable: str, allowed: bool) -> None:
    assert is_allowed(variable) == allowed
