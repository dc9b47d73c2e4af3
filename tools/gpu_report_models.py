"""Models of the published shapes with random weights, made on the device and never written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from bench_step import CAPTIONS
from gpu_report_correctness import tiny_bundle
from safetensors.torch import save_file


def base_model(size: str, shape: str, folder: Path) -> Path:
    """A diffusers folder: a tiny model, or the configuration of a published one without weights.

    For the latter the libraries give random weights to whatever is loaded from now on.
    """
    if size == "tiny":
        return tiny_bundle(folder, xl=shape == "sdxl")
    target = folder / shape
    if not target.exists():
        _write_configuration(target, shape)
    _give_random_weights()
    return target


def _write_configuration(target: Path, shape: str) -> None:
    from sarhpc.diffusion.bundle import new_bundle
    from sarhpc.diffusion.families.registry import FAMILIES
    from sarhpc.diffusion.tokenizer import train_clip_tokenizer

    [family] = [family for family in FAMILIES if family.key == shape]
    tokenizer = train_clip_tokenizer(CAPTIONS, 540, target.parent / f"tokenizer-{shape}")
    with torch.device("meta"):
        bundle = new_bundle(family.published, tokenizer)
    pipeline = bundle.pipeline()
    pipeline.save_config(target)
    for name, part in pipeline.components.items():
        if isinstance(part, transformers.PreTrainedModel):
            part.config.vocab_size = family.published.vocab_size
            part.config.save_pretrained(target / name)
            save_file({}, target / name / "model.safetensors")
        elif isinstance(part, diffusers.ModelMixin):
            part.save_config(target / name)
            save_file({}, target / name / "diffusion_pytorch_model.safetensors")
        elif part is not None:
            part.save_pretrained(target / name)


def _give_random_weights() -> None:
    """Let `from_pretrained` read configurations only.

    Asked for it, it says too that no weight was missing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def random_diffusers(cls: Any, path: Any, subfolder: str | None = None, **options: Any) -> Any:
        """A model of diffusers."""
        with device:
            model = cls.from_config(cls.load_config(path, subfolder=subfolder))
        return _of_type(model, options)

    def random_transformers(
        cls: Any, path: Any, subfolder: str | None = None, **options: Any
    ) -> Any:
        """A model of transformers."""
        config = cls.config_class.from_pretrained(path, subfolder=subfolder or "")
        with device:
            model = cls(config)
        return _of_type(model, options)

    diffusers.ModelMixin.from_pretrained = classmethod(random_diffusers)
    transformers.PreTrainedModel.from_pretrained = classmethod(random_transformers)


def _of_type(model: Any, options: dict[str, Any]) -> Any:
    dtype = options.get("torch_dtype") or options.get("dtype")
    model = model.eval() if not isinstance(dtype, torch.dtype) else model.eval().to(dtype)
    return (model, {"missing_keys": []}) if options.get("output_loading_info") else model
