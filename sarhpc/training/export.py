"""Export: a trained checkpoint as a diffusers folder that any Stable Diffusion tool loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hpc.errors import VerificationError
from hpc.publish import publish_text, publishing_directory
from sarhpc.diffusion.bundle import Bundle, save_bundle
from sarhpc.training.checkpointing import read_weights
from sarhpc.training.engine import GROUPS


def export(
    checkpoint: Path, base: Bundle, out: Path, facts: Mapping[str, Any], *, average: bool
) -> Path:
    """A diffusers folder `out` with the weights of `checkpoint` in the shape of bundle `base`.

    Runs in one process without a GPU, whatever number of ranks and ZeRO stage trained.

    Args:
        checkpoint: a checkpoint directory whose manifest has been verified.
        base: the bundle the training started from (`start.load_base`); gives autoencoder,
            tokenizer and scheduler, and takes the weights.
        out: folder to publish; an existing one is replaced whole.
        facts: what the model card says (base model, data, hashes, licence).
        average: take the averaged weights instead of the raw ones.

    Raises:
        VerificationError: the checkpoint is incomplete or of another architecture.
    """
    weights = read_weights(checkpoint, average=average)
    return export_weights(weights, base, out, facts)


def export_weights(
    weights: Mapping[str, Tensor], base: Bundle, out: Path, facts: Mapping[str, Any]
) -> Path:
    """As `export`, from full fp32 parameters by name."""
    bundle = with_weights(base, weights)
    with publishing_directory(out) as staging:
        save_bundle(bundle, staging)
        publish_text(staging / "README.md", model_card(facts))
    return out


def with_weights(bundle: Bundle, weights: Mapping[str, Tensor]) -> Bundle:
    """`bundle`, its U-Net and text encoder overwritten with `weights`.

    Raises:
        VerificationError: the parameter names are not exactly those of the two models.
    """
    for group in GROUPS:
        model: nn.Module = getattr(bundle, group)
        prefix = group + "."
        named = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        _require_same(group, set(named), {name for name, _ in model.named_parameters()})
        model.load_state_dict(named, strict=False)
    return bundle


def _require_same(group: str, saved: set[str], expected: set[str]) -> None:
    if saved != expected:
        raise VerificationError(
            f"the weights do not fit the base model's {group}: {len(expected - saved)} of its "
            f"parameters are missing and {len(saved - expected)} are unknown "
            f"(for example {sorted(saved ^ expected)[0]}); export with the base it was trained from"
        )


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md of an exported model: a front matter that hubs read, then the facts as a table."""
    licence = str(facts.get("licence", "see the base model and the training data"))
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items())
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, sar, synthetic-aperture-radar]
---

# Text-to-SAR model

Stable Diffusion with U-Net and text encoder fine-tuned on SAR tiles and captions. It paints one
polarimetric channel, repeated over three: take one of them. Images are synthetic; they show no
place on Earth and carry no geolocation.

| fact | value |
|---|---|
{rows}

## Use

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("path/to/this/folder")
image = pipeline("A SAR image of a forest beside a river").images[0]
```

## Licence

{licence}. A fine-tuned model inherits the conditions of its base and of its training data.
"""
