"""Indexes of corpora that were damaged, and shards of them with odd metadata."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from case_counts import each
from corpora import FACTS, corpus_of, generated, shards_of
from document_mutations import as_json, damaged
from file_mutations import mutated
from isolated_cases import problem_of

from sarhpc.corpus.export import LAYOUTS, export_corpus
from sarhpc.corpus.packaging import package_corpus
from sarhpc.corpus.reading import corpus_rows
from sarhpc.shards.images import encode_array
from sarhpc.shards.radiometry import Normalisation
from sarhpc.shards.sample import Sample

LABELS = {"class": "town", "pair_id": "p1", "target": "truck"}
MASTERED = {
    "normalisation": Normalisation("db", None, None, 10.0, 0.01).to_json(),
    "master_law": "level",
    "contract_sha": "0" * 64,
}
"""Metadata of an image with a 16-bit master."""


def with_master(sample: Sample) -> Sample:
    levels = np.linspace(0, 65535, 16 * 24).reshape(16, 24).astype(np.uint16)
    return Sample(sample.key, {**sample.members, "sar16.npy": encode_array(levels)})


@cache
def whole_index() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        samples = [generated(0, index, labels=LABELS) for index in range(40)]
        return corpus_of(Path(name), samples).index.read_bytes()


def check_index(random: Random) -> None:
    data = mutated(whole_index(), str(random.random()), b"splice")[1]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "index.parquet").write_bytes(data)
        problem = problem_of(lambda: list(corpus_rows(Path(name))), [name])
    assert problem is None, (problem, data[:2000])


def check_metadata(random: Random) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "corpus"
        gate = {"verdict": "accepted", "reasons": ["x"]}
        sample = generated(0, 0, labels=LABELS, gate=gate, **MASTERED)
        meta = as_json(damaged(sample.meta, random), random)
        odd = with_master(Sample(sample.key, {**sample.members, "meta.json": meta}))
        shards = shards_of(root, [odd, with_master(generated(0, 1, **MASTERED))])

        def use() -> None:
            package_corpus(root, shards, FACTS)
            for layout in LAYOUTS.values():
                export_corpus(root, Path(name) / layout.name, layout)

        names = ["000000.tar", "sample 00000000000", "image 00000000000", "index.parquet"]
        problem = problem_of(use, names)
    assert problem is None, (problem, meta)


CHECKS = (check_index, check_metadata)


@pytest.mark.parametrize("check", CHECKS)
def test_a_damaged_corpus_is_read_or_refused_by_name(check: Callable[[Random], None]) -> None:
    each(25, check)


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS)
def test_many_damaged_corpora(check: Callable[[Random], None]) -> None:
    each(200, check)
