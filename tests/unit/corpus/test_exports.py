"""Corpora in other layouts, read by the programs that they are for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import corpus_of, generated

from hpc.errors import ConfigError, DataError, HpcError, TransientError, VerificationError
from sarhpc.cli import main
from sarhpc.corpus import export as exporting
from sarhpc.corpus.export import LAYOUTS, export_corpus
from sarhpc.corpus.index import COLUMNS, read_index
from sarhpc.corpus.splits import split_group, split_of
from sarhpc.shards.foreign import list_foreign, read_foreign
from sarhpc.shards.images import decode_array, decode_gray8, encode_array
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.reader import read_shard
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow

CLASSES = ("water", "town", "")
LAW = Normalisation("db", None, None, 10.0, 0.01)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Forty images in three shards, one of them empty."""
    return corpus_in(tmp_path / "corpus")


def corpus_in(root: Path, **meta: Any) -> Path:
    samples = [
        generated(s, i, labels={"class": CLASSES[i % 3]}, **meta) for s in (0, 2) for i in range(20)
    ]
    if meta:
        levels = encode_array(np.linspace(0, 65535, 16 * 24).reshape(16, 24).astype(np.uint16))
        samples = [Sample(s.key, {**s.members, "sar16.npy": levels}) for s in samples]
    corpus_of(root, samples[:20], [], samples[20:])
    return root


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def images_of(root: Path) -> dict[str, Sample]:
    return {s.key: s for path in sorted(root.glob("*.tar")) for s in read_shard(path)}


@pytest.mark.slow
def test_datasets_reads_an_image_folder_with_its_splits(corpus, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    out = tmp_path / "out"
    assert export_corpus(corpus, out, LAYOUTS["imagefolder"]).images == 40
    read = datasets.load_dataset("imagefolder", data_dir=str(out))
    rows = {row["key"]: row for row in read_index(corpus / "index.parquet")}
    names = {"train": "train", "validation": "val", "test": "test"}
    assert {name: len(part) for name, part in read.items()} == {
        name: sum(row["split"] == split for row in rows.values()) for name, split in names.items()
    }
    for name, part in read.items():
        for item in part:
            row = rows[item["key"]]
            assert (row["split"], row["prompt"]) == (names[name], item["text"])
            stored = images_of(corpus)[item["key"]].members["sar.png"]
            assert np.array_equal(np.asarray(item["image"]), decode_gray8(stored))


def test_image_folders_are_by_split_and_class(corpus, tmp_path):
    out = tmp_path / "out"
    export_corpus(corpus, out, LAYOUTS["imagefolder"])
    for row in read_index(corpus / "index.parquet"):
        folder = out / row["split"] / (row["label"] or "unlabelled")
        assert list(folder.rglob(f"{row['key']}.png")), row
    listed = list_foreign(out).items  # our own reader of third-party images
    assert len(listed) == 40


@pytest.mark.slow
def test_a_cog_has_the_pixels_and_a_spacing_and_no_place(corpus, tmp_path):
    import rasterio

    out = tmp_path / "out"
    export_corpus(corpus, out, LAYOUTS["cog"])
    files = sorted(out.rglob("*.tif"))
    assert len(files) == 40
    stored = images_of(corpus)
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no place
            opened = rasterio.open(path)
        with opened as file:
            sample = stored[path.stem]
            assert np.array_equal(file.read(1), decode_gray8(sample.members["sar.png"]))
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert (file.crs, file.transform.is_identity, file.gcps) == (None, True, ([], None))
            tags = file.tags()
            assert (tags["SYNTHETIC"], tags["PIXEL_SPACING_M"]) == ("YES", "0.35")
            assert float(tags["TIFFTAG_XRESOLUTION"]) == pytest.approx(0.01 / 0.35)
            assert tags["PROMPT"] == sample.caption
    root = tmp_path / "unknown"
    corpus_of(root, [generated(0, 0, pixel_m=None)])
    export_corpus(root, tmp_path / "o", LAYOUTS["cog"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(next((tmp_path / "o").rglob("*.tif"))) as file:
            assert not {"PIXEL_SPACING_M", "TIFFTAG_XRESOLUTION"} & file.tags().keys()


@pytest.mark.slow
def test_loaders_of_sarlo_80_read_the_export(corpus, tmp_path):
    import webdataset

    out = tmp_path / "out"
    export_corpus(corpus, out, LAYOUTS["sarlo80"])
    rows = {row["key"]: row for row in read_index(corpus / "index.parquet")}
    shards = sorted(str(path) for path in out.rglob("*.tar"))
    pipeline = webdataset.WebDataset(shards, shardshuffle=False).decode("l8")
    seen = set()
    for key, url, image, array, meta in pipeline.to_tuple(
        "__key__", "__url__", "sar.png", "sar.npy", "meta.json"
    ):
        seen.add(key)
        split, chunk, shard = Path(url).relative_to(out).parts
        number = Path(rows[key]["shard"]).stem[1:]
        assert (split, chunk, shard) == (rows[key]["split"], "chunk_000", f"shard-{number}.tar")
        assert (meta["Nb_pixel_a"], meta["Nb_pixel_r"]) == image.shape == array.shape
        assert array.dtype == np.complex64
        assert meta["spacing_eff_az"] == meta["spacing_eff_rg"] == 0.35
        assert set(meta["incidence_angles"]) == {"terrain_deg", "ellipsoid_deg", "sicd_deg"}
        assert {meta["caption"][size] for size in ("SHORT", "MID", "LONG")} == {rows[key]["prompt"]}
        assert meta["city"] is meta["bbox_llh"] is meta["bbox_ecf"] is meta["phase"] is None
        assert meta["synthetic"] is True
    assert seen == set(rows)
    items = list_foreign(out).items  # the reader of this project for the public set
    first = items[0]
    [read] = read_foreign(out, [first])
    assert (read.caption, set(read.layers)) == (rows[first.name]["prompt"], {"sar.npy"})


@pytest.mark.slow
def test_datasets_reads_the_layout_of_sarlo_80_but_for_complex_arrays(
    corpus, tmp_path, monkeypatch
):
    """Without the header of the README it failed on them."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_corpus(corpus, tmp_path / "out", LAYOUTS["sarlo80"])
    read = datasets.load_dataset(str(tmp_path / "out"))
    rows = list(read_index(corpus / "index.parquet"))
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        keys = [row["key"] for row in rows if row["split"] == split]
        assert [item["__key__"] for item in read[name]] == keys
    assert read["train"][0]["sar.png"].size == (24, 16)
    assert read["train"][0]["meta.json"]["caption"]["LONG"].startswith("A SAR image")


def test_the_modulus_of_an_exported_array_is_the_amplitude_of_the_contract(tmp_path):
    sample = generated(0, 0, normalisation=LAW.to_json(), master_law="level")
    levels = np.linspace(0, 65535, 16 * 24).reshape(16, 24).astype(np.uint16)
    master = Sample(sample.key, {**sample.members, "sar16.npy": encode_array(levels)})
    corpus_of(tmp_path / "corpus", [master])
    export_corpus(tmp_path / "corpus", tmp_path / "out", LAYOUTS["sarlo80"])
    [shard] = (tmp_path / "out").rglob("*/shard-00000.tar")
    [read] = read_shard(shard)
    array = decode_array(read.members["sar.npy"])
    expected = LAW.amplitudes(levels / np.float32(65535))
    assert np.allclose(array.real, expected, rtol=1e-6)
    assert array.imag.any() is np.False_
    assert np.abs(array).max() == pytest.approx(10.0)
    assert np.abs(array).min() == pytest.approx(0.01)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_an_interrupted_export_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, layout):
    stated = {"normalisation": LAW.to_json(), "master_law": "level", "contract_sha": "0" * 64}
    meta = stated if layout == "cog-db" else {}
    corpus = corpus_in(tmp_path / "corpus", **meta)
    whole, out = tmp_path / "whole", tmp_path / "out"
    export_corpus(corpus, whole, LAYOUTS[layout])
    monkeypatch.setenv("SARHPC_FAULT", "publish.before_rename:4:raise")
    monkeypatch.setattr("hpc.publish._passages", {})
    with pytest.raises(HpcError, match="fault injected"):
        export_corpus(corpus, out, LAYOUTS[layout])
    monkeypatch.delenv("SARHPC_FAULT")
    begun = contents(out)
    assert not json.loads(begun.pop("export.json")).get("complete")
    assert 0 < len(begun) < len(contents(whole)) - 1
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    assert export_corpus(corpus, out, LAYOUTS[layout]).images == 40
    assert contents(out) == contents(whole)
    kept = [p for p, at in written.items() if p.name != "export.json"]
    assert all(path.stat().st_mtime_ns == written[path] for path in kept)
    assert export_corpus(corpus, out, LAYOUTS[layout]).already


def test_a_full_disk_keeps_what_was_written_and_says_so(corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setenv("SARHPC_FAULT", "publish.before_fsync:4:enospc")
    monkeypatch.setattr("hpc.publish._passages", {})
    with pytest.raises(TransientError, match="no space left while writing"):
        export_corpus(corpus, out, LAYOUTS["imagefolder"])
    monkeypatch.delenv("SARHPC_FAULT")
    assert len(list(out.rglob("*.png"))) == 2
    assert export_corpus(corpus, out, LAYOUTS["imagefolder"]).images == 40


def test_what_cannot_fit_is_refused_before_anything_is_written(corpus, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize, f_files, f_favail = 1, 4096, 100, 3

    monkeypatch.setattr(exporting.os, "statvfs", lambda _: Full)
    with pytest.raises(TransientError, match=r"needs about .* free"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["cog"])
    Full.f_bavail = 1 << 30
    with pytest.raises(TransientError, match=r"40 files, and .* has 3 inodes left"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["imagefolder"])
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_is_named(corpus, tmp_path):
    shard = corpus / "000002.tar"
    whole = shard.read_bytes()
    row = list(read_index(corpus / "index.parquet"))[-1]
    flipped = bytearray(whole)
    flipped[row["offset"] + row["size"] - 20] ^= 1
    shard.write_bytes(bytes(flipped))
    with pytest.raises(VerificationError, match=f"sample {row['key']} in .*000002.tar is not the"):
        export_corpus(corpus, tmp_path / "a", LAYOUTS["imagefolder"])
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"000002\.tar is cut short"):
        export_corpus(corpus, tmp_path / "b", LAYOUTS["sarlo80"])
    assert list((tmp_path / "b").rglob("shard-00002.tar")) == []
    shard.unlink()
    with pytest.raises(DataError, match=r"cannot open shard .*000002\.tar"):
        export_corpus(corpus, tmp_path / "c", LAYOUTS["imagefolder"])
    shard.write_bytes(whole)
    assert export_corpus(corpus, tmp_path / "a", LAYOUTS["imagefolder"]).images == 40


def test_the_verb_exits_with_4_for_a_damaged_corpus(corpus, tmp_path, capsys):
    whole = (corpus / "000002.tar").read_bytes()
    words = ["export-corpus", str(corpus), str(tmp_path / "out"), "--layout", "imagefolder"]
    (corpus / "000002.tar").write_bytes(whole[:-2000])
    assert main(words) == 4
    assert "000002.tar is cut short" in capsys.readouterr().err
    (corpus / "000002.tar").write_bytes(b"no tar at all".ljust(len(whole), b"."))
    assert main(words) == 4
    (corpus / "000002.tar").write_bytes(whole)
    (corpus / "index.parquet").write_bytes(b"damaged")
    assert main(words) == 4
    assert "index.parquet" in capsys.readouterr().err


def test_a_shard_without_an_indexed_sample_is_named(corpus, tmp_path):
    (corpus / "000002.tar").write_bytes((corpus / "000001.tar").read_bytes())
    with pytest.raises(VerificationError, match=r"000002\.tar lacks 20 samples"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["imagefolder"])


def test_folders_that_hold_something_else_are_refused(corpus, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no export of a corpus"):
        export_corpus(corpus, other, LAYOUTS["cog"])
    assert contents(other) == {"notes.txt": b"mine"}
    with pytest.raises(ConfigError, match="is inside of the corpus"):
        export_corpus(corpus, corpus / "out", LAYOUTS["cog"])
    out = tmp_path / "out"
    export_corpus(corpus, out, LAYOUTS["imagefolder"], ["val"])
    with pytest.raises(ConfigError, match="export of another layout, splits"):
        export_corpus(corpus, out, LAYOUTS["cog"])
    with pytest.raises(DataError, match=r"holds no index\.parquet"):
        export_corpus(tmp_path / "nothing", tmp_path / "o", LAYOUTS["cog"])


def test_an_index_that_names_a_shard_elsewhere_is_refused(corpus, tmp_path):
    rows = [{**row, "shard": f"../{row['shard']}"} for row in read_index(corpus / "index.parquet")]
    pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), corpus / "index.parquet")
    with pytest.raises(DataError, match="outside of"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["cog"])


def test_a_key_that_leaves_the_folder_is_refused(corpus, tmp_path):
    rows = [{**row, "key": "../../x"} for row in read_index(corpus / "index.parquet")]
    pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), corpus / "index.parquet")
    with pytest.raises(DataError, match="which names no file"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["imagefolder"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 5}', "\xff"])
def test_a_damaged_marker_is_refused(corpus, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text(text)
    with pytest.raises(ConfigError, match=r"is no export of a corpus|export of another"):
        export_corpus(corpus, tmp_path / "out", LAYOUTS["imagefolder"])


def test_a_corpus_of_version_0_1_is_exported_with_splits(corpus, tmp_path):
    """Its index has no splits, classes and sizes."""
    old = pa.schema(list(COLUMNS)[:8])
    table = pq.read_table(corpus / "index.parquet").select(old.names).cast(old)
    pq.write_table(table, corpus / "index.parquet")
    assert export_corpus(corpus, tmp_path / "out", LAYOUTS["imagefolder"]).images == 40
    for key, sample in images_of(corpus).items():
        split = split_of(split_group(sample.meta))
        assert (tmp_path / "out" / split / "unlabelled" / key[:6] / f"{key}.png").is_file()
