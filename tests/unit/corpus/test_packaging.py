from __future__ import annotations

import hashlib
import json
import weakref
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import FACTS, corpus_of, generated, shards_of
from small_disk import small_disk

from hpc.errors import DataError, TransientError, VerificationError
from sarhpc.corpus.index import COLUMNS, read_index, write_index
from sarhpc.corpus.packaging import package_corpus
from sarhpc.shards.sample import Sample, encode_json


def test_the_index_lists_every_image_with_every_parameter_that_made_it(tmp_path):
    steered = {"layer": "segmentation", "scale": 0.5, "tile": "00000000007", "sha256": "s7"}
    whole = generated(
        0, 2, negative_prompt="blur", guidance_rescale=0.7, adapter_sha="a1", adapter_weight=0.5,
        steered_by=steered, labels={"class": "water", "season": "winter", "target": 7},
        incidence_deg=45.0, gate={"verdict": "accepted", "reasons": []}, prompt_tokens_cut=7,
        noise="pink",
    )  # fmt: skip
    corpus = corpus_of(tmp_path, [generated(0, 0), whole], [], [generated(2, 0)])
    assert (corpus.samples, corpus.shards, corpus.prompts) == (3, 3, 3)
    rows = pq.read_table(corpus.index).to_pylist()
    assert [row["key"] for row in rows] == ["00000000000", "00000000002", "00000200000"]
    assert [row["shard"] for row in rows] == ["000000.tar", "000000.tar", "000002.tar"]
    row = rows[1]
    assert row["sha256"] == hashlib.sha256(whole.members["sar.png"]).hexdigest()
    for name, value in whole.meta.items():
        if name in COLUMNS.names and name != "labels":
            assert row[name] == value, name
    assert (row["width_px"], row["height_px"]) == (24, 16)
    assert (row["label"], json.loads(row["labels"])["season"]) == ("water", "winter")
    assert row["target"] == "7"
    assert (row["steered_layer"], row["steered_scale"]) == ("segmentation", 0.5)
    assert (row["verdict"], row["verdict_reasons"]) == ("accepted", None)
    assert json.loads(row["parameters"]) == {"noise": "pink"}
    assert rows[0]["steered_layer"] is rows[0]["verdict"] is rows[0]["parameters"] is None


def test_offset_and_size_find_the_image_in_its_shard(tmp_path):
    corpus = corpus_of(tmp_path, [generated(0, 0), generated(0, 1)])
    for row in read_index(corpus.index):
        shard = (tmp_path / row["shard"]).read_bytes()
        image = shard[row["offset"] : row["offset"] + row["size"]]
        assert hashlib.sha256(image).hexdigest() == row["sha256"]


def test_a_prompt_of_known_class_labels_its_images(tmp_path):
    samples = [generated(0, 0), generated(0, 1)]
    facts = replace(FACTS, classes={samples[1].meta["prompt"]: "town"})
    corpus = corpus_of(tmp_path, samples, facts=facts)
    assert [row["label"] for row in read_index(corpus.index)] == [None, "town"]
    assert "| town | 1 |\n| no class known | 1 |" in corpus.card.read_text()


def test_packaging_again_gives_the_same_bytes(tmp_path):
    shards = shards_of(tmp_path, [generated(0, 0)], [generated(1, 0)])
    first = package_corpus(tmp_path, shards, FACTS)
    files = (first.index, first.card, first.croissant)
    before = [path.read_bytes() for path in files]
    package_corpus(tmp_path, shards, FACTS)
    assert [path.read_bytes() for path in files] == before


def test_a_group_of_rows_is_in_memory_and_not_the_corpus(tmp_path, monkeypatch):
    class Row(dict):
        """One that can be counted while it lives."""

    monkeypatch.setattr("sarhpc.corpus.index.ROWS_PER_GROUP", 10)
    [row] = read_index(corpus_of(tmp_path, [generated(0, 0)]).index)
    alive: weakref.WeakSet[Row] = weakref.WeakSet()
    Row.__hash__ = object.__hash__
    most = 0

    def rows():
        nonlocal most
        for number in range(200):
            made = Row(row, key=f"{number:011d}")
            alive.add(made)
            most = max(most, len(alive))
            yield made

    assert write_index(tmp_path / "index.parquet", rows()) == 200
    assert most <= 21
    assert pq.ParquetFile(tmp_path / "index.parquet").num_row_groups == 20


def test_the_index_of_an_older_corpus_is_still_read(tmp_path):
    """Version 0.1 wrote the first eight columns."""
    old = pa.schema(list(COLUMNS)[:8])
    row = {
        "key": "00000000000", "shard": "000000.tar", "prompt": "a lake", "seed": 5, "sha256": "s",
        "channel_spread": 0.1, "prompt_tokens_cut": 0, "synthetic": True,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row], schema=old), tmp_path / "index.parquet")
    [read] = read_index(tmp_path / "index.parquet")
    assert {name: read[name] for name in row} == row
    assert read["split"] is read["offset"] is None
    assert list(read) == COLUMNS.names


def test_another_table_or_none_is_no_index(tmp_path):
    path = tmp_path / "index.parquet"
    with pytest.raises(DataError, match="cannot read the index"):
        list(read_index(path))
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="cannot read the index"):
        list(read_index(path))
    pq.write_table(pa.table({"name": ["x"]}), path)
    with pytest.raises(DataError, match="no index of a corpus"):
        list(read_index(path))


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (generated(0, 0, synthetic=False), "not marked synthetic"),
        (generated(0, 0, model_sha="m2"), "another run"),
        (generated(0, 0, config_fingerprint="c2"), "another run"),
    ],
)
def test_what_does_not_belong_in_the_corpus_stops_the_packaging(tmp_path, sample, words):
    with pytest.raises(VerificationError, match=words):
        corpus_of(tmp_path, [sample])
    assert [path.name for path in tmp_path.iterdir()] == ["000000.tar"]


@pytest.mark.parametrize("member", ["sar.png", "txt", "meta.json"])
def test_a_sample_without_image_caption_or_metadata_is_named(tmp_path, member):
    whole = generated(0, 1)
    part = Sample(whole.key, {k: v for k, v in whole.members.items() if k != member})
    with pytest.raises(DataError, match=f"00000000001 of .*000000.tar has no {member}"):
        corpus_of(tmp_path, [generated(0, 0), part])


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "many"), ("steps", True), ("seed", 2**63), ("prompt", None), ("guidance", "7"),
     ("band", 5)],
)  # fmt: skip
def test_metadata_of_another_type_are_named(tmp_path, name, value):
    sample = generated(0, 3)
    meta = encode_json({**sample.meta, name: value})
    damaged = Sample(sample.key, {**sample.members, "meta.json": meta})
    with pytest.raises(DataError, match=rf"sample 00000000003 of .*0\.tar has {name} "):
        corpus_of(tmp_path, [damaged])


def test_a_key_in_two_shards_stops_the_packaging(tmp_path):
    with pytest.raises(VerificationError, match="shard numbers repeat"):
        corpus_of(tmp_path, [generated(0, 0)], [generated(0, 0)])


def test_a_shard_that_was_cut_short_is_named_and_the_former_index_stays(tmp_path):
    shards = shards_of(tmp_path, [generated(0, 0)], [generated(1, 0)])
    before = package_corpus(tmp_path, shards, FACTS).index.read_bytes()
    shards[1].path.write_bytes(shards[1].path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"000001\.tar is cut short"):
        package_corpus(tmp_path, shards, FACTS)
    assert (tmp_path / "index.parquet").read_bytes() == before


def test_a_full_disk_keeps_what_was_published(tmp_path):
    with small_disk(tmp_path / "disk", "size=160k") as disk:
        shards = shards_of(disk, [generated(0, index) for index in range(20)])
        before = package_corpus(disk, shards, FACTS).index.read_bytes()
        (disk / "ballast").write_bytes(bytes(8 << 10))
        with pytest.raises(OSError, match="No space left"), (disk / "ballast").open("ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        with pytest.raises(TransientError, match="no space left while writing"):
            package_corpus(disk, shards, FACTS)
        assert (disk / "index.parquet").read_bytes() == before
        (disk / "ballast").unlink()
        assert package_corpus(disk, shards, FACTS).index.read_bytes() == before
