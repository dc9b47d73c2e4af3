"""Packaging a finished corpus: index, dataset card and Croissant metadata beside its shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.publish import digest_file, publish_json, publish_text
from sarhpc.corpus.card import render_card
from sarhpc.corpus.croissant import croissant_metadata
from sarhpc.corpus.duplicates import flagging
from sarhpc.corpus.facts import CorpusFacts, ShardFile
from sarhpc.corpus.index import INDEX, write_index
from sarhpc.corpus.rows import Origin, shard_rows
from sarhpc.corpus.tally import Tally
from sarhpc.shards.contract import CONTRACT_FILE

CARD = "README.md"
CROISSANT = "croissant.json"


@dataclass(frozen=True)
class Corpus:
    """A packaged corpus: its files and its counts."""

    index: Path
    card: Path
    croissant: Path
    samples: int
    shards: int
    prompts: int


def package_corpus(root: Path, shards: Sequence[ShardFile], facts: CorpusFacts) -> Corpus:
    """Publish `index.parquet`, `README.md` and `croissant.json` in `root` for the finished shards.

    The index has one row per image with every parameter that made it (`corpus.index.COLUMNS`);
    the card tells people, `croissant.json` programs, what the corpus is and how to read it. Equal
    shards and facts give equal bytes. Shards are read one sample at a time. With a contract,
    `contract.json` is published beside them.

    Raises:
        VerificationError: a key is repeated, or a sample is not a synthetic one of this model.
        DataError: a shard is damaged, or a sample lacks its image, caption or metadata.
        TransientError: the disk or a quota is full; what was published before stays.
    """
    tally = Tally()
    origin = Origin(facts.model_sha, facts.config_fingerprint, facts.classes)
    bits = None if facts.image_gate is None else facts.image_gate.duplicate_bits
    rows = flagging(_rows(root, shards, origin), bits)
    index = root / INDEX
    write_index(index, tally.counting(rows))
    names = [_name(root, shard) for shard in shards]
    card, croissant = root / CARD, root / CROISSANT
    if facts.contract is not None:
        publish_json(root / CONTRACT_FILE, facts.contract.to_json())
    publish_text(card, render_card(facts, tally, shards, names))
    digest = digest_file(index)
    document = croissant_metadata(
        facts, tally, shards, names, ShardFile(index, digest.bytes, digest.sha256)
    )
    publish_json(croissant, document)
    return Corpus(index, card, croissant, tally.samples, len(shards), tally.prompts)


def _rows(root: Path, shards: Sequence[ShardFile], origin: Origin) -> Iterator[Mapping[str, Any]]:
    for shard in shards:
        yield from shard_rows(shard.path, _name(root, shard), origin)


def _name(root: Path, shard: ShardFile) -> str:
    """Path of a shard relative to the corpus, with slashes."""
    return Path(os.path.relpath(shard.path, root)).as_posix()
