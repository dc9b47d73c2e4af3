"""The digest of a folder follows the names and the bytes of its files, and nothing else."""

from __future__ import annotations

from pathlib import Path

from hpc.publish import digest_file
from hpc.store.tree import digest_tree


def test_the_digest_of_a_folder_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "config.json"
    file.write_text("{}")
    first = digest_tree(tmp_path)
    assert digest_tree(tmp_path) == first
    assert first.bytes == 2
    file.write_text("[]")
    assert digest_tree(tmp_path).sha256 != first.sha256
    file.write_text("{}")
    file.rename(tmp_path / "unet" / "other.json")
    assert digest_tree(tmp_path).sha256 != first.sha256


def test_the_digest_of_a_file_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    assert digest_tree(file) == digest_file(file)
