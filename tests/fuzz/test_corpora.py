"""Indexes of corpora that were damaged, and shards of them with odd metadata."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import pytest
from case_counts import each
from corpora import FACTS, corpus_of, generated, shards_of
from document_mutations import as_json, damaged
from file_mutations import mutated
from isolated_cases import problem_of

from sarhpc.corpus.export import LAYOUTS, export_corpus
from sarhpc.corpus.packaging import package_corpus
from sarhpc.corpus.reading import corpus_rows
from sarhpc.shards.sample import Sample

LABELS = {"class": "town", "pair_id": "p1", "target": "truck"}


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
        sample = generated(0, 0, labels=LABELS, gate={"verdict": "accepted", "reasons": ["x"]})
        meta = as_json(damaged(sample.meta, random), random)
        odd = Sample(sample.key, {**sample.members, "meta.json": meta})
        shards = shards_of(root, [odd, generated(0, 1)])

        def use() -> None:
            package_corpus(root, shards, FACTS)
            for layout in LAYOUTS.values():
                export_corpus(root, Path(name) / layout.name, layout)

        problem = problem_of(use, ["000000.tar", "sample 00000000000", "index.parquet"])
    assert problem is None, (problem, meta)


CHECKS = (check_index, check_metadata)


@pytest.mark.parametrize("check", CHECKS)
def test_a_damaged_corpus_is_read_or_refused_by_name(check: Callable[[Random], None]) -> None:
    each(25, check)


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS)
def test_many_damaged_corpora(check: Callable[[Random], None]) -> None:
    each(200, check)
