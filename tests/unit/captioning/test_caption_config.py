from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from hpc.config import load
from hpc.errors import ConfigError
from sarhpc.captioning.captioners.registry import require_consistent
from sarhpc.captioning.config import CaptionConfig, CaptionTrainConfig


def test_configurations_are_structured_and_light_to_import() -> None:
    heavy = {"torch", "transformers", "tokenizers", "numpy", "PIL", "rasterio", "scipy", "dask"}
    script = f"import sys, sarhpc.captioning.config; print(set(sys.modules) & {heavy!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"


def test_configurations_can_be_overridden_by_dotlist() -> None:
    cfg = OmegaConf.merge(
        OmegaConf.structured(CaptionTrainConfig),
        {"train": [{"path": "/data", "kind": "jsonl"}], "base_model": None, "new": {"patch_px": 8}},
    )
    built = OmegaConf.to_object(cfg)
    assert isinstance(built, CaptionTrainConfig)
    assert (built.train[0].kind, built.base_model, built.new.patch_px) == ("jsonl", None, 8)
    caption = OmegaConf.merge(CaptionConfig, OmegaConf.from_dotlist(["template.variant=LONG"]))
    assert caption.template.variant == "LONG"


def refusal(cfg: CaptionConfig) -> str | None:
    """What the settings are refused with, if they are."""
    try:
        require_consistent(cfg)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["captioner=cogvlm"], "unknown: take one of blip, git, clip"),
        (["dtype=half"], "caption.dtype='half'"),
        (["decoding=greedy"], "caption.decoding='greedy'"),
        (["captioner=git"], "name the folder of a GIT"),
        (["captioner=git", "model=run:caption-train"], "name the folder of a GIT"),
        (["captioner=truth", "clip={}"], "captioner=truth looks at none"),
        (["captioner=given", "clip={}"], "captioner=given looks at none"),
        (["captioner=clip"], "list them"),
        (["captioner=clip", "clip={}"], "list them"),
        (["captioner=clip", "clip.phrases=[a,a]"], "twice"),
        (["captioner=clip", "clip.phrases=[a]", "clip.prompts=[photo]"], "each with {phrase}"),
        (["captioner=clip", "clip.phrases=[a]", "clip.pattern=x"], "no place for {phrases}"),
        (["captioner=clip", "clip.phrases=[a]", "clip.min_share=2"], "between 0 and 1"),
        (["captioner=clip", "clip.phrases=[a]", "prompt=a photo of"], "clip.prompts"),
        (["clip.phrases=[a]"], "leave out the phrases"),
        (["clip.candidates=1"], "take 2 at least"),
        (["clip.candidates=4"], "raise the beams"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_consistent(load(CaptionConfig, None, words))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["captioner=truth"],
        ["captioner=git", "model=/models/git", "dtype=bfloat16"],
        ["captioner=clip", "clip.phrases=[a river,a town]"],
        ["clip.candidates=3"],
        ["clip.candidates=8", "decoding=nucleus"],
    ],
)
def test_settings_that_fit_are_let_through(words: list[str]) -> None:
    assert refusal(load(CaptionConfig, None, words)) is None
