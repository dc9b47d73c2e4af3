"""GIT as a captioner: the real classes, small, loaded from a folder as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_models import processor, save_git, teach_git, words
from caption_tiles import GROUNDS, Rgb, draw_ground, make_sample
from transformers import BertTokenizerFast, GitForCausalLM

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.caption import caption_samples
from sarhpc.captioning.captioners.generated import open_writer
from sarhpc.captioning.captioners.git import load_git
from sarhpc.captioning.captioners.pretrained import pick_dtype
from sarhpc.captioning.captioners.registry import open_captioner
from sarhpc.captioning.captioners.writer import WritingCaptioner
from sarhpc.captioning.config import CaptionConfig
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def git_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_git(tmp_path_factory.mktemp("git") / "git-small", words())
    teach_git(folder)
    return folder


@pytest.fixture(scope="module")
def blurred() -> list[Rgb]:
    random = np.random.default_rng(3)
    mixed = random.dirichlet(np.ones(4), 7) @ np.array(list(GROUNDS.values()))
    return [draw_ground(tuple(color), number) for number, color in enumerate(mixed)]


def config(folder: Path, **settings: object) -> CaptionConfig:
    options = {"batch": 3, "max_tokens": 16, "device": "cpu", "captioner": "git", **settings}
    return CaptionConfig(model=str(folder), **options)


def tiles(images: list[Rgb]) -> list[Sample]:
    return [make_sample(number, None, image) for number, image in enumerate(images)]


def test_git_names_what_it_sees_whatever_the_size_of_the_tile(git_folder: Path) -> None:
    images = [draw_ground(color, 5, size) for color in GROUNDS.values() for size in (32, 90)]
    done = caption_samples(tiles(images), open_captioner(config(git_folder)), config(git_folder))
    said = [(sample.meta["caption_raw"], sample.meta["caption_model"]) for sample in done.samples]
    assert said == [(text, "git-small") for text in GROUNDS for _ in range(2)]


@pytest.mark.parametrize("decoding", ["beam", "nucleus"])
def test_samples_are_byte_identical_whoever_their_neighbours_are(
    decoding: str, git_folder: Path, blurred: list[Rgb]
) -> None:
    cfg = config(git_folder, decoding=decoding, temperature=2.0, min_words=0, degenerate="fallback")
    captioner = open_captioner(cfg)
    together = list(caption_samples(tiles(blurred), captioner, cfg).samples)
    assert len({sample.caption for sample in together}) > 1
    alone = [next(caption_samples([tile], captioner, cfg).samples) for tile in tiles(blurred)]
    assert [one.members for one in alone] == [one.members for one in together]
    again = caption_samples(tiles(blurred)[::-1], open_captioner(cfg), cfg).samples
    assert [one.members for one in again][::-1] == [one.members for one in together]


def test_nucleus_draws_for_the_key_and_the_seed(git_folder: Path, blurred: list[Rgb]) -> None:
    options = {"decoding": "nucleus", "temperature": 3.0, "top_p": 1.0}
    image = blurred[0]
    first, other_seed = (open_writer(config(git_folder, seed=s, **options)) for s in (0, 1))
    keys = [f"{number:011d}" for number in range(6)]
    drawn = first.propose([image] * 6, keys, 1)
    assert len({text for (text,) in drawn}) > 1
    assert first.propose([image], keys[4:5], 1) == drawn[4:5]
    assert other_seed.propose([image] * 6, keys, 1) != drawn


@pytest.mark.parametrize("decoding", ["beam", "nucleus"])
def test_candidates_differ_and_begin_with_the_caption_itself(
    decoding: str, git_folder: Path, blurred: list[Rgb]
) -> None:
    writer = open_writer(config(git_folder, decoding=decoding, temperature=3.0))
    (one,) = writer.propose(blurred[:1], ["00000100000"], 1)
    (several,) = writer.propose(blurred[:1], ["00000100000"], 3)
    assert several[0] == one[0]
    assert 1 < len(several) <= 3
    assert len(set(several)) == len(several)


def test_more_candidates_than_beams_are_refused(git_folder: Path, blurred: list[Rgb]) -> None:
    with pytest.raises(ConfigError, match="raise the beams"):
        open_writer(config(git_folder, beams=2)).propose(blurred[:1], ["k"], 3)


def test_a_prompt_opens_the_caption_without_being_part_of_it(git_folder: Path) -> None:
    image = draw_ground(GROUNDS["calm water in a broad river"], 9)
    writer = open_writer(config(git_folder, prompt="calm water in"))
    assert writer.caption([image]) == ["a broad river"]


def test_bfloat16_where_it_is_asked_for_or_there_is_a_gpu(git_folder: Path) -> None:
    git = load_git(git_folder, dtype="bfloat16")
    assert {p.dtype for p in git.model.parameters()} == {torch.bfloat16}
    image = draw_ground(GROUNDS["a dense dark forest"], 9)
    assert WritingCaptioner(git, batch=1).caption([image]) == ["a dense dark forest"]
    assert pick_dtype(None, "cuda") is torch.bfloat16
    assert pick_dtype(None, "cpu") is torch.float32
    with pytest.raises(ConfigError, match="float8"):
        pick_dtype("float8", "cpu")


def test_the_real_bert_vocabulary_fits_a_git(test_data: Path, tmp_path: Path) -> None:
    vocabulary = test_data / "tokenizers" / "bert_base_uncased" / "vocab.txt"
    git = load_git(save_git(tmp_path, BertTokenizerFast(vocab=str(vocabulary))))
    assert git.opening("a river").tolist() == [[101, 1037, 2314]]
    assert git.model.config.vocab_size == 30522
    said = WritingCaptioner(git, batch=2, max_tokens=3).caption([draw_ground((9, 9, 9), 0)])
    assert isinstance(said[0], str)


def test_parts_that_do_not_belong_together_are_refused(git_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(git_folder, tmp_path / "processor")
    processor(48).save_pretrained(other)
    with pytest.raises(DataError, match="48x48"):
        load_git(other)
    video = shutil.copytree(git_folder, tmp_path / "video")
    model = GitForCausalLM.from_pretrained(video)
    model.config.num_image_with_embedding = 6
    model.config.save_pretrained(video)
    with pytest.raises(DataError, match=r"lacks 6 weights|6 frames"):
        load_git(video)
    with pytest.raises(DataError, match="cannot load GIT"):
        load_git(tmp_path / "absent")
