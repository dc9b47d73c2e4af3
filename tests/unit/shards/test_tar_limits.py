"""The limits of the tar format, and names and sizes that come from an extended header."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hpc.errors import DataError
from sarhpc.shards.tar import (
    BLOCK,
    END_OF_ARCHIVE,
    Member,
    member_header,
    padding,
    read_exactly,
    scan_members,
)

GIB = 1 << 30
HERE = Path("a.tar")


def scanned(data: bytes) -> list[tuple[str, bytes]]:
    """Name and content of every member of a tar."""
    file = io.BytesIO(data)
    return [(m.name, read_exactly(file, m, HERE)) for m in scan_members(file, HERE)]


def written(*entries: tuple[str, bytes | None], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by Python's own writer; an entry without content is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return buffer.getvalue()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8 * GIB - 1])
def test_a_header_is_what_the_standard_library_reads(size: int) -> None:
    info = tarfile.TarInfo.frombuf(member_header("x/000001.sar.npy", size), "utf-8", "strict")
    assert (info.name, info.size, info.type) == ("x/000001.sar.npy", size, tarfile.REGTYPE)
    assert (info.mode, info.uid, info.gid, info.mtime) == (0o644, 0, 0, 0)
    assert (info.devmajor, info.devminor, info.uname, info.gname) == (0, 0, "", "")
    assert len(padding(size)) == -size % BLOCK


def test_a_member_of_eight_gib_is_refused_and_one_byte_less_is_not() -> None:
    with pytest.raises(DataError, match="8 GiB"):
        member_header("a", 8 * GIB)
    assert len(member_header("a", 8 * GIB - 1)) == BLOCK


@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_name_may_fill_its_hundred_bytes_and_no_more(letter: str) -> None:
    name = letter * (100 // len(letter.encode()))
    data = member_header(name, 3) + b"abc" + padding(3) + END_OF_ARCHIVE
    assert scanned(data) == [(name, b"abc")]
    with pytest.raises(DataError, match="100 bytes of name"):
        member_header(name + "a", 3)


LONG = "folder/" * 18


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_long_name_belongs_to_the_next_entry_alone(tar_format: int) -> None:
    entries = [(LONG + "1.txt", b"one"), ("2.txt", b"two"), (LONG + "d", None), ("3.txt", b"3")]
    found = scanned(written(*entries, tar_format=tar_format))
    assert found == [(LONG + "1.txt", b"one"), ("2.txt", b"two"), ("3.txt", b"3")]


def pax(**fields: str) -> bytes:
    """A pax header with those fields, which holds for the entry after it."""
    data = b""
    for key, value in fields.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while length != len(f"{length}".encode() + body):
            length = len(f"{length}".encode() + body)
        data += f"{length}".encode() + body
    return raw_pax(data)


def raw_pax(data: bytes) -> bytes:
    """A pax header of those bytes."""
    header = bytearray(member_header("pax", len(data)))
    header[156:157] = b"x"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + padding(len(data))


def plain(name: str, content: bytes) -> bytes:
    return member_header(name, len(content)) + content + padding(len(content))


def test_the_size_of_a_pax_header_holds_for_the_next_entry_alone() -> None:
    # The entry claims to be empty; the header before it says how long it is.
    content = b"x" * 700
    entry = member_header("a", 0) + content + padding(700)
    data = pax(size="700") + entry + plain("b", b"bb") + END_OF_ARCHIVE
    assert scanned(data) == [("a", content), ("b", b"bb")]


def test_two_headers_before_an_entry_both_hold() -> None:
    data = pax(path="long/a") + pax(size="2") + member_header("a", 0) + b"zz" + padding(2)
    assert scanned(data + END_OF_ARCHIVE) == [("long/a", b"zz")]


def test_other_fields_of_a_pax_header_change_nothing() -> None:
    data = pax(mtime="1.5", comment="x") + plain("a", b"1") + END_OF_ARCHIVE
    assert scanned(data) == [("a", b"1")]


@pytest.mark.parametrize("bad", [b"x path=a\n", b"0 path=a\n", b"1 path=a\n", b"999 th=a\n"])
def test_a_pax_header_whose_lengths_do_not_fit_is_damaged(bad: bytes) -> None:
    data = pax(path="a").replace(b"9 path=a\n", bad)
    with pytest.raises(DataError, match="damaged pax header"):
        scanned(data + plain("b", b"1") + END_OF_ARCHIVE)


def test_a_pax_header_of_a_length_alone_is_damaged() -> None:
    with pytest.raises(DataError, match="damaged pax header"):
        scanned(raw_pax(b"1") + plain("b", b"1") + END_OF_ARCHIVE)


@pytest.mark.parametrize("size", ["-1", "1e3", "x"])
def test_a_pax_size_that_is_no_number_is_damage(size: str) -> None:
    with pytest.raises(DataError, match="damaged pax header"):
        scanned(pax(size=size) + plain("b", b"1") + END_OF_ARCHIVE)


def test_an_extension_of_more_than_a_mebibyte_is_not_read() -> None:
    header = bytearray(member_header("pax", (1 << 20) + 1))
    header[156:157] = b"L"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + bytes((1 << 20) + 512)
    with pytest.raises(DataError, match="extension of 1048577 bytes"):
        scanned(data + END_OF_ARCHIVE)


def test_a_size_in_base_256_is_read() -> None:
    header = bytearray(member_header("a", 0))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert scanned(bytes(header) + b"hello" + padding(5) + END_OF_ARCHIVE) == [("a", b"hello")]


def test_members_tell_where_their_bytes_stand() -> None:
    data = plain("a", b"x" * 600) + plain("b", b"y") + END_OF_ARCHIVE
    members = list(scan_members(io.BytesIO(data), HERE))
    assert members == [Member("a", 512, 600), Member("b", 512 + 1024 + 512, 1)]


def test_a_member_that_ends_with_its_file_is_whole_and_an_archive_without_end_is_not() -> None:
    data = plain("a", b"x" * 512)
    file = io.BytesIO(data)
    members = scan_members(file, HERE)
    assert read_exactly(file, next(members), HERE) == b"x" * 512
    with pytest.raises(DataError, match="ends at byte 1024"):
        next(members)
    with pytest.raises(DataError, match="cut short"):
        read_exactly(file, Member("a", 512, 513), HERE)


def test_a_prefix_belongs_to_the_name() -> None:
    name = f"{'p' * 90}/{'n' * 90}"
    data = written((name, b"1"), tar_format=tarfile.USTAR_FORMAT)
    assert scanned(data) == [(name, b"1")]
    assert scanned(written(("./a", b"1"))) == [("a", b"1")]


def test_a_checksum_of_six_digits_is_read_whole() -> None:
    name = f"{'ÿ' * 48}/{'ÿ' * 48}"
    data = written((name, b"1"), tar_format=tarfile.USTAR_FORMAT)
    assert int(data[148:154], 8) >= 0o100000
    assert scanned(data) == [(name, b"1")]


@pytest.mark.parametrize(("head", "hint"), [(b"\x1f\x8b", True), (b"\x1f\x00", False)])
def test_only_a_compressed_tar_is_said_to_be_compressed(head: bytes, hint: bool) -> None:
    with pytest.raises(DataError, match="no valid tar header at byte 0") as error:
        scanned(head.ljust(2048, b"x"))
    assert ("gzip-compressed: decompress it" in str(error.value)) is hint
