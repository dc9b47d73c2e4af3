"""Export: a trained checkpoint as a diffusers folder that any Stable Diffusion tool loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hpc.errors import VerificationError
from hpc.publish import publish_json, publish_text, publishing_directory
from sarhpc.diffusion.adapter import (
    adapted,
    is_low_rank,
    low_rank_weights,
    remove_adapter,
    save_low_rank,
)
from sarhpc.diffusion.bundle import Bundle, save_bundle
from sarhpc.diffusion.config import LORA_FILE, LYCORIS_FILE, AdapterConfig
from sarhpc.diffusion.control_facts import CONTROLNET, publish_control_facts
from sarhpc.diffusion.dylora import truncate
from sarhpc.diffusion.learned_token import (
    EMBEDDING_FILE,
    TokenEmbedding,
    merge_token,
    save_token,
)
from sarhpc.diffusion.lycoris import is_lycoris, lycoris_weights, save_lycoris
from sarhpc.shards.contract import CONTRACT_FILE, PixelContract, describe
from sarhpc.training.checkpoints.checkpointing import read_weights

Cut = tuple[AdapterConfig, int]
"""An adapter as it was trained, and the rank it is cut to."""


def export(
    checkpoint: Path,
    base: Bundle,
    out: Path,
    facts: Mapping[str, Any],
    *,
    average: bool,
    variants: Sequence[str] = (),
    cut: Cut | None = None,
    contract: PixelContract | None = None,
    layer: str | None = None,
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
        variants: types to write the weights in too (`diffusion.config.VARIANTS`).
        cut: the adapter that was trained and the rank it is cut to; None leaves it whole.
        contract: what a pixel of the tiles means, where it is known.
        layer: that the ControlNet reads, if one was trained.

    Raises:
        ConfigError: the adapter cannot be cut so.
        VerificationError: the checkpoint is incomplete or of another architecture.
    """
    weights = read_weights(checkpoint, average=average)
    return export_weights(weights, base, out, facts, variants, cut, contract, layer)


def export_weights(
    weights: Mapping[str, Tensor],
    base: Bundle,
    out: Path,
    facts: Mapping[str, Any],
    variants: Sequence[str] = (),
    cut: Cut | None = None,
    contract: PixelContract | None = None,
    layer: str | None = None,
) -> Path:
    """As `export`, from full fp32 parameters by name.

    A LoRA lies beside the base's weights as `LORA_FILE`, LoHa and LoKr as `LYCORIS_FILE`; beside
    parts that were trained in full any is folded into the weights. A ControlNet lies in
    `controlnet/`, and the folder is a pipeline that it steers. The model card says which. A learned
    token is known to the folder's tokenizer and encoders, and lies in `EMBEDDING_FILE` for the base
    model.
    """
    bundle = with_weights(base, weights)
    if cut is not None:
        truncate(bundle.models, *cut)
    rows, facts_of_token = _extract_token(bundle)
    adapters, adapter_file, facts_of_adapters = _extract_adapters(bundle)
    if bundle.controlnet is not None:
        facts_of_token["controlnet"] = f"in {CONTROLNET}/, for `ControlNetModel.from_pretrained`"
    facts = {**facts, **facts_of_token, **facts_of_adapters}
    card = model_card(facts, adapter=adapter_file, contract=contract)
    with publishing_directory(out) as staging:
        save_bundle(bundle, staging, variants=variants)
        if bundle.controlnet is not None and layer is not None:
            publish_control_facts(staging, layer)
        if rows:
            save_token(facts_of_token["token"], bundle.family, rows, staging)
        if adapter_file is not None:
            save = save_low_rank if adapter_file == LORA_FILE else save_lycoris
            save(adapters, staging)
        if contract is not None:
            publish_json(staging / CONTRACT_FILE, contract.to_json())
        publish_text(staging / "README.md", card)
    return out


def _extract_token(bundle: Bundle) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rows of the learned token, if any, and what the card says of it; settled in the bundle."""
    table = bundle.encoders[0].get_input_embeddings()
    if not isinstance(table, TokenEmbedding):
        return {}, {}
    facts = {
        "token": table.text,
        "token_file": f"{EMBEDDING_FILE}, for `load_textual_inversion` on the base model",
    }
    return merge_token(bundle), facts


def _extract_adapters(
    bundle: Bundle,
) -> tuple[dict[str, dict[str, Tensor]], str | None, dict[str, str]]:
    """Weights of the parts' adapters where they can stand apart, their file, and facts of the card.

    Leaves plain models: the base's where the adapters stand apart, the tuned ones otherwise.
    """
    models: dict[str, nn.Module] = bundle.models
    tuned = [part for part, model in models.items() if next(adapted(model), None)]
    if not tuned:
        return {}, None, {}
    file, read = None, low_rank_weights
    if all(is_low_rank(model) for model in models.values()):
        file = LORA_FILE
    elif all(is_lycoris(model) for model in models.values()):
        file, read = LYCORIS_FILE, lycoris_weights
    adapters = {} if file is None else {part: read(models[part]) for part in tuned}
    for model in models.values():
        remove_adapter(model, fold=file is None)
    where = "in the weights" if file is None else f"{file}, beside the weights of the base model"
    return adapters, file, {"adapter": f"of {' and '.join(tuned)}, {where}"}


def with_weights(bundle: Bundle, weights: Mapping[str, Tensor]) -> Bundle:
    """`bundle`, what learns of its U-Net and text encoders overwritten with `weights`.

    Raises:
        VerificationError: the parameter names are not exactly those of what learns.
    """
    for part, model in bundle.models.items():
        prefix = part + "."
        named = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        _require_same(part, set(named), {n for n, p in model.named_parameters() if p.requires_grad})
        model.load_state_dict(named, strict=False)
    return bundle


def _require_same(group: str, saved: set[str], expected: set[str]) -> None:
    if saved != expected:
        raise VerificationError(
            f"the weights do not fit the base model's {group}: {len(expected - saved)} of its "
            f"parameters are missing and {len(saved - expected)} are unknown "
            f"(for example {sorted(saved ^ expected)[0]}); export with the base it was trained from"
        )


_LOADING = {
    LORA_FILE: 'pipeline.load_lora_weights("path/to/this/folder")',
    LYCORIS_FILE: """# So far the base. diffusers reads no LoHa or LoKr; ComfyUI and LyCORIS do.
import sarhpc

pipeline = sarhpc.load_model("path/to/this/folder").pipeline""",
}
"""File of an adapter -> what puts it on the pipeline of the model card."""


def model_card(
    facts: Mapping[str, Any], *, adapter: str | None = None, contract: PixelContract | None = None
) -> str:
    """README.md of an exported model: a front matter that hubs read, then the facts as a table.

    With `adapter`, the file of one in the folder, it tells how to put it on, with a ControlNet
    among the facts how to steer, with a contract what a pixel means.
    """
    pixels = "" if contract is None else _pixel_section(contract)
    steered = "controlnet" in facts
    steering = ', image=layer  # such as Image.open("edges.png")' if steered else ""
    load = "" if adapter is None else f"\n{_LOADING[adapter]}"
    learnt = (
        "a ControlNet trained on SAR tiles and a layer of each that steers"
        if steered
        else "U-Net and text encoders fine-tuned on SAR tiles and captions"
    )
    licence = str(facts.get("licence", "see the base model and the training data"))
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items())
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, sar, synthetic-aperture-radar]
---

# Text-to-SAR model

Stable Diffusion with {learnt}.
It paints one polarimetric channel, repeated over three: take one of them. Images are synthetic;
they show no place on Earth and carry no geolocation.

| fact | value |
|---|---|
{rows}

## Use

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("path/to/this/folder"){load}
prompt = "A SAR image of a forest beside a river"
image = pipeline(prompt{steering}).images[0]
```

{pixels}## Licence

{licence}. A fine-tuned model inherits the conditions of its base and of its training data.
"""


def _pixel_section(contract: PixelContract) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in describe(contract).items())
    return f"""## What a pixel means

Derived from the metadata of the tiles that it was trained on; for programs in `{CONTRACT_FILE}`.

| of the tiles | |
|---|---|
{rows}

"""
