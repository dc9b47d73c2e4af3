"""A mistyped verb, flag, key or path: the nearest name is given, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarhpc.cli import main


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed of a command that exits with code 2."""
    try:
        code: object = main(words.split())
    except SystemExit as ended:
        code = ended.code
    reported = capsys.readouterr().err
    assert code == 2, reported
    return reported


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("statsu RUN", "'statsu' (did you mean status"),
        ("trian RUN", "'trian' (did you mean train"),
        ("resum RUN", "(did you mean resume"),
        ("run RUN --dryrun", "--dryrun (did you mean --dry-run?)"),
        ("status RUN --jsn", "--jsn (did you mean --json?)"),
        ("run RUN --executr=local", "--executr=local (did you mean --executor?)"),
        ("run RUN --executor locl", "'locl' (did you mean local?)"),
        ("init RUN train.lr_unt=1", "did you mean train.lr_unet?"),
        ("init RUN trian.epochs=1", "did you mean train?"),
        ("init RUN epochs=1", "did you mean train.epochs?"),
    ],
)
def test_the_nearest_name_is_told(
    words: str, near: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = refused(words.replace("RUN", str(tmp_path / "run")), capsys)
    assert near in reported
    assert "attach-job" not in reported, "nothing else is listed"


def test_what_is_near_to_nothing_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from" in refused("xyzzy", capsys)
    assert "unknown arguments: --xyzzy\n" in refused("status RUN --xyzzy", capsys)


@pytest.mark.parametrize(
    "words",
    [
        "catalog NONE --out OUT", "catalog . --out OUT --declare NONE", "init OUT --config NONE",
        "run OUT --config NONE", "simulate NONE", "train NONE", "evaluate NONE",
        "evaluate NONE .", "evaluate . NONE", "resume NONE", "status NONE", "logs NONE",
        "report NONE", "clean NONE", "fetch sd15 --to OUT --from NONE", "inspect NONE", "stop NONE",
        "cancel NONE", "supervise NONE", "verify NONE", "trust NONE",
        "grid NONE --prompt x --out OUT.png", "decoder NONE --tiles . --out OUT",
        "decoder embedded:base --tiles NONE --out OUT", "package NONE",
        "export-corpus NONE OUT --layout imagefolder", "contract NONE",
        "contract embedded:base --tiles NONE", "doctor --profile NONE",
        "attach-job NONE train", "work NONE train",
    ],
)  # fmt: skip
def test_a_path_that_is_not_there_is_told_by_every_verb(
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "NONE" in refused(words, capsys)
    assert not list(tmp_path.iterdir()), "nothing was made"
