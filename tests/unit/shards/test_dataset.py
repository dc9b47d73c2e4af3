"""Shards as a WebDataset: members decoded, and nothing carried out."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from hpc.errors import DataError
from sarhpc.shards.dataset import shard_dataset
from sarhpc.shards.images import encode_array, encode_gray8, encode_rgb8
from sarhpc.shards.sample import Sample, encode_json
from sarhpc.shards.writer import write_shard


def test_members_become_arrays_values_and_text(tmp_path: Path) -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.stack([gray] * 3, axis=-1)
    members = {
        "meta.json": encode_json({"key": "00000000000"}),
        "optic.png": encode_rgb8(colour),
        "sar.png": encode_gray8(gray),
        "sar16.npy": encode_array(gray.astype(np.uint16)),
        "txt": "a lake, σ0".encode(),
    }
    write_shard(tmp_path / "000000.tar", [Sample("00000000000", members)])
    [sample] = shard_dataset([tmp_path / "000000.tar"])
    assert sample["__key__"] == "00000000000"
    assert np.array_equal(sample["sar.png"], gray)
    assert np.array_equal(sample["optic.png"], colour)
    assert sample["sar16.npy"].dtype == np.uint16
    assert sample["meta.json"] == {"key": "00000000000"}
    assert sample["txt"] == "a lake, σ0"
    [raw] = shard_dataset([tmp_path / "000000.tar"], decode=False)
    assert raw["sar.png"] == members["sar.png"]


class Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("extension", ["pyd", "pickle", "pth", "npz"])
def test_a_pickle_in_a_shard_stays_bytes(tmp_path: Path, extension: str) -> None:
    """WebDataset's own decoder loads it, and with it whatever it says."""
    data = pickle.dumps(Opens(tmp_path / "made"))
    write_tar(tmp_path / "hostile.tar", {f"a.{extension}": data})
    [sample] = shard_dataset([tmp_path / "hostile.tar"])
    assert sample[extension] == data
    assert not (tmp_path / "made").exists()


def test_a_name_is_neither_a_pattern_nor_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("pipe:touch made;") / "{0..1}"
    folder.mkdir(parents=True)
    write_tar(folder / "a.tar", {"a.txt": b"text"})
    assert [sample["txt"] for sample in shard_dataset([folder / "a.tar"])] == ["text"]
    assert not Path("made").exists()


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.sar.png": b"\x89PNG\r\n\x1a\n" + bytes(30)})
    with pytest.raises(DataError, match="PNG member"):
        list(shard_dataset([tmp_path / "a.tar"]))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
