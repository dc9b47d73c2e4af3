"""The trained tokenizer is a CLIP tokenizer, is deterministic and loses no byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from hpc.errors import DataError
from sarhpc.diffusion.tokenizer import MIN_VOCAB_SIZE, load_clip_tokenizer, train_clip_tokenizer

CAPTIONS = [
    "An aerial view of a river that crosses farmland",
    "An aerial view of a dense forest with a road in the far range",
    "A SAR image of a village near a forest",
    "A SAR image of bare fields and a road, X-band, 0.35 m",
] * 3


@pytest.fixture
def trained(tmp_path: Path) -> CLIPTokenizer:
    return train_clip_tokenizer(CAPTIONS, 640, tmp_path / "tokenizer")


def test_transformers_loads_the_folder_and_reads_the_same(
    tmp_path: Path, trained: CLIPTokenizer
) -> None:
    loaded = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    for caption in CAPTIONS:
        assert loaded(caption).input_ids == trained(caption).input_ids


def test_a_prompt_is_framed_and_padded_as_clip_does(trained: CLIPTokenizer) -> None:
    ids = trained("a forest", padding="max_length", truncation=True).input_ids
    assert len(ids) == 77
    assert ids[0] == trained.convert_tokens_to_ids("<|startoftext|>") == len(trained) - 2
    end = trained.convert_tokens_to_ids("<|endoftext|>")
    assert ids[-1] == end == len(trained) - 1
    assert ids.index(end) == 3, "two words of the captions are one token each"


def test_long_prompts_are_cut_with_the_end_marker_kept(trained: CLIPTokenizer) -> None:
    ids = trained("river " * 200, truncation=True).input_ids
    assert len(ids) == 77
    assert ids[-1] == trained.eos_token_id


@pytest.mark.parametrize(
    "text", ["a river crosses a forest", "zwölf häuser", "été", "水 and 7 roads", "q x z"]
)
def test_text_survives_the_round_trip(trained: CLIPTokenizer, text: str) -> None:
    assert trained.decode(trained(text).input_ids, skip_special_tokens=True) == text


def test_case_does_not_matter(trained: CLIPTokenizer) -> None:
    assert trained("A SAR IMAGE").input_ids == trained("a sar image").input_ids


def test_the_bytes_do_not_depend_on_the_order_of_captions(tmp_path: Path) -> None:
    shuffled = CAPTIONS.copy()
    random.Random(1).shuffle(shuffled)
    for name, captions in (("one", CAPTIONS), ("two", shuffled)):
        train_clip_tokenizer(captions, 600, tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_the_vocabulary_is_bounded_and_frequent_words_come_first(tmp_path: Path) -> None:
    small = train_clip_tokenizer(
        ["forest forest forest rare"] * 2, MIN_VOCAB_SIZE + 5, tmp_path / "t"
    )
    assert len(small) == MIN_VOCAB_SIZE + 5
    assert small.tokenize("forest") == ["forest</w>"]
    assert small.tokenize("rare") == ["r", "a", "r", "e</w>"]


def test_merging_ends_when_nothing_repeats(tmp_path: Path) -> None:
    assert len(train_clip_tokenizer(["a lone word"], 5000, tmp_path / "t")) == MIN_VOCAB_SIZE


@pytest.mark.parametrize(("captions", "size"), [([], 600), (["  "], 600), (CAPTIONS, 100)])
def test_nothing_to_learn_from_is_refused(tmp_path: Path, captions: list[str], size: int) -> None:
    with pytest.raises(DataError):
        train_clip_tokenizer(captions, size, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_missing_or_torn_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(DataError, match="cannot be read"):
        load_clip_tokenizer(tmp_path)


def test_the_published_tokenizer_keeps_its_ids(test_data: Path) -> None:
    real = load_clip_tokenizer(test_data / "tokenizers" / "sd1_clip_hf")
    expected = [49406, 320, 1125, 539, 320, 2368, 49407]
    assert real("a photo of a cat").input_ids == expected
