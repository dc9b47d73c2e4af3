"""Croissant metadata, checked and read by the reference library."""

from __future__ import annotations

import json

import pytest
from corpora import corpus_of, generated

from sarhpc.corpus.croissant import CONFORMS_TO
from sarhpc.corpus.index import read_index
from sarhpc.shards.schema import GEOLOCATION

PLACES = ("spatialCoverage", "coordinateReferenceSystem", "GeoShape", "spatialIndex", *GEOLOCATION)


def test_what_is_known_of_the_pixels_is_stated_and_no_place_is(tmp_path):
    samples = [generated(0, i, band="X", polarization="HH", incidence_deg=45.0) for i in range(3)]
    text = corpus_of(tmp_path, samples).croissant.read_text()
    document = json.loads(text)
    assert document["conformsTo"] == CONFORMS_TO
    assert document["geocr:spatialResolution"]["sc:value"] == 0.35
    assert document["geocr:bandConfiguration"]["geocr:bandNameList"] == ["SAR X HH amplitude"]
    stated = {p["sc:name"]: p["sc:value"] for p in document["sc:additionalProperty"]}
    assert stated["sar:polarizations"] == "HH"
    assert stated["view:incidence_angle"] == 45.0
    assert [word for word in PLACES if word in text] == []
    unknown = [generated(0, i, pixel_m=None, range_direction=None) for i in range(3)]
    document = json.loads(corpus_of(tmp_path, unknown).croissant.read_text())
    assert "geocr:spatialResolution" not in document
    assert "sc:additionalProperty" not in document


@pytest.mark.slow
def test_the_reference_library_validates_it_and_reads_index_and_images(tmp_path, monkeypatch):
    mlcroissant = pytest.importorskip("mlcroissant")
    from etils import epath
    from mlcroissant._src.operation_graph.operations import extract

    # It keeps what it extracted by the name of the tar, which every corpus shares.
    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "cache"))
    shards = [generated(0, 0, labels={"class": "town"}), generated(0, 1)], [], [generated(2, 0)]
    corpus = corpus_of(tmp_path, *shards)
    dataset = mlcroissant.Dataset(str(corpus.croissant))  # raises where the document is not valid
    assert dataset.metadata.issues.errors == set()
    rows = list(read_index(corpus.index))
    records = list(dataset.records("index"))
    assert [r["index/prompt"].decode() for r in records] == [row["prompt"] for row in rows]
    assert [r["index/seed"] for r in records] == [row["seed"] for row in rows]
    images = sorted(dataset.records("images"), key=lambda record: record["images/key"])
    assert [r["images/key"].decode() for r in images] == [row["key"] for row in rows]
    assert {r["images/image"].size for r in images} == {(24, 16)}


@pytest.mark.slow
def test_every_digest_and_size_is_that_of_its_file(tmp_path):
    from hpc.publish import digest_file

    corpus = corpus_of(tmp_path, [generated(0, 0)], [generated(1, 0)])
    files = [f for f in json.loads(corpus.croissant.read_text())["distribution"] if "sha256" in f]
    assert [f["contentUrl"] for f in files] == ["index.parquet", "000000.tar", "000001.tar"]
    for file in files:
        digest = digest_file(tmp_path / file["contentUrl"])
        assert file["sha256"] == digest.sha256
        assert file["contentSize"] == f"{digest.bytes} B"
