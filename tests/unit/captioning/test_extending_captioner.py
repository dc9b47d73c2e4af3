"""The example of a captioner in the extending guide, installed as pip installs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from guide_examples import code_blocks, install_plugin

from hpc.config import load
from hpc.errors import ConfigError
from sarhpc.captioning.caption import caption_samples
from sarhpc.captioning.captioners import registry
from sarhpc.captioning.config import CaptionConfig
from sarhpc.shards.images import encode_gray8
from sarhpc.shards.sample import Sample, encode_json

Install = Callable[[str, str], None]


def example() -> str:
    [block] = code_blocks("A captioner")
    return block


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a module with an entry point."""

    def install(source: str, target: str) -> None:
        entry = f"[sarhpc.captioners]\nbrightness = {target}\n"
        install_plugin(monkeypatch, tmp_path / "site", "brightness_captions", source, entry)
        registry.captioners.cache_clear()

    yield install
    registry.captioners.cache_clear()
    sys.modules.pop("brightness_captions", None)


def sample(key: str, level: int) -> Sample:
    picture = encode_gray8(np.full((8, 8), level, np.uint8))
    return Sample(key, {"sar.png": picture, "meta.json": encode_json({"key": key})})


def test_the_captioner_of_the_guide_captions_samples(install: Install) -> None:
    install(example(), "brightness_captions:CAPTIONER")
    cfg = load(CaptionConfig, None, ["captioner=brightness", "degenerate=reject", "min_words=1"])
    levels = {"00000000000": 200, "00000000001": 10, "00000000002": 0}
    samples = [sample(key, level) for key, level in levels.items()]
    shard = caption_samples(samples, registry.open_captioner(cfg), cfg)
    captions = {done.key: done.meta["caption_raw"] for done in shard.samples}
    assert captions == {"00000000000": "bright ground", "00000000001": "dark ground"}
    assert shard.rejected == {"tile_black": 1}


def test_its_settings_are_checked(install: Install) -> None:
    install(example(), "brightness_captions:CAPTIONER")
    cfg = load(CaptionConfig, None, ["captioner=brightness", "prompt=a photo of"])
    with pytest.raises(ConfigError, match=r"caption\.prompt is not used"):
        registry.require_consistent(cfg)


def test_without_the_package_the_captioner_is_unknown() -> None:
    cfg = load(CaptionConfig, None, ["captioner=brightness"])
    with pytest.raises(ConfigError, match="take one of blip, git, clip, truth, given"):
        registry.require_consistent(cfg)


@pytest.mark.parametrize(
    ("target", "extra", "reason"),
    [
        ("no_such_module:CAPTIONER", "", "does not load"),
        ("brightness_captions:BrightnessCaptioner", "", "not a .*CaptionerSpec"),
        ("brightness_captions:CAPTIONER", "raise ValueError('no licence')", "not load: no licence"),
        ("brightness_captions:BLIP", "BLIP = CaptionerSpec('blip', None)", "another captioner"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named(
    install: Install, target: str, extra: str, reason: str
) -> None:
    install(f"{example()}\n{extra}\n", target)
    with pytest.raises(ConfigError, match=f"'brightness'.*{reason}"):
        registry.captioners()
