from __future__ import annotations

import subprocess
import sys

from omegaconf import OmegaConf

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
