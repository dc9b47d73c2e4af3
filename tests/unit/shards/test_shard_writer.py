from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset

from hpc.errors import DataError, TransientError
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample, sample_key
from sarhpc.shards.writer import write_shard

FAULT_POINTS = [
    "publish.after_open",
    "shard.mid_write",
    "publish.before_fsync",
    "publish.before_rename",
]


def plain(index: int, **members: bytes) -> Sample:
    return Sample(sample_key(3, index), members or {"txt": b"hello"})


def test_the_summary_is_that_of_the_file(tmp_path, tile):
    path = tmp_path / "train" / "000003.tar"
    summary = write_shard(path, (tile(3, index) for index in (0, 2, 5)))
    data = path.read_bytes()
    assert summary.samples == 3
    assert summary.bytes == len(data)
    assert summary.sha256 == hashlib.sha256(data).hexdigest()


def test_equal_content_is_equal_bytes_whatever_the_member_order(tmp_path, tile):
    samples = [tile(3, index) for index in range(3)]
    shuffled = [Sample(s.key, dict(reversed(s.members.items()))) for s in samples]
    first = write_shard(tmp_path / "a.tar", samples)
    second = write_shard(tmp_path / "b.tar", shuffled)
    assert first == second
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_plain_tarfile_reads_it_and_finds_nothing_of_this_machine(tmp_path, tile):
    sample = tile(3, 0)
    write_shard(tmp_path / "a.tar", [sample])
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == sorted(f"{sample.key}.{e}" for e in sample.members)
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == 0o644
            data = tar.extractfile(member).read()
            assert data == sample.members[member.name.partition(".")[2]]


def test_plain_webdataset_reads_it(tmp_path, tile):
    samples = [tile(3, index) for index in range(4)]
    write_shard(tmp_path / "a.tar", samples)
    read = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [r["__key__"] for r in read] == [s.key for s in samples]
    assert all(r[e] == s.members[e] for r, s in zip(read, samples, strict=True) for e in s.members)


def test_a_shard_without_samples_is_a_valid_tar(tmp_path):
    summary = write_shard(tmp_path / "a.tar", [])
    assert summary.samples == 0
    assert list(read_shard(tmp_path / "a.tar")) == []
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == []


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([plain(1), plain(1)], "twice"),
        ([plain(2), plain(1)], "key order"),
        ([Sample("a/b", {"txt": b""})], "key 'a/b'"),
        ([Sample("../b", {"txt": b""})], "must be letters"),
        ([Sample("a.b", {"txt": b""})], "must be letters"),
        ([Sample("1", {})], "no members"),
        ([Sample("1", {"../txt": b""})], "lower-case words"),
        ([Sample("1", {"TXT": b""})], "lower-case words"),
        ([Sample("1", {"x" * 120: b""})], "100 bytes"),
    ],
)
def test_unfit_samples_are_refused_and_nothing_is_published(tmp_path, samples, words):
    with pytest.raises(DataError, match=words):
        write_shard(tmp_path / "a.tar", samples)
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_samples_publishes_nothing_and_keeps_the_old_shard(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, [plain(0)])
    before = path.read_bytes()

    def failing():
        yield plain(1)
        raise OSError("scene gone")

    with pytest.raises(OSError, match="scene gone"):
        write_shard(path, failing())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_a_full_disk_publishes_nothing_and_says_what_to_do(tmp_path, monkeypatch, point):
    monkeypatch.setattr("hpc.publish._passages", {})
    monkeypatch.setenv("SARHPC_FAULT", f"{point}:1:enospc")
    with pytest.raises(TransientError, match="Free space"):
        write_shard(tmp_path / "a.tar", [plain(0), plain(1)])
    assert os.listdir(tmp_path) == []


WRITE = """
import sys
from pathlib import Path
from sarhpc.shards.sample import Sample, sample_key
from sarhpc.shards.writer import write_shard
write_shard(Path(sys.argv[1]), [Sample(sample_key(3, i), {"txt": b"x" * 20000}) for i in range(9)])
"""


@pytest.mark.parametrize("point", ["shard.mid_write:5", "publish.before_rename:1"])
def test_a_killed_writer_leaves_nothing_visible_and_the_rerun_the_same_bytes(tmp_path, point):
    def write(name: str, fault: str) -> tuple[Path, int]:
        path = tmp_path / name / "000003.tar"
        environment = {**os.environ, "SARHPC_FAULT": fault}
        done = subprocess.run([sys.executable, "-c", WRITE, str(path)], env=environment)
        return path, done.returncode

    undisturbed, code = write("calm", "")
    assert code == 0
    killed, code = write("killed", f"{point}:kill")
    assert code == -signal.SIGKILL
    assert not killed.exists()
    assert list(killed.parent.glob("*.tar")) == []
    again, code = write("killed", "")
    assert code == 0
    assert again.read_bytes() == undisturbed.read_bytes()
