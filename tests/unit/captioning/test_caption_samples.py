from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from caption_tiles import Rgb, draw_ground, make_sample
from numpy.typing import NDArray

from hpc.errors import ConfigError
from sarhpc.captioning.caption import caption_samples
from sarhpc.captioning.captioners.captioner import Captioner
from sarhpc.captioning.captioners.registry import open_captioner
from sarhpc.captioning.config import CaptionConfig, TemplateConfig
from sarhpc.shards.sample import Sample

TRUTH = CaptionConfig(captioner="truth", batch=4)
OPTICAL = draw_ground((90, 90, 90), 0)


class BrightnessCaptioner:
    """Captions that name the mean brightness, and nothing for a black image."""

    name = "brightness"
    revision = "7"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def caption(self, images: list[NDArray[np.uint8]]) -> list[str]:
        self.batches.append(len(images))
        return [f"ground of brightness {image.mean():.0f}" * bool(image.any()) for image in images]


def gray(level: int) -> Rgb:
    return np.full((8, 8, 3), level, np.uint8)


def test_samples_keep_order_key_and_every_other_member() -> None:
    samples = [make_sample(number, None, gray(10 + number)) for number in (0, 2, 3, 7, 8, 9)]
    captioner: Captioner = BrightnessCaptioner()
    done = list(caption_samples(samples, captioner, CaptionConfig(batch=4)).samples)
    assert [sample.key for sample in done] == [sample.key for sample in samples]
    for before, after in zip(samples, done, strict=True):
        assert after.members.keys() == before.members.keys() | {"txt"}
        assert all(after.members[name] == before.members[name] for name in ("sar.png", "optic.png"))
        assert before.meta.items() <= after.meta.items()
    assert [sample.caption for sample in done] == [
        f"An aerial view of ground of brightness {10 + number}" for number in (0, 2, 3, 7, 8, 9)
    ]


def test_metadata_say_who_captioned_what_with_which_template() -> None:
    (sample,) = caption_samples(
        [make_sample(0, None, gray(9))], BrightnessCaptioner(), CaptionConfig()
    ).samples
    meta = sample.meta
    assert meta["caption"]["SHORT"] == "ground of brightness 9"
    assert meta["caption"]["LONG"].endswith("X-band, 0.35 m, incidence 45 degrees")
    assert meta["caption_raw"] == "ground of brightness 9"
    assert (meta["caption_model"], meta["caption_revision"]) == ("brightness", "7")
    assert meta["caption_template"]["token"] == "An aerial view of"
    assert meta["caption_template"]["version"]


def test_captions_can_be_made_again_without_a_trace_of_the_old() -> None:
    cfg = CaptionConfig(missing_optical="fallback")
    first = make_sample(0, "a lake in a park", None)
    (fallen,) = caption_samples([first], BrightnessCaptioner(), cfg).samples
    assert fallen.meta["caption_fallback"] == "no_optical"
    (again,) = caption_samples([fallen], open_captioner(TRUTH), TRUTH).samples
    (fresh,) = caption_samples([first], open_captioner(TRUTH), TRUTH).samples
    assert again == fresh
    assert again.caption == "An aerial view of a lake in a park"


def test_a_tile_without_optical_image_is_rejected_with_its_reason() -> None:
    samples = [make_sample(n, None, gray(5) if n == 0 else None) for n in range(3)]
    shard = caption_samples(samples, BrightnessCaptioner(), CaptionConfig())
    assert [sample.key for sample in shard.samples] == [samples[0].key]
    assert shard.rejected == {"no_optical": 2}


def test_a_tile_without_optical_image_can_be_kept_with_a_fallback() -> None:
    cfg = CaptionConfig(missing_optical="fallback", fallback="some ground")
    shard = caption_samples([make_sample(1, None, None)], BrightnessCaptioner(), cfg)
    (sample,) = shard.samples
    assert sample.caption == "An aerial view of some ground"
    assert sample.meta["caption_fallback"] == "no_optical"
    assert (shard.rejected, shard.replaced) == ({}, {"no_optical": 1})


def test_degenerate_captions_are_rejected_or_replaced_and_counted() -> None:
    samples = [make_sample(0, None, gray(0)), make_sample(1, None, gray(8))]
    shard = caption_samples(samples, BrightnessCaptioner(), CaptionConfig())
    assert [sample.key for sample in shard.samples] == [samples[1].key]
    assert shard.rejected == {"caption_empty": 1}
    kept = caption_samples(samples, BrightnessCaptioner(), CaptionConfig(degenerate="fallback"))
    assert [sample.caption for sample in kept.samples] == [
        "An aerial view of the ground",
        "An aerial view of ground of brightness 8",
    ]
    assert (kept.rejected, kept.replaced) == ({}, {"caption_empty": 1})


def test_truth_needs_no_optical_image_and_says_when_it_knows_nothing() -> None:
    samples = [make_sample(0, "a forest with a clearing", None), make_sample(1, None, OPTICAL)]
    shard = caption_samples(samples, open_captioner(TRUTH), TRUTH)
    (sample,) = shard.samples
    assert sample.meta["caption_raw"] == "a forest with a clearing"
    assert shard.rejected == {"no_truth": 1}


def test_true_relations_lengthen_the_mid_caption() -> None:
    sample = make_sample(0, "a forest", None)
    meta = sample.meta
    meta["truth"]["relations"] = ["a river runs along its near side"]
    sample = sample.with_members(meta__json=json.dumps(meta).encode())
    (done,) = caption_samples([sample], open_captioner(TRUTH), TRUTH).samples
    assert done.meta["caption"]["SHORT"] == "a forest"
    assert done.meta["caption"]["MID"] == "a forest; a river runs along its near side"


def test_no_more_than_a_batch_of_samples_is_held() -> None:
    taken = 0

    def stream() -> Iterator[Sample]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield make_sample(number, None, gray(9))

    captioner = BrightnessCaptioner()
    samples = caption_samples(stream(), captioner, CaptionConfig(batch=5)).samples
    next(samples)
    assert taken == 5
    assert captioner.batches == [5]


@pytest.mark.parametrize(
    "cfg",
    [
        replace(TRUTH, degenerate="drop"),
        replace(TRUTH, missing_optical="keep"),
        replace(TRUTH, template=TemplateConfig(pattern="{colour}")),
        replace(TRUTH, captioner="oracle"),
    ],
)
def test_a_wrong_word_in_the_configuration_stops_before_the_first_sample(
    cfg: CaptionConfig,
) -> None:
    with pytest.raises(ConfigError):
        caption_samples([], open_captioner(cfg), cfg)
