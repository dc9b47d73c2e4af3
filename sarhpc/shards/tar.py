"""The tar format: member headers written one way only, and read from any usual writer.

POSIX.1-1988 "ustar" blocks of 512 bytes, as in pax(1), "ustar Interchange Format". Every field
that does not come from the content is fixed, so that equal content is equal bytes.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpc.errors import DataError

log = logging.getLogger(__name__)

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
_MAX_SIZE = 0o77777777777
_EXTENSION_LIMIT = 1 << 20
_MOST_NAME_BYTES = 4096
_REGULAR_KINDS = frozenset((b"0", b"\0", b"7"))
_KINDS = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"6": "fifo"}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file inside a tar: its name, and where its bytes stand."""

    name: str
    offset: int
    size: int


def member_header(name: str, size: int) -> bytes:
    """The 512-byte ustar header of a regular file: mode 0644, uid, gid and mtime 0.

    Raises:
        DataError: the name is longer than 100 bytes or the file larger than 8 GiB.
    """
    encoded = name.encode()
    if len(encoded) > 100 or size > _MAX_SIZE:
        raise DataError(f"tar member {name} of {size} bytes: at most 100 bytes of name and 8 GiB.")
    fields = (
        encoded.ljust(100, b"\0"),
        _octal(0o644, 8) + _octal(0, 8) + _octal(0, 8),
        _octal(size, 12) + _octal(0, 12),
        b" " * 8,
        b"0" + bytes(100),
        b"ustar".ljust(6, b"\0") + b"00" + bytes(64),
        _octal(0, 8) + _octal(0, 8),
        bytes(167),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _octal(value: int, width: int) -> bytes:
    return b"%0*o" % (width - 1, value) + b"\0"


def padding(size: int) -> bytes:
    """Zero bytes that fill a member of `size` bytes up to a whole block."""
    return bytes(-size % BLOCK)


def scan_members(file: BinaryIO, path: Path, *, ended: bool = True) -> Iterator[Member]:
    """Yield the regular files of an open, seekable tar in order, reading headers only.

    The reader may move the file's position between two members. Directories are passed over; pax
    and GNU long names are understood.

    Args:
        file: the tar.
        path: where it is, for messages.
        ended: whether the end-of-archive blocks must be there, as in every shard of this project.
            Other writers may leave them out; a tar of theirs that stops between two members is
            read with a warning, since it may also have been cut short.

    Raises:
        DataError: the archive is cut short or damaged, a name would leave the directory it is
            unpacked in, or a member is a link or a device.
    """
    position = 0
    end = file.seek(0, 2)
    extended: dict[str, str] = {}
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if not header and position and not ended and not extended:
            log.warning(
                "%s has no end-of-archive blocks: its members up to byte %d are read; compare its "
                "size with that of the original",
                path,
                end,
            )
            return
        if len(header) < BLOCK:
            raise _cut_short(path, position, end)
        if header == END_OF_ARCHIVE[:BLOCK]:
            return
        kind, size = _check_header(header, path, position)
        size = int(extended.get("size", size)) if kind not in (b"x", b"g", b"L") else size
        offset = position + BLOCK
        position = offset + size + -size % BLOCK
        if position > end:
            raise _cut_short(path, offset, end)
        if kind in (b"x", b"L"):
            extended |= _extension(file, kind, size, path, offset)
        elif kind in _REGULAR_KINDS:
            yield Member(_safe_name(header, extended, path, offset - BLOCK), offset, size)
            extended = {}
        elif kind == b"5":
            extended = {}
        elif kind != b"g":
            named = _KINDS.get(kind, f"entry of type {kind!r}")
            raise DataError(f"{path} holds a {named} at byte {offset - BLOCK}: files only.")


def read_exactly(file: BinaryIO, member: Member, path: Path) -> bytes:
    """Bytes of one member.

    Raises:
        DataError: the file ends before the member does.
    """
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) != member.size:
        raise _cut_short(path, member.offset, member.offset + len(data))
    return data


def _cut_short(path: Path, position: int, end: int) -> DataError:
    return DataError(
        f"{path} is cut short: it ends at byte {end}, inside or before the member at byte "
        f"{position}. It was not published by a finished writer or was damaged in a copy: "
        "delete it and make (or copy) this shard again."
    )


def _check_header(header: bytes, path: Path, position: int) -> tuple[bytes, int]:
    stored, size = _parse_octal(header[148:156]), _parse_size(header[124:136])
    if size is None or stored != sum(header[:148]) + 256 + sum(header[156:]):
        hint = " (it looks gzip-compressed: decompress it)" if header[:2] == b"\x1f\x8b" else ""
        raise DataError(
            f"{path} has no valid tar header at byte {position}{hint}: it is damaged or no tar; "
            "make (or copy) this shard again."
        )
    return header[156:157], size


def _parse_size(field: bytes) -> int | None:
    return int.from_bytes(field[1:], "big") if field[0] & 0x80 else _parse_octal(field)


def _parse_octal(field: bytes) -> int | None:
    """The number in a header field; None for anything but octal digits, signs included."""
    digits = field.strip(b" \0")
    return None if digits.strip(b"01234567") else int(digits or b"0", 8)


def _extension(file: BinaryIO, kind: bytes, size: int, path: Path, offset: int) -> dict[str, str]:
    """Name and size given by a pax header (`x`) or a GNU long name (`L`) for the next member."""
    if size > _EXTENSION_LIMIT:
        raise DataError(f"{path} has a header extension of {size} bytes at byte {offset}.")
    data = read_exactly(file, Member("", offset, size), path)
    if kind == b"L":
        return {"path": data.rstrip(b"\0").decode(errors="replace")}
    fields: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not _is_number(length) or not len(length) < int(length) <= len(data):
            raise DataError(f"{path} has a damaged pax header at byte {offset}.")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key.startswith(b"GNU.sparse."):
            raise DataError(f"{path} holds a sparse file at byte {offset}: whole files only.")
        if key in (b"path", b"size"):
            # Of other fields (extended attributes) the value may be no text at all.
            fields[key.decode()] = value.decode(errors="replace")
        data = data[int(length) :]
    if not _is_number(fields.get("size", "0").encode()):
        raise DataError(f"{path} has a damaged pax header at byte {offset}.")
    return fields


def _is_number(digits: bytes) -> bool:
    """Whether these are digits of a number that a size may have."""
    return digits.isdigit() and len(digits) <= 20


def _safe_name(header: bytes, extended: dict[str, str], path: Path, position: int) -> str:
    name = extended.get("path")
    if name is None:
        name = header[:100].rstrip(b"\0").decode(errors="replace")
        prefix = header[345:500].rstrip(b"\0").decode(errors="replace")
        if prefix and header[257:263] == b"ustar\0":
            name = f"{prefix}/{name}"
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise DataError(f"{path} holds a member with a name of {len(name)} letters: refused.")
    parts = name.split("/")
    if posixpath.isabs(name) or ".." in parts or "\0" in name or "\\" in name:
        raise DataError(
            f"{path} holds a member named {name!r} at byte {position}, which would leave its "
            "directory: refused. Do not trust this archive."
        )
    return name.removeprefix("./")
