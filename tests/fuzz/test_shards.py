"""Tars of any writer, and the members of samples: read, or refused by name."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from case_counts import each
from document_mutations import as_json, damaged
from file_mutations import mutated
from isolated_cases import problem_of
from PIL import Image

from hpc.errors import DataError
from sarhpc.shards.images import decode_array, decode_gray8, decode_rgb8, encode_array, encode_gray8
from sarhpc.shards.reader import ShardIndex, read_member, read_shard
from sarhpc.shards.sample import Sample
from sarhpc.shards.schema import validate_sample
from sarhpc.tiling.config import ImportConfig
from sarhpc.tiling.image_import import import_shard, plan_import

REPOSITORY = Path(__file__).resolve().parents[2]
META = json.loads((REPOSITORY / "tests/golden/shards/tile.meta.json").read_text())
NAMES = (
    "a.sar.png", "a.txt", "a.meta.json", "b.png", "b.json", "b.caption", "c/d.jpg", "./e.png", "f",
    ".png", "g.", "h..png", "/i.png", "../j.png", "k/../l.png", "m\\n.png", "o" * 90 + ".png",
    "p" * 300 + ".png", "é.png", "😀.png", "q\udcff.png", " .png", "r.sar.npy", "r.landcover.npy",
)  # fmt: skip
KINDS = (tarfile.REGTYPE,) * 12 + (
    tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
    tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"V", b"K",
)  # fmt: skip
PAX = (
    {}, {}, {}, {"comment": "é" * 600}, {"path": "x.png"}, {"path": "../x.png"},
    {"path": "a\0b.png"}, {"size": "5"}, {"size": "²"}, {"size": "-1"}, {"size": "9" * 30},
    {"size": "9" * 5000},
    {"SCHILY.xattr.user": "v"}, {"GNU.sparse.major": "1", "GNU.sparse.name": "s.png"},
    {"path": ""}, {"path": "n" * 70_000 + ".png"}, {"mtime": "nan"}, {"hdrcharset": "BINARY"},
)  # fmt: skip


def contents(random: Random) -> bytes:
    """A picture, an array, metadata or a text; damaged now and then."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, random.choice(("PNG", "JPEG", "TIFF", "BMP", "WEBP")))
    data = random.choice(
        (
            encode_gray8(pixels), picture.getvalue(), encode_array(pixels.astype(np.complex64)),
            as_json(damaged(META, random), random), b"a river", b"\xff\0", b"", npy(random),
        )
    )  # fmt: skip
    return mutated(data, str(random.random()), b"splice")[1] if random.random() < 0.4 else data


def npy(random: Random) -> bytes:
    """An npy file whose header says anything."""
    shape = random.choice(
        ("(8, 8)", "(-1, -64)", "(0, 10**30)", "(0, 99999999999999999999)", "(1e9,)", "(True,)",
         "5", "((),)", "(" * 200, "(2**62, 4)", "[8, 8]", "(8,) * 9", "(1,1,1,1,1,1,1,1,1,1,8,8)")
    )  # fmt: skip
    dtype = random.choice(
        ("'|u1'", "'|V0'", "'|S0'", "'<M8[ns]'", "'|O'", "[('a', '<c8')]", "'x'", "None", "'>c8'",
         "'<f4,' * 999", "[('a', '|u1', (0,))]", "'<U2'")
    )  # fmt: skip
    header = f"{{'descr': {dtype}, 'fortran_order': {random.choice(('False', '1', 'True'))}, "
    header = random.choice((header + f"'shape': {shape}, }}", header, "{}", "[" * 3000, "x", "\0"))
    version = random.choice((b"\1\0", b"\2\0", b"\3\0", b"\xff\xff"))
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header.encode() + bytes(random.choice((0, 64)))


def made_tar(random: Random) -> bytes:
    """A tar of odd members, whole or with damaged headers."""
    file = io.BytesIO()
    form = random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogateescape") as tar:
        for _ in range(random.choice((0, 1, 3, 6))):
            member = tarfile.TarInfo(random.choice(NAMES))
            member.type, data = random.choice(KINDS), contents(random)
            member.linkname = random.choice(("", "a.png", "/etc/passwd"))
            member.size, member.pax_headers = len(data), random.choice(PAX)
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError:  # a name that this form of tar cannot hold
                continue
    data = file.getvalue()
    for _ in range(random.choice((0, 0, 1, 2))):
        data = damaged_header(data, random)
    return mutated(data, str(random.random()), b"x")[1] if random.random() < 0.2 else data


def damaged_header(data: bytes, random: Random) -> bytes:
    """A field of a header changed, its checksum right again."""
    at = 512 * random.randrange(max(len(data) // 512, 1))
    header = bytearray(data[at : at + 512])
    if len(header) < 512:
        return data
    start, width = random.choice(((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (257, 8),
                                  (345, 155)))  # fmt: skip
    value = random.choice(
        (b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-7777777777", b"1_0", b"0o17", b"7" * 11,
         b"\0" * 12, b" " * 12, b"x", b"g", b"L", b"S", b"1", b"\x80" + bytes(10) + b"\5",
         b"..", b"/", b"+1")
    )[:width]  # fmt: skip
    header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def use(sample: Sample) -> None:
    """Decode what of a sample is not decoded yet."""
    assert sample.meta is not sample.caption


def check_tar(random: Random) -> None:
    data = made_tar(random)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "given.tar"
        path.write_bytes(data)

        def import_all() -> None:
            cfg = ImportConfig(path=name, colour="luma", group="city")
            for number, inputs in enumerate(plan_import(cfg).shards):
                for sample in import_shard(number, inputs, cfg, fingerprints=True).samples:
                    use(sample)

        def index() -> None:
            found = ShardIndex.scan(path)
            for row in range(len(found)):
                found.members(row)

        for read in (
            lambda: [sample.key for sample in read_shard(path)],
            lambda: list(read_member(path, "txt")),
            index,
            import_all,
        ):
            problem = problem_of(read, ["given.tar", name])
            assert problem is None, (problem, data[:3000])


def check_sample(random: Random) -> None:
    names = ("sar.png", "sar16.npy", "meta.json", "txt", "optic.png", "landcover.npy", "sar.npy")
    members = {name: contents(random) for name in random.sample(names, random.randrange(8))}
    if random.random() < 0.8:
        members["meta.json"] = as_json(damaged(META, random), random)
    sample = Sample(random.choice(("00000000000", "a", "²" * 11)), members)

    def read() -> None:
        validate_sample(sample)
        use(sample)

    problem = problem_of(read, [f"sample {sample.key}"])
    assert problem is None, (problem, members)


def check_member(random: Random) -> None:
    decode = random.choice((decode_array, decode_array, decode_gray8, decode_rgb8))
    data = npy(random) if decode is decode_array else contents(random)
    problem = problem_of(lambda: decode(data), ["npy member", "PNG member"])
    assert problem is None, (problem, data)


CHECKS = (check_tar, check_sample, check_member)


@pytest.mark.parametrize("check", CHECKS)
def test_odd_shards_are_read_or_refused_by_name(check: Callable[[Random], None]) -> None:
    each(25, check)


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS)
def test_many_odd_shards(check: Callable[[Random], None]) -> None:
    each(260, check)


def test_a_tar_with_an_extension_for_each_member_claims_no_memory(tmp_path: Path) -> None:
    """The index of a shard has a column for each extension: 40,000 of them took 25 GB."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(400):
            tar.addfile(tarfile.TarInfo(f"{number}.x{number}"))
    path = tmp_path / "wide.tar"
    path.write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"wide\.tar: 400 extensions"):
        ShardIndex.scan(path)
