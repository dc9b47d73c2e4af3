from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import webdataset

from hpc.errors import DataError
from sarhpc.shards.reader import ShardIndex, read_shard, split_name
from sarhpc.shards.writer import write_shard


def write_tar(path: Path, *entries: tarfile.TarInfo, tar_format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"a" * entry.size))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 3) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size if kind == tarfile.REGTYPE else 0
    info.linkname = "/etc/passwd"
    return info


@pytest.fixture
def shard(tmp_path, tile) -> Path:
    path = tmp_path / "000003.tar"
    write_shard(path, [tile(3, index) for index in range(4)])
    return path


def test_samples_come_back_in_order(shard, tile):
    assert list(read_shard(shard)) == [tile(3, index) for index in range(4)]


def test_the_index_finds_the_bytes_the_reader_reads(shard):
    index = ShardIndex.scan(shard)
    data = shard.read_bytes()
    for row, sample in enumerate(read_shard(shard)):
        assert index.key(row) == sample.key
        found = index.members(row)
        assert found.keys() == sample.members.keys()
        for name, at in found.items():
            assert data[at.offset : at.offset + at.size] == sample.members[name]
    assert len(index) == 4


def test_the_index_is_compact(tmp_path, tile):
    write_shard(tmp_path / "a.tar", [tile(3, index) for index in range(50)])
    index = ShardIndex.scan(tmp_path / "a.tar")
    assert (index.offsets.nbytes + index.sizes.nbytes + index.keys.nbytes) / 50 < 100


def test_a_tar_cut_anywhere_is_an_error_with_file_offset_and_remedy(shard, tmp_path):
    data = shard.read_bytes()
    cut = tmp_path / "cut.tar"
    for length in [*range(0, len(data) - 1024, 509), len(data) - 1024]:
        cut.write_bytes(data[:length])
        for work in (lambda: list(read_shard(cut)), lambda: ShardIndex.scan(cut)):
            with pytest.raises(DataError, match=r"cut.tar is cut short: .* byte \d+.*again"):
                work()


def test_whole_samples_before_a_cut_are_not_mistaken_for_the_shard(shard, tmp_path):
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[:-2000])
    samples = read_shard(cut)
    assert next(samples).key == "00000300000"
    with pytest.raises(DataError, match="cut short"):
        list(samples)


def test_a_flipped_bit_in_a_header_is_noticed(shard, tmp_path):
    data = bytearray(shard.read_bytes())
    data[130] ^= 1
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    with pytest.raises(DataError, match="no valid tar header at byte 0"):
        list(read_shard(bad))


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG" * 400, gzip.compress(b"tar" * 9000, mtime=0) + bytes(600)],
    ids=["png", "gzip"],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match="no valid tar header"):
        list(read_shard(tmp_path / "a.tar"))


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot open shard .*gone.tar"):
        list(read_shard(tmp_path / "gone.tar"))


@pytest.mark.parametrize(
    "name", ["/etc/cron.d/a.txt", "../a.txt", "x/../../a.txt", "..\\a.txt", "a/..", "/../a.txt"]
)
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_leave_the_directory_are_refused(tmp_path, name, tar_format):
    path = write_tar(tmp_path / "a.tar", entry("1.txt"), entry(name), tar_format=tar_format)
    with pytest.raises(DataError, match="refused"):
        list(read_shard(path))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    path = write_tar(tmp_path / "a.tar", entry("1.txt", kind))
    with pytest.raises(DataError, match=r"holds a (symbolic link|hard link|device|fifo)"):
        list(read_shard(path))


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_tars_of_other_writers_with_long_names_and_directories_are_read(tmp_path, tar_format):
    long = "folder/" * 18 + "0001"
    entries = [
        entry("folder", tarfile.DIRTYPE),
        *(entry(f"{long}.{extension}") for extension in ("meta.json", "sar.npy", "sar.png")),
        entry("README"),
    ]
    path = write_tar(tmp_path / "a.tar", *entries, tar_format=tar_format)
    (sample,) = read_shard(path)
    assert sample.key == long
    assert dict(sample.members) == dict.fromkeys(("meta.json", "sar.npy", "sar.png"), b"aaa")


def test_shards_of_webdataset_with_public_member_names_are_read(tmp_path):
    path = tmp_path / "a.tar"
    members = {"sar.png": b"p", "sar.npy": b"n", "meta.json": b'{"city": "Toulouse"}'}
    with webdataset.TarWriter(str(path)) as sink:
        for key in ("toulouse_1", "toulouse_0"):
            sink.write({"__key__": key, **members})
    samples = list(read_shard(path))
    assert [sample.key for sample in samples] == ["toulouse_1", "toulouse_0"]
    assert samples[0].members == members
    assert samples[0].meta["city"] == "Toulouse"


@pytest.mark.parametrize(
    ("names", "words"),
    [(["1.txt", "2.txt", "1.png"], "appears again"), (["1.txt", "1.txt"], "two members")],
)
def test_repeated_keys_and_members_are_refused(tmp_path, names, words):
    path = write_tar(tmp_path / "a.tar", *map(entry, names))
    with pytest.raises(DataError, match=words):
        list(read_shard(path))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("00000100002.sar.png", ("00000100002", "sar.png")),
        ("a.b/c.TXT", ("a.b/c", "txt")),
        ("README", None),
        (".hidden", None),
        ("trailing.", None),
    ],
)
def test_names_split_as_in_webdataset(name, parts):
    assert split_name(name) == parts
