from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertTokenizerFast

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.tuning.tokenizer import SPECIAL_TOKENS, train_bert_tokenizer, word_pieces

pytestmark = pytest.mark.slow

CAPTIONS = ["A dense dark forest.", "ripe fields, divided by paths", "a town of red roofs"]


@pytest.fixture(scope="module")
def rsicd_captions(test_data: Path) -> list[str]:
    path = test_data / "captions_rs" / "textaug_test_rsicd.jsonl.gz"
    with gzip.open(path, "rt") as file:
        return [caption for line in file for caption in json.loads(line)["captions"]]


def test_a_saved_tokenizer_loads_and_returns_the_captions(tmp_path: Path) -> None:
    train_bert_tokenizer(CAPTIONS, 200, tmp_path)
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    for caption in CAPTIONS:
        ids = tokenizer(caption).input_ids
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == caption.lower()


def test_blip_finds_its_own_tokens(tmp_path: Path) -> None:
    train_bert_tokenizer(CAPTIONS, 200, tmp_path)
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(7))
    assert tokenizer.bos_token == "[DEC]"
    assert "[ENC]" in tokenizer.all_special_tokens
    assert len(tokenizer) <= 200


def test_equal_captions_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer;"
        "train_bert_tokenizer(sys.argv[2:], 90, Path(sys.argv[1]))"
    )
    here, there = tmp_path / "here", tmp_path / "there"
    train_bert_tokenizer(CAPTIONS, 90, here)
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", script, str(there), *CAPTIONS]
    subprocess.run(command, env=environment, check=True)
    files = [path.name for path in here.iterdir()]
    assert sorted(files) == ["tokenizer.json", "tokenizer_config.json"]
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in files)


def test_frequent_words_become_one_piece_and_unseen_ones_are_spelt(
    rsicd_captions: list[str],
) -> None:
    tokenizer = train_bert_tokenizer(rsicd_captions, 1000)
    assert len(tokenizer) == 1000
    assert tokenizer.tokenize("trees near a building") == ["trees", "near", "a", "building"]
    pieces = tokenizer.tokenize("treebuilding")
    assert len(pieces) > 1
    assert "[UNK]" not in pieces


def test_the_most_frequent_pair_is_merged_first_and_ties_are_settled_by_the_alphabet() -> None:
    assert word_pieces(["ab ab ab cd cd aab"], 200)[len(SPECIAL_TOKENS) :] == [
        "##a",
        "##b",
        "##d",
        "a",
        "c",
        "ab",
        "cd",
        "##ab",
        "aab",
    ]


def test_too_small_a_vocabulary_and_no_captions_are_errors() -> None:
    with pytest.raises(ConfigError, match="no room"):
        word_pieces(CAPTIONS, 20)
    with pytest.raises(DataError, match="no captions"):
        word_pieces(["", "  "], 100)
