from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hpc.errors import VerificationError
from sarhpc.generation.corpus import CorpusFacts, package_corpus
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json, sample_key
from sarhpc.shards.writer import write_shard

FACTS = CorpusFacts(
    name="Toy corpus",
    model_sha="m1",
    config_fingerprint="c1",
    settings={"steps": 20, "scheduler": "ddim"},
    rejected={"not_finite": 3},
)


def made(shard: int, index: int, **changes: object) -> Sample:
    key = sample_key(shard, index)
    meta = {
        "key": key,
        "synthetic": True,
        "prompt": f"a river {index}",
        "seed": 2**63 - 1 - index,
        "model_sha": "m1",
        "config_fingerprint": "c1",
        "channel_spread": 0.25,
        **changes,
    }
    png = encode_gray8(np.full((4, 4), index, np.uint8))
    return Sample(key, {"sar.png": png, "txt": b"a river", "meta.json": encode_json(meta)})


def write(root: Path, *shards: list[Sample]) -> list[Path]:
    paths = [root / "train" / f"{number:06d}.tar" for number in range(len(shards))]
    for path, samples in zip(paths, shards, strict=True):
        write_shard(path, samples)
    return paths


def test_the_index_lists_every_image_with_its_origin_and_hash(tmp_path):
    shards = write(tmp_path, [made(0, 0), made(0, 2)], [], [made(2, 0)])
    corpus = package_corpus(tmp_path, shards, FACTS)
    assert (corpus.samples, corpus.shards, corpus.prompts) == (3, 3, 2)
    rows = pq.read_table(corpus.index).to_pylist()
    assert [row["key"] for row in rows] == ["00000000000", "00000000002", "00000200000"]
    assert rows[1] == {
        "key": "00000000002",
        "shard": "train/000000.tar",
        "prompt": "a river 2",
        "seed": 2**63 - 3,
        "sha256": hashlib.sha256(made(0, 2).members["sar.png"]).hexdigest(),
        "channel_spread": 0.25,
        "prompt_tokens_cut": 0,
        "synthetic": True,
    }


def test_the_card_says_synthetic_counts_and_hashes(tmp_path):
    corpus = package_corpus(tmp_path, write(tmp_path, [made(0, 0)]), FACTS)
    card = corpus.card.read_text()
    assert card.startswith("---\npretty_name: Toy corpus\n")
    assert "**Every image here is synthetic.**" in card
    for line in ("| images | 1 |", "`m1`", "`c1`", "| steps | 20 |", "not_finite | 3 |"):
        assert line in card
    assert "{" not in card.replace("{shards}", "")


def test_truncated_prompts_are_counted_in_the_index(tmp_path):
    shards = write(tmp_path, [made(0, 0), made(0, 1, prompt_tokens_cut=7)])
    corpus = package_corpus(tmp_path, shards, FACTS)
    assert [row["prompt_tokens_cut"] for row in pq.read_table(corpus.index).to_pylist()] == [0, 7]
    assert "| images of prompts longer than the model reads | 1 |" in corpus.card.read_text()


def test_packaging_again_gives_the_same_bytes(tmp_path):
    shards = write(tmp_path, [made(0, 0)], [made(1, 0)])
    first = package_corpus(tmp_path, shards, FACTS).index.read_bytes()
    assert package_corpus(tmp_path, shards, FACTS).index.read_bytes() == first


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (made(0, 0, synthetic=False), "not marked synthetic"),
        (made(0, 0, model_sha="m2"), "another run"),
        (made(0, 0, config_fingerprint="c2"), "another run"),
    ],
)
def test_what_does_not_belong_in_the_corpus_stops_the_packaging(tmp_path, sample, words):
    with pytest.raises(VerificationError, match=words):
        package_corpus(tmp_path, write(tmp_path, [sample]), FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]


def test_a_key_in_two_shards_stops_the_packaging(tmp_path):
    shards = write(tmp_path, [made(0, 0)], [made(0, 0)])
    with pytest.raises(VerificationError, match="shard numbers repeat"):
        package_corpus(tmp_path, shards, FACTS)
