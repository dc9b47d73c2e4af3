from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_tiles import GROUNDS, SMALL, Rgb, draw_ground
from safetensors.torch import load_file, save_file
from transformers import BertTokenizerFast, BlipImageProcessorPil

from hpc.errors import ConfigError, DataError
from sarhpc.captioning.caption import caption_samples
from sarhpc.captioning.captioners.blip import load_blip
from sarhpc.captioning.captioners.build import new_blip
from sarhpc.captioning.captioners.generated import open_writer
from sarhpc.captioning.captioners.registry import open_captioner
from sarhpc.captioning.captioners.writer import WritingCaptioner
from sarhpc.captioning.config import BlipModelConfig, CaptionConfig
from sarhpc.captioning.tuning.tokenizer import train_bert_tokenizer
from sarhpc.shards.reader import read_shard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grounds() -> list[Rgb]:
    """Two unseen images of each ground, of other sizes than the model's."""
    return [
        draw_ground(color, 50 + 7 * row, size)
        for row, color in enumerate(GROUNDS.values())
        for size in (64, 90)
    ]


@pytest.fixture(scope="module")
def blurred(ground_blip: Path) -> list[Rgb]:
    """Images between the grounds, where captions hang on small differences."""
    colors = np.array(list(GROUNDS.values()))
    random = np.random.default_rng(3)
    mixed = random.dirichlet(np.ones(4), 9) @ colors
    return [draw_ground(tuple(color), number) for number, color in enumerate(mixed)]


def captioner(folder: Path, **options: object) -> WritingCaptioner:
    return WritingCaptioner(load_blip(folder), **{"batch": 4, "max_tokens": 16, **options})


def test_a_trained_blip_names_what_it_sees(ground_blip: Path, grounds: list[Rgb]) -> None:
    cfg = CaptionConfig(model=str(ground_blip), batch=3, max_tokens=16, device="cpu")
    said = open_writer(cfg).caption(grounds)
    assert said == [caption for caption in GROUNDS for _ in range(2)]


@pytest.mark.parametrize("decoding", ["beam", "nucleus"])
def test_a_caption_depends_neither_on_neighbours_nor_on_order(
    decoding: str, ground_blip: Path, blurred: list[Rgb]
) -> None:
    one = captioner(ground_blip, decoding=decoding)
    together = one.caption(blurred)
    assert len(set(together)) > 1
    assert [one.caption([image])[0] for image in blurred] == together
    assert one.caption(blurred[::-1]) == together[::-1]
    assert captioner(ground_blip, decoding=decoding).caption(blurred) == together


def test_nucleus_draws_differ_between_seeds(ground_blip: Path, blurred: list[Rgb]) -> None:
    options = {"decoding": "nucleus", "temperature": 3.0, "top_p": 1.0}
    first, second = (captioner(ground_blip, seed=s, **options).caption(blurred) for s in (0, 1))
    assert first != second


def test_global_random_state_and_threads_are_left_alone(
    ground_blip: Path, blurred: list[Rgb]
) -> None:
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    captioner(ground_blip, decoding="nucleus", threads=threads + 1).caption(blurred[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_captions_are_cut_to_their_length(ground_blip: Path, grounds: list[Rgb]) -> None:
    (text,) = captioner(ground_blip, max_tokens=2).caption(grounds[:1])
    assert text
    assert next(iter(GROUNDS)).startswith(text)
    assert captioner(ground_blip, max_tokens=10_000).caption(grounds[:1])


def test_a_prompt_opens_the_caption_without_being_part_of_it(
    ground_blip: Path, grounds: list[Rgb]
) -> None:
    (text,) = captioner(ground_blip, prompt="calm water in").caption(grounds[:1])
    assert text == "a broad river"


def test_no_images_give_no_captions(ground_blip: Path) -> None:
    assert captioner(ground_blip).caption([]) == []


def test_what_is_no_image_is_refused(ground_blip: Path) -> None:
    with pytest.raises(DataError, match="uint8 image"):
        captioner(ground_blip).caption([np.zeros((8, 8), np.uint8)])
    with pytest.raises(ConfigError, match="decoding"):
        captioner(ground_blip, decoding="greedy")


def test_a_saved_blip_says_the_same_after_loading(
    ground_blip: Path, blurred: list[Rgb], tmp_path: Path
) -> None:
    blip = load_blip(ground_blip)
    blip.save(tmp_path)
    assert captioner(tmp_path).caption(blurred) == captioner(ground_blip).caption(blurred)
    for name, tensor in load_blip(tmp_path).model.state_dict().items():
        assert torch.equal(tensor, blip.model.state_dict()[name]), name


def test_the_revision_names_the_weights(ground_blip: Path, tmp_path: Path) -> None:
    blip = load_blip(ground_blip)
    blip.save(tmp_path / "one")
    with torch.no_grad():
        next(blip.model.parameters()).add_(0.01)
    blip.save(tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    one, two, copy = (
        open_writer(CaptionConfig(model=str(tmp_path / name))).revision
        for name in ("one", "two", "copy")
    )
    assert one == copy != two


def test_images_are_averaged_down_not_picked(ground_blip: Path) -> None:
    """A fine checkerboard becomes gray: its pixels stand for the ground between them."""
    blip = load_blip(ground_blip)
    board = np.indices((256, 256)).sum(0) % 2 * 255
    image = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    flat = np.full((256, 256, 3), 127, np.uint8)
    difference = blip.pixels([image]) - blip.pixels([flat])
    assert difference.shape == (1, 3, SMALL.image_px, SMALL.image_px)
    assert difference.abs().max() < 0.05


def test_shards_are_captioned_end_to_end(ground_blip: Path, ground_shards: Path) -> None:
    cfg = CaptionConfig(model=str(ground_blip), batch=5, max_tokens=16, device="cpu")
    samples = read_shard(ground_shards / "val" / "000001.tar")
    shard = caption_samples(samples, open_captioner(cfg), cfg)
    texts = [(sample.meta["truth"]["caption"], sample.caption) for sample in shard.samples]
    assert len(texts) == 12
    assert all(said == f"An aerial view of {true}" for true, said in texts)
    assert shard.rejected == {}


def test_the_real_bert_vocabulary_makes_room_for_blips_tokens(test_data: Path) -> None:
    vocabulary = test_data / "tokenizers" / "bert_base_uncased" / "vocab.txt"
    tokenizer = BertTokenizerFast(vocab=str(vocabulary))
    blip = new_blip(BlipModelConfig(image_px=32, text_width=16, vision_width=16), tokenizer)
    text = blip.model.config.text_config
    assert (text.vocab_size, text.bos_token_id, text.sep_token_id) == (30524, 30522, 102)
    assert blip.opening("a river").tolist() == [[30522, 1037, 2314, 102]]
    images = [draw_ground((10, 20, 30), 0)]
    assert isinstance(WritingCaptioner(blip, batch=1, max_tokens=4).caption(images)[0], str)


def test_equal_seeds_build_equal_models() -> None:
    tokenizer = train_bert_tokenizer(GROUNDS, 200)
    one, same, other = (new_blip(SMALL, tokenizer, seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_default_small_blip_has_about_three_million_parameters() -> None:
    blip = new_blip(BlipModelConfig(), train_bert_tokenizer(GROUNDS, 1024))
    assert 2.5e6 < sum(p.numel() for p in blip.model.parameters()) < 4e6


def test_sizes_that_do_not_divide_are_a_configuration_error() -> None:
    tokenizer = train_bert_tokenizer(GROUNDS, 200)
    with pytest.raises(ConfigError, match=r"vision_width=50"):
        new_blip(BlipModelConfig(vision_width=50), tokenizer)


def test_a_processor_of_another_model_is_refused(ground_blip: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(ground_blip, tmp_path / "mixed")
    BlipImageProcessorPil(size={"height": 384, "width": 384}).save_pretrained(mixed)
    with pytest.raises(DataError, match="384x384"):
        load_blip(mixed)


def test_a_tokenizer_of_another_model_is_refused(ground_blip: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(ground_blip, tmp_path / "mixed")
    words = [f"{one}{two}" for one in "abcdefghijklm" for two in "nopqrstuvwxyz"]
    train_bert_tokenizer([" ".join(words)], 1000, mixed)
    with pytest.raises(DataError, match="word pieces"):
        load_blip(mixed)


def test_pickled_weights_are_never_read(ground_blip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ground_blip, tmp_path / "pickled")
    torch.save(load_blip(ground_blip).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="safetensors"):
        load_blip(folder)


def test_damaged_or_partial_weights_are_refused(ground_blip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ground_blip, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot load"):
        load_blip(folder)
    first, *rest = sorted(whole)
    save_file({name: whole[name] for name in rest}, weights, {"format": "pt"})
    with pytest.raises(DataError, match=first):
        load_blip(folder)
    save_file({**whole, first: whole[first].flatten()[:3].clone()}, weights, {"format": "pt"})
    with pytest.raises(DataError, match="cannot load"):
        load_blip(folder)


def test_a_folder_that_is_not_there_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HF_HOME"):
        load_blip(tmp_path / "absent")
