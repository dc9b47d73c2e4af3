"""CLIP's choice among phrases and among captions: the real classes, small, from a folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from caption_models import processor, save_clip, teach_clip
from caption_tiles import GROUNDS, Rgb, draw_ground, make_sample
from transformers import CLIPTokenizer

from hpc.errors import DataError
from sarhpc.captioning.caption import caption_samples
from sarhpc.captioning.captioners.clip import ClipScorer, load_clip
from sarhpc.captioning.captioners.generated import open_scorer
from sarhpc.captioning.captioners.picked import PhrasePicker, Reranker, joined
from sarhpc.captioning.captioners.registry import open_captioner
from sarhpc.captioning.config import CaptionConfig, ClipConfig
from sarhpc.diffusion.tokenizer import train_clip_tokenizer
from sarhpc.shards.sample import Sample

pytestmark = pytest.mark.slow

PHRASES = list(GROUNDS)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    tokenizer = train_clip_tokenizer(GROUNDS, 600, root / "tokenizer")
    folder = save_clip(root / "clip-small", tokenizer)
    teach_clip(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(clip_folder: Path) -> ClipScorer:
    cfg = config(clip_folder)
    assert cfg.clip is not None
    return open_scorer(cfg, cfg.clip)


def config(folder: Path, **settings: object) -> CaptionConfig:
    options = {"phrases": PHRASES, "prompts": ["{phrase}"], "keep": 1, **settings}
    clip = ClipConfig(model=str(folder), **options)
    return CaptionConfig(captioner="clip", clip=clip, batch=3, device="cpu")


def tiles(images: Sequence[Rgb]) -> list[Sample]:
    return [make_sample(number, None, image) for number, image in enumerate(images)]


def grounds(seed: int) -> list[Rgb]:
    return [draw_ground(color, seed + n) for n, color in enumerate(GROUNDS.values())]


def test_the_phrase_that_fits_becomes_the_caption_and_the_shares_stay(clip_folder: Path) -> None:
    cfg = config(clip_folder, pattern="{phrases} from above")
    shard = caption_samples(tiles(grounds(70)), open_captioner(cfg), cfg)
    for phrase, sample in zip(PHRASES, shard.samples, strict=True):
        assert sample.caption == f"An aerial view of {phrase} from above"
        scores = sample.meta["caption_scores"]
        assert scores[0]["text"] == phrase
        assert sum(row["score"] for row in scores) == pytest.approx(1, abs=1e-4)
        assert sample.meta["caption_model"] == "clip-small"


def test_several_phrases_are_joined_and_doubtful_ones_left_out(scorer: ClipScorer) -> None:
    cfg = ClipConfig(phrases=PHRASES, prompts=["{phrase}"], keep=3, min_share=0.0)
    (all_three,) = PhrasePicker(scorer, cfg).draft(tiles(grounds(70)[:1]))
    assert all_three.text == joined([text for text, _ in all_three.scores[:3]])
    sure = dataclasses.replace(cfg, min_share=0.5)
    (one,) = PhrasePicker(scorer, sure).draft(tiles(grounds(70)[:1]))
    assert one.text == all_three.scores[0][0]


def test_a_tile_no_phrase_fits_is_left_out_and_one_without_an_image(scorer: ClipScorer) -> None:
    cfg = ClipConfig(phrases=PHRASES, prompts=["{phrase}"], min_share=1.0)
    samples = [*tiles(grounds(70)[:1]), make_sample(1, None, None)]
    shard = caption_samples(samples, PhrasePicker(scorer, cfg), CaptionConfig())
    assert list(shard.samples) == []
    assert shard.rejected == {"caption_empty": 1, "no_optical": 1}


def test_directions_hang_on_nothing_but_their_own_image_or_text(scorer: ClipScorer) -> None:
    images, texts = grounds(5), [*PHRASES, "a", "town " * 90]
    seen, read = scorer.see(images), scorer.read(texts)
    assert np.allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-6)
    for number, image in enumerate(images):
        assert np.array_equal(scorer.see([image])[0], seen[number])
    for number, text in enumerate(texts):
        assert np.array_equal(scorer.read([text])[0], read[number]), text
    assert np.array_equal(scorer.read(texts[::-1])[::-1], read)


def test_padding_to_a_bucket_changes_no_direction(scorer: ClipScorer, clip_folder: Path) -> None:
    clip = load_clip(clip_folder)
    ids = clip.tokenizer(["a river"], return_tensors="pt").input_ids
    alone = clip.model.get_text_features(ids).pooler_output[0].detach().numpy()
    assert np.allclose(scorer.read(["a river"])[0], alone / np.linalg.norm(alone), atol=1e-6)


class Proposals:
    """Captions as a writing captioner proposes them: for each key its own."""

    name, revision = "writer", "1"

    def __init__(self, proposed: dict[str, list[str]]) -> None:
        self.proposed = proposed

    def caption(self, images: list[Rgb]) -> list[str]:
        return [""] * len(images)

    def propose(self, images: list[Rgb], keys: Sequence[str], count: int) -> list[list[str]]:
        return [self.proposed[key][:count] for key in keys]


def test_of_several_captions_the_most_similar_is_taken_and_all_scores_stay(
    scorer: ClipScorer,
) -> None:
    samples = tiles(grounds(40))
    turned = {s.key: PHRASES[n:] + PHRASES[:n] for n, s in enumerate(reversed(samples))}
    cfg = CaptionConfig(clip=ClipConfig(candidates=4), batch=3)
    shard = caption_samples(samples, Reranker(Proposals(turned), scorer, cfg), cfg)
    for phrase, sample in zip(PHRASES, shard.samples, strict=True):
        meta = sample.meta
        assert (meta["caption_raw"], meta["caption_model"]) == (phrase, "writer+clip-small")
        scores = [row["score"] for row in meta["caption_scores"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 4


def test_a_degenerate_caption_is_taken_only_where_all_are(scorer: ClipScorer) -> None:
    loop = "town of red roofs " * 4
    samples = tiles([grounds(40)[3]] * 2)
    proposed = {samples[0].key: [loop, "a dense dark forest"], samples[1].key: [loop]}
    cfg = CaptionConfig(clip=ClipConfig(candidates=2))
    drafts = Reranker(Proposals(proposed), scorer, cfg).draft(samples)
    assert [draft.scores[0][0] for draft in drafts] == [loop, loop]
    assert [draft.text for draft in drafts] == ["a dense dark forest", loop]


def test_blips_captions_are_reranked_byte_identically(ground_blip: Path, clip_folder: Path) -> None:
    clip = ClipConfig(model=str(clip_folder), candidates=3)
    cfg = CaptionConfig(
        model=str(ground_blip), clip=clip, batch=3, max_tokens=12, device="cpu",
        decoding="nucleus", temperature=2.0, min_words=1,
    )  # fmt: skip
    drafter = open_captioner(cfg)
    samples = tiles(grounds(11))
    together = list(caption_samples(samples, drafter, cfg).samples)
    alone = [sample for tile in samples for sample in caption_samples([tile], drafter, cfg).samples]
    assert [one.members for one in alone] == [one.members for one in together]
    assert {sample.meta["caption_model"] for sample in together} == {"blip+clip-small"}
    again = list(caption_samples(together, drafter, cfg).samples)
    assert [one.members for one in again] == [one.members for one in together]


def test_the_real_tokenizer_of_clip_fits(test_data: Path, tmp_path: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(test_data / "tokenizers" / "sd1_clip_hf")
    clip = load_clip(save_clip(tmp_path, tokenizer))
    scorer = ClipScorer(clip, name="clip", revision="", batch=2)
    assert scorer.read(["a river", "a town " * 60]).shape == (2, 16)


def test_parts_that_do_not_belong_together_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(clip_folder, tmp_path / "processor")
    processor(48).save_pretrained(other)
    with pytest.raises(DataError, match="48x48"):
        load_clip(other)
    larger = shutil.copytree(clip_folder, tmp_path / "tokenizer")
    words = [f"{one}{two}{one}" for one in "abcdefghijklmnop" for two in "qrstuvwxyz"]
    train_clip_tokenizer([" ".join(words)] * 2, 900, tmp_path / "words").save_pretrained(larger)
    with pytest.raises(DataError, match="word pieces"):
        load_clip(larger)
    with pytest.raises(DataError, match="cannot load CLIP"):
        load_clip(tmp_path / "absent")


def test_phrases_are_joined_as_one_says_them() -> None:
    said = [joined(PHRASES[:count]) for count in (1, 2)]
    assert said == [PHRASES[0], f"{PHRASES[0]} and {PHRASES[1]}"]
    assert joined(["a", "b", "c"]) == "a, b and c"
