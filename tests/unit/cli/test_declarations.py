"""A file of declarations that `catalog` cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarhpc.cli import main


@pytest.mark.parametrize("content", [b"defaults: " + b"[" * 3000 + b"]" * 3000, b"\xff\xfe\x00"])
def test_declarations_that_cannot_be_read_are_an_error(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "declared.yaml"
    file.write_bytes(content)
    words = ["catalog", str(tmp_path), "--out", str(tmp_path / "out"), "--declare", str(file)]
    assert main(words) == 2
    assert f"declarations {file} cannot be read" in capsys.readouterr().err
