"""The card of a corpus, its code run as it is printed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from corpora import FACTS, corpus_of, generated
from huggingface_hub import DatasetCard

from sarhpc.corpus.facts import Gate, Licence, Score
from sarhpc.shards.contract import LawSpan, PixelContract, read_contract


def code_of(card: str, library: str) -> str:
    """The Python block of the card that imports `library`."""
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if f"import {library}" in block]
    return block


def test_the_card_states_counts_sizes_hashes_splits_and_licences(tmp_path):
    facts = replace(
        FACTS,
        licences=[Licence("base model sd15", "CreativeML OpenRAIL-M", "https://example.org/l")],
        scores=[Score("E3_jsd", 0.01234, "p = 0.2, 95 % lie below 0.02")],
        gates=[Gate("E1 ENL mode, synthetic / real", 1.052, "0.9 to 1.1", "pass")],
    )
    gate = {"verdict": "accepted", "reasons": []}
    samples = [generated(0, index, gate=gate) for index in range(5)]
    card = corpus_of(tmp_path, samples, facts=facts).card.read_text()
    assert "**Every image here is synthetic.**" in card
    shard = (tmp_path / "000000.tar").stat().st_size
    for line in (
        "| images | 5 |", "| image size | 24 x 16 px |", f"| bytes | {shard:,} in the shards",
        "`m1`", "`c1`", "| steps | 20 |", "| left out: not_finite | 3 |",
        "| accepted | 5 |", "| E3_jsd | 0.01234 | p = 0.2, 95 % lie below 0.02 |",
        "| E1 ENL mode, synthetic / real | 1.05 | 0.9 to 1.1 | pass |",
        "- base model sd15: CreativeML OpenRAIL-M (https://example.org/l)",
        "near range at column 0, range grows with columns", "pixel spacing 0.35 m",
        "| split train | ",
    ):  # fmt: skip
        assert line in card, line


def test_what_the_images_do_not_state_is_not_in_the_card(tmp_path):
    samples = [generated(0, index, pixel_m=None, range_direction=None) for index in range(2)]
    card = corpus_of(tmp_path, samples).card.read_text()
    assert "- `sar.png`: 8-bit gray image;\n" in card
    assert "The run does not state them" in card
    assert "was not compared with real tiles yet: `sarhpc evaluate RUN`" in card
    assert "package RUN` then writes the distances into this card" in card
    mixed = [generated(0, 0, pixel_m=0.35), generated(0, 1, pixel_m=0.5)]
    assert "pixel spacing" not in corpus_of(tmp_path, mixed).card.read_text()


def test_truncated_prompts_are_counted(tmp_path):
    card = corpus_of(tmp_path, [generated(0, 0), generated(0, 1, prompt_tokens_cut=7)]).card
    assert "| images of prompts longer than the model reads | 1 |" in card.read_text()


def test_a_name_with_a_colon_leaves_the_front_matter_whole(tmp_path):
    facts = replace(FACTS, name='Corpus: "demo" #1')
    card = corpus_of(tmp_path, [generated(0, 0)], facts=facts).card.read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pretty_name"] == facts.name
    data = DatasetCard(card).data  # as the hub reads it
    assert (data.pretty_name, data.license) == (facts.name, "other")


def test_a_contract_is_published_and_told_and_its_code_inverts_levels(tmp_path, monkeypatch):
    law = LawSpan("db", top=(10.0, 10.0), low=(0.01, 0.01))
    contract = PixelContract(law, "sigma0", (0.35, 0.35), "ground", "+col", licence=("CC-BY-4.0",))
    facts = replace(FACTS, contract=contract)
    card = corpus_of(tmp_path, [generated(0, 0)], facts=facts).card.read_text()
    assert read_contract(tmp_path) == contract
    assert "| calibration | sigma0 |" in card
    assert "`sar16.npy`: the same as the decoder gave it" in card
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    exec(code_of(card, "numpy"), seen)
    assert seen["level_db"] == pytest.approx(20.0, abs=1e-3)
    assert "no contract" in corpus_of(tmp_path, [generated(0, 0)]).card.read_text()


@pytest.mark.slow
def test_the_code_for_webdataset_runs_as_printed(tmp_path, monkeypatch):
    samples = [generated(1, index) for index in range(9)]
    card = corpus_of(tmp_path, [], samples).card.read_text()
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {}
    exec(code_of(card, "webdataset"), seen)
    assert seen["image"].shape == (16, 24)
    assert str(seen["prompt"]).startswith("A SAR image of a river")
    assert set(seen["split"]) == {sample.key for sample in samples}


@pytest.mark.slow
def test_datasets_reads_the_images_with_their_captions(tmp_path, monkeypatch):
    """Without the `configs` of the card it read index.parquet and no image at all.

    The first shard is empty, where features could not be inferred, and metadata differ.
    """
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "corpus"
    samples = [generated(1, 0), generated(1, 1, prompt_tokens_cut=4)], [generated(2, 0, seed=1)]
    card = corpus_of(root, [], *samples).card.read_text()
    monkeypatch.chdir(root)
    seen: dict[str, object] = {}
    exec(code_of(card, "datasets"), seen)
    images, index = seen["images"], seen["index"]
    assert [row["__key__"] for row in images] == [row["key"] for row in index]
    assert images[2]["txt"] == "A SAR image of a river 2 0"
    assert images[2]["sar.png"].size == (24, 16)
    assert index[1]["prompt_tokens_cut"] == 4
