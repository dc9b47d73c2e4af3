"""What fuzzing has found, a small case of each kind; each once ended in another way, or never."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from PIL import Image

from hpc.cluster.profile import load_profile
from hpc.cluster.slurm_text import (
    expand_hosts,
    parse_accounting,
    parse_partitions,
    parse_queue,
    plain_id,
)
from hpc.config import loads
from hpc.errors import ConfigError, DataError, HpcError, VerificationError
from hpc.observe.state import seconds_of
from hpc.store.attempts import read_attempts
from hpc.store.ledger import Failure, Ledger
from hpc.store.plan import read_plan
from hpc.store.rundir import RunDir
from sarhpc.archive.ancillary.optical_resampling import read_optical
from sarhpc.archive.catalog_builder import catalog_directory
from sarhpc.archive.declaration import read_declarations
from sarhpc.archive.formats.safe.bursts import burst_layers
from sarhpc.archive.formats.safe.metadata import read_safe
from sarhpc.archive.stac_catalog import StacArchive
from sarhpc.captioning.config import CaptionSetConfig
from sarhpc.captioning.tuning.datasets import open_set
from sarhpc.shards.foreign import list_foreign, read_foreign
from sarhpc.shards.images import decode_array
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample
from sarhpc.stages.config import RunConfig
from sarhpc.training.metrics.log import read_rows

DEEP = "[" * 100_000


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -8), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 99999999999999999999), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (0,), }",
        "{'descr': '|u1', 'fortran_order': False, ",
        "[" * 3000,
    ],
)
def test_a_false_npy_header_is_a_data_error(header: str) -> None:
    with pytest.raises(DataError, match="npy member"):
        decode_array(npy(header, bytes(8)))


def tar_of(
    path: Path, *, pax: dict[str, str] | None = None, edit: tuple[int, bytes] = (0, b"")
) -> Path:
    """A tar of `a.txt` with a pax header, and bytes of its header replaced."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.txt")
        member.size, member.pax_headers = 5, pax or {}
        tar.addfile(member, io.BytesIO(b"river"))
    data = bytearray(file.getvalue())
    at, value = edit
    if value:
        data[at : at + len(value)] = value
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", ["²", "-1", "9" * 30, "9" * 5000])
def test_a_pax_size_that_is_no_size_is_a_data_error(tmp_path: Path, size: str) -> None:
    with pytest.raises(DataError, match=r"s\.tar"):
        list(read_shard(tar_of(tmp_path / "s.tar", pax={"size": size})))


@pytest.mark.parametrize("size", [b"-0000000005\0", b"0000_000005\0", b"0o000000005\0"])
def test_a_size_field_with_more_than_octal_digits_is_a_data_error(
    tmp_path: Path, size: bytes
) -> None:
    with pytest.raises(DataError, match="no valid tar header"):
        list(read_shard(tar_of(tmp_path / "s.tar", edit=(124, size))))


def test_a_sparse_file_is_refused_rather_than_read_as_its_map(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "s.tar", pax={"GNU.sparse.major": "1", "GNU.sparse.name": "a.txt"})
    with pytest.raises(DataError, match="sparse"):
        list(read_shard(path))


def test_an_extended_attribute_may_hold_any_bytes(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "s.tar", pax={"LIBARCHIVE.xattr.x": "~~~~"})
    path.write_bytes(path.read_bytes().replace(b"~~~~", b"\xff\xfe\x00\x80"))
    assert [sample.members["txt"] for sample in read_shard(path)] == [b"river"]


def test_a_name_longer_than_any_path_is_refused(tmp_path: Path) -> None:
    """The index of a shard holds every key in the width of the longest."""
    path = tar_of(tmp_path / "s.tar", pax={"path": "n" * 70_000 + ".txt"})
    with pytest.raises(DataError, match="name of 70004 letters"):
        list(read_shard(path))


@pytest.mark.parametrize("meta", [None, b"[]", b"{", DEEP.encode(), b'{"a": "\\ud800"}', b"\xff"])
def test_a_sample_without_readable_metadata_is_a_data_error(meta: bytes | None) -> None:
    sample = Sample("00000000001", {} if meta is None else {"meta.json": meta})
    with pytest.raises(DataError, match="sample 00000000001"):
        sample.meta  # noqa: B018


def test_a_caption_that_is_no_text_is_a_data_error() -> None:
    with pytest.raises(DataError, match="sample 00000000001"):
        Sample("00000000001", {"txt": b"\xff"}).caption  # noqa: B018


def captions(folder: Path, name: str, data: bytes, kind: str) -> CaptionSetConfig:
    (folder / name).write_bytes(data)
    Image.new("L", (8, 8)).save(folder / "a.png")
    return CaptionSetConfig(kind=kind, path=str(folder / name), images=str(folder))


@pytest.mark.parametrize(
    ("kind", "name", "data"),
    [
        ("jsonl", "c.jsonl", DEEP.encode()),
        ("jsonl", "c.jsonl", b'{"filename": "a.png", "captions": "river"}'),
        ("jsonl", "c.jsonl", b'{"filename": "a.png", "captions": [1]}'),
        ("jsonl", "c.jsonl", b'{"filename": "' + b"a" * 5000 + b'", "captions": ["x"]}'),
        ("jsonl", "c.jsonl.gz", gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 20),
        ("karpathy", "k.json", b'{"images": [{"filename": 1, "split": "train", "sentences": []}]}'),
        ("nwpu", "n.json", b'{"a": [{"filename": "a.png", "split": [], "raw": "x"}]}'),
    ],
)
def test_damaged_captions_are_a_data_error(
    tmp_path: Path, kind: str, name: str, data: bytes
) -> None:
    with pytest.raises(DataError, match=name):
        open_set(captions(tmp_path, name, data, kind))


def test_captions_end_at_line_feeds_only(tmp_path: Path) -> None:
    line = json.dumps({"filename": "a.png", "captions": ["a\u2028b"]}, ensure_ascii=False)
    (image,) = open_set(captions(tmp_path, "c.jsonl", line.encode(), "jsonl"))
    assert image.captions == ("a\u2028b",)


@pytest.mark.parametrize("line", [b"\xff", b'{"file_name": 1}', DEEP.encode()])
def test_a_damaged_table_of_images_is_a_data_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(line)
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        list_foreign(tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "a" * 5000, "a\\u0000.png"])
def test_a_table_of_images_may_name_what_is_not_there(tmp_path: Path, name: str) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    rows = f'{{"file_name": "{name}"}}\n{{"file_name": "a.png", "text": "a\\u0000b\u2028c"}}\n'
    (tmp_path / "metadata.jsonl").write_text(rows)
    listing = list_foreign(tmp_path)
    assert [item.name for item in listing.items] == ["a.png"]
    assert len(listing.left_out) == 1
    (sample,) = read_foreign(tmp_path, listing.items)
    assert sample.caption == "a b c"


@pytest.mark.parametrize("change", [{"id": ["x"]}, {"properties": []}, {"bbox": ["a", 1, 2, 3]},
    {"assets": []}, {"properties": {"sarhpc:band_index": "x"}}, {"id": DEEP[:500]},
    {"properties": {"sarhpc:scale": "x"}}, {"properties": {"datetime": 3}},
    {"assets": {"sar": {"href": 3}}}, {"assets": {"sar": {"href": "http://[x"}}},
])  # fmt: skip
def test_an_item_of_the_wrong_kind_is_a_data_error(
    tmp_path: Path, change: dict[str, object]
) -> None:
    item = {"id": "s", "properties": {}, "assets": {"sar": {"href": "x.tif"}}} | change
    links = [{"rel": "item", "href": "item.json"}]
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "catalog.json").write_text(json.dumps({"links": links}))
    if change == {"id": DEEP[:500]}:
        (tmp_path / "item.json").write_text(DEEP)
    with pytest.raises(DataError, match=r"item\.json"):
        list(StacArchive(tmp_path).search())


@pytest.mark.parametrize("links", ["x", [1], [{"rel": "item"}], [{"rel": "item", "href": 1}]])
def test_links_of_the_wrong_kind_are_a_data_error(tmp_path: Path, links: object) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps({"links": links}))
    with pytest.raises(DataError, match=r"catalog\.json"):
        list(StacArchive(tmp_path).search())


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text", [BOMB, "train: &a [*a]", "[" * 3000, "train: !!timestamp x", "data: !!bool x",
             "train: {validation_prompts: [[x]]}"]
)  # fmt: skip
def test_a_configuration_that_breaks_its_parser_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"given\.yaml"):
        loads(RunConfig, text, source="given.yaml")


@pytest.mark.parametrize("word", ["data=&a [*a]", "data=" + "[" * 3000, "a[=1", "data=${${${"])
def test_an_override_that_breaks_its_parser_is_a_config_error(word: str) -> None:
    with pytest.raises(ConfigError):
        loads(RunConfig, "", [word])


@pytest.mark.parametrize(
    "text", [BOMB, "env: &a {A: *a}", "modules: [[x]]", "env: {A: [x]}", "max_array: 2001-99-99",
             "resources: {nodes: -1}", "\xff"]
)  # fmt: skip
def test_a_profile_that_breaks_its_parser_is_a_config_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"site\.yaml"):
        load_profile(tmp_path / "site.yaml")


@pytest.mark.parametrize(
    "document",
    [
        {"defaults": {"spacing_m": ["a", 1]}}, {"defaults": {"band_index": float("inf")}},
        {"defaults": {"scale": float("nan")}}, {"files": ["a"]},
        {"defaults": {"datetime": "0001-01-01T00:00:00+14:00"}},
    ],
)  # fmt: skip
def test_a_declaration_of_no_use_is_a_config_error(
    tmp_path: Path, document: dict[str, object]
) -> None:
    (tmp_path / "sarhpc.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"sarhpc\.yaml"):
        read_declarations(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", DEEP, "\xff", '{"schema": "sarhpc.shard/1"}'])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("records/000/000000.json", lambda folder: Ledger(folder).records()),
        ("failed/000000.json", lambda folder: Ledger(folder).failures()),
        ("manifest.jsonl", lambda folder: Ledger(folder).records()),
        ("manifest.jsonl", lambda folder: Ledger(folder).totals()),
        ("plan.json", lambda folder: read_plan(folder / "plan.json")),
        ("run.json", lambda folder: RunDir(folder).info),
    ],
)
def test_a_damaged_file_of_a_run_is_a_verification_error(
    tmp_path: Path, text: str, name: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(VerificationError, match=path.name):
        read(tmp_path)


def test_a_failure_replaces_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "000000.json").write_text("[]")
    failure = Failure("000000", "p", 0, 1, "DataError", "no", "2026-01-01T00:00:00Z")
    Ledger(tmp_path).fail(failure)
    assert Ledger(tmp_path).failures() == {"000000": failure}


def test_rows_that_are_no_attempts_are_passed_over(tmp_path: Path) -> None:
    start = {"attempt": 0, "job": "7", "host": "n", "pid": 9, "from": 0}
    rows = [start, [], None, {"attempt": "0"}, {"attempt": 1}, {**start, "element": "x"}]
    text = "\n".join(map(json.dumps, rows)) + "\n" + DEEP
    (tmp_path / "attempts.jsonl").write_text(text)
    assert read_attempts(tmp_path) == [start]


@pytest.mark.parametrize("text", ["n[1-99999999999]", "n[a-b]", "n[-1]", f"n[{'9' * 5000}]"])
def test_a_host_list_of_nothing_or_of_billions_is_refused(text: str) -> None:
    with pytest.raises(HpcError):
        expand_hosts(text)


@pytest.mark.parametrize("job", ["17_[1-99999999999:2]", "17_[a%1]"])
def test_a_job_id_of_nothing_or_of_billions_is_refused(job: str) -> None:
    with pytest.raises(HpcError):
        plain_id(job)


def test_numbers_that_slurm_did_not_print_count_as_unknown() -> None:
    row = ["gpu", "up", "1:00", "x", "²", "9" * 5000, "gpu:" + "9" * 5000, "f", "y"]
    (partition,) = parse_partitions("\x1f".join(row) + "\x1e\n", "State=UP\n")
    assert (partition.kinds[0].count, partition.priority_tier) == (0, None)
    queue = ["7", "PENDING", "", "", "", "", "", "²", "", ""]
    assert parse_queue("\x1f".join(queue) + "\x1e\n")[0].restarts is None
    account = ["7", " ", "²", "", "²", "", "", "", "", "", ""]
    assert parse_accounting("\x1f".join(account) + "\n")[0].state == "UNKNOWN"


def write_tif(path: Path, transform: Affine, dtype: str = "float32") -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=8, height=8, count=1, dtype=dtype, crs="EPSG:32631",
        transform=transform,
    ) as file:  # fmt: skip
        file.write(np.ones((1, 8, 8), dtype))
    return path


@pytest.mark.parametrize(
    "transform",
    [
        Affine(8e-67, 0, 0, 0, -2e-245, 4e94),
        Affine(1, 0, 1e300, 0, -1, 0),
        Affine(1, 1, 0, 1, 1, 0),
    ],
)
def test_a_grid_that_no_image_has_is_refused_before_it_is_planned(
    tmp_path: Path, transform: Affine
) -> None:
    """A plan of tiles over pixels of 1e-60 m never ended."""
    write_tif(tmp_path / "amp.tif", transform)
    declared = {"defaults": {"role": "sar", "range_direction": "+col"}}
    with pytest.raises(DataError, match=r"amp\.tif has"):
        catalog_directory(tmp_path, tmp_path / "out", declarations=declared)


def test_a_complex_image_is_no_optical_one(tmp_path: Path) -> None:
    affine = Affine(1, 0, 6e5, 0, -1, 5.7e6)
    path = write_tif(tmp_path / "slc.tif", affine, "complex64")
    with pytest.raises(DataError, match=r"slc\.tif has complex pixels"):
        read_optical(path, tuple(affine)[:6], "EPSG:32631", (4, 4))


@pytest.mark.parametrize(
    "text", ["<?xml version='1.0' encoding='UTF0'?><a/>", "<a>" * 5000, "<!DOCTYPE a><a/>"]
)
def test_a_damaged_annotation_is_a_data_error(tmp_path: Path, text: str) -> None:
    measurement = tmp_path / "x.SAFE" / "measurement" / "s1.tiff"
    annotation = tmp_path / "x.SAFE" / "annotation" / "s1.xml"
    for path in (measurement, annotation):
        path.parent.mkdir(parents=True)
    measurement.write_bytes(b"")
    annotation.write_text(text)
    with pytest.raises(DataError, match=r"s1\.xml"):
        read_safe(measurement)
    with pytest.raises(DataError, match=r"s1\.xml"):
        burst_layers(measurement)


def test_a_log_with_damaged_lines_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1}\n[]\n{"step": "2"}\n{"st\n{"step": 3}\n\xff'
    )
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 3]


@pytest.mark.parametrize("stamp", ["", "stored-host", "2026-11-29T99:00:00Z", "0001-01-01"])
def test_a_time_that_is_none_is_a_verification_error(stamp: str) -> None:
    with pytest.raises(VerificationError, match="RFC 3339"):
        seconds_of(stamp)
