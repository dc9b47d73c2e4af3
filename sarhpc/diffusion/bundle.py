"""A model bundle: backbone, text encoders, autoencoder, tokenizers and noise schedule.

On disk it is a diffusers folder that `DiffusionPipeline.from_pretrained(path)` loads, weights in
safetensors only. What depends on the kind of model is in `families`.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    SchedulerMixin,
)
from torch import nn
from transformers import CLIPTokenizer

from hpc.documents import parse_json, read_json
from hpc.errors import ConfigError, DataError
from hpc.publish import publishing_directory
from sarhpc.diffusion.architecture import (
    new_scheduler,
    new_text_encoder,
    new_unet,
    require_trainable,
)
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import VARIANTS, BundleConfig
from sarhpc.diffusion.control import CONTROLNET
from sarhpc.diffusion.families.family import AUTOENCODER, SCHEDULER, ModelFamily, text_shapes
from sarhpc.diffusion.families.registry import FAMILIES, family_of_pipeline, family_of_shapes
from sarhpc.diffusion.single_file import is_single_file, read_single_file, shapes_beside
from sarhpc.diffusion.tokenizer import load_clip_tokenizer


@dataclass(frozen=True)
class Bundle:
    """The parts of a model of `family`, with a ControlNet if images are conditioned on a layer."""

    family: ModelFamily
    backbone: Any
    """Predicts the noise."""
    encoders: tuple[Any, ...]
    """Text encoders, in the order of the family's."""
    tokenizers: tuple[CLIPTokenizer, ...]
    """The tokenizer of each text encoder."""
    vae: AutoencoderKL
    scheduler: SchedulerMixin
    controlnet: ControlNetModel | None = None

    @property
    def models(self) -> dict[str, Any]:
        """The modules that can be trained, by the name of their folder."""
        models = (self.backbone, *self.encoders)
        found: dict[str, Any] = dict(zip(self.family.components, models, strict=True))
        return found if self.controlnet is None else {**found, CONTROLNET: self.controlnet}

    @property
    def tile_px(self) -> int:
        """Side of the tiles that the backbone is made for, px."""
        reduction: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.backbone.config.sample_size) * reduction

    def pipeline(self) -> Any:
        """The diffusers pipeline over these very modules, without safety checker or watermark."""
        family = self.family
        kind = family.pipeline if self.controlnet is None else family.control_pipeline
        folders = [encoder.tokenizer for encoder in family.encoders]
        return getattr(diffusers, kind)(
            **self.models,
            **dict(zip(folders, self.tokenizers, strict=True)),
            vae=self.vae,
            scheduler=self.scheduler,
            **family.building_options,
        )


def new_bundle(
    cfg: BundleConfig,
    tokenizer: CLIPTokenizer,
    seed: int = 0,
    vae: AutoencoderKL | None = None,
) -> Bundle:
    """An untrained bundle of the shapes in `cfg`, the same for the same seed.

    A trained autoencoder replaces a new one of shape `cfg.vae`. All text encoders share the
    vocabulary. The number of text encoders determines the family.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    family, shapes = family_of_shapes(cfg), text_shapes(cfg)
    tokenizers = tuple(_with_length(tokenizer, shape.positions) for shape in shapes)
    texts = list(zip(family.encoders, shapes, tokenizers, strict=True))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Keep the order: another one would give other weights for the same seed.
            first = new_text_encoder(*texts[0])
            backbone = new_unet(cfg)
            encoders = (first, *(new_text_encoder(*text) for text in texts[1:]))
        vae = vae or new_autoencoder(cfg.vae, seed)
    except ValueError as error:
        raise ConfigError(f"the shapes of the bundle do not fit together: {error}") from error
    scheduler = new_scheduler(cfg.scheduler)
    return Bundle(family, backbone, encoders, tokenizers, vae, scheduler)


def with_schedule(
    bundle: Bundle, prediction_type: str | None, zero_terminal_snr: bool = False
) -> Bundle:
    """`bundle` that is to predict `prediction_type` (None: unchanged), weights untouched.

    Zero terminal SNR rescales the betas by algorithm 1 of Lin et al. (arXiv:2305.08891) and samples
    at trailing timesteps. The backbone adapts to the new prediction type in its first steps.

    Raises:
        ConfigError: zero terminal SNR without v-prediction, or an unknown prediction.
    """
    kind = prediction_type or str(bundle.scheduler.config.get("prediction_type", "epsilon"))
    if kind not in ("epsilon", "v_prediction"):
        raise ConfigError(f"prediction_type {kind!r} is not one of epsilon, v_prediction")
    require_trainable(kind, zero_terminal_snr)
    if prediction_type is None and not zero_terminal_snr:
        return bundle
    changes: dict[str, Any] = {"prediction_type": kind}
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    # Not every scheduler can rescale; DDIM can, and any other can be made from its configuration.
    scheduler = DDIMScheduler.from_config(bundle.scheduler.config, **changes)
    return replace(bundle, scheduler=scheduler)


def save_bundle(
    bundle: Bundle,
    path: Path,
    dtype: torch.dtype | None = None,
    variants: Sequence[str] = (),
) -> None:
    """Publish `bundle` as diffusers folder `path`, weights cast to `dtype` when given.

    With `variants`, keys of `VARIANTS`, the folder also has the weights in these types, for
    `from_pretrained(path, variant=...)`. The bundle itself keeps its precision.
    """
    with publishing_directory(path) as staging:
        _as_type(bundle, dtype).pipeline().save_pretrained(staging, safe_serialization=True)
        for variant in variants:
            _save_variant(bundle, staging, variant)
        for config in staging.rglob("config.json"):
            _forget_origin(config)
        for weights in staging.rglob("*.safetensors"):
            # The library makes them readable by their owner only, unlike the configurations.
            weights.chmod(0o644)


def _as_type(bundle: Bundle, dtype: torch.dtype | None) -> Bundle:
    return replace(
        bundle,
        backbone=_cast(bundle.backbone, dtype),
        encoders=tuple(_cast(encoder, dtype) for encoder in bundle.encoders),
        vae=_cast(bundle.vae, dtype),
        controlnet=_cast(bundle.controlnet, dtype),
    )


def _save_variant(bundle: Bundle, folder: Path, variant: str) -> None:
    """Add the weights in one more type to those in `folder`, whose configurations stay."""
    temporary = folder / f".{variant}"
    cast = _as_type(bundle, getattr(torch, VARIANTS[variant]))
    cast.pipeline().save_pretrained(temporary, safe_serialization=True, variant=variant)
    for weights in temporary.rglob(f"*.{variant}*.safetensors"):
        weights.rename(folder / weights.relative_to(temporary))
    shutil.rmtree(temporary)


def _cast(module: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or module is None or module.dtype == dtype:
        return module
    # The plain torch cast: those of the libraries warn about modules that are not here.
    return nn.Module.to(copy.deepcopy(module), dtype=dtype)


def _forget_origin(config: Path) -> None:
    """Remove the path the part was loaded from, so that equal models are equal bytes."""
    values = parse_json(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_bundle(path: Path, dtype: torch.dtype = torch.float32) -> Bundle:
    """The bundle in diffusers folder `path`, every part in evaluation mode and of `dtype`.

    `path` may also be a single-file checkpoint, see `single_file`. Nothing is downloaded: the
    folder must be complete. The tokenizers truncate and pad prompts to the length of their text
    encoder, whatever their own files declare.

    Raises:
        DataError: a part is missing, damaged, of another architecture, or not in safetensors.
    """
    if is_single_file(path):
        return _load_single_file(path, dtype)
    index, family = _read_index(path)
    network = getattr(diffusers, family.backbone_class)
    backbone = _load_part(network, path / family.backbone, torch_dtype=dtype)
    vae = _load_part(AutoencoderKL, path / AUTOENCODER, torch_dtype=dtype)
    encoders = []
    for encoder in family.encoders:
        kind = getattr(transformers, encoder.model)
        encoders.append(_load_part(kind, path / encoder.folder, dtype=dtype).eval())
    tokenizers, scheduler = _load_tokenizers(path, family, encoders), _load_scheduler(path, index)
    return Bundle(family, backbone.eval(), tuple(encoders), tokenizers, vae.eval(), scheduler)


def _load_single_file(file: Path, dtype: torch.dtype) -> Bundle:
    folder = shapes_beside(file)
    index, family = _read_index(folder)
    found = read_single_file(file, family, dtype)
    tokenizers = _load_tokenizers(folder, family, found.encoders)
    scheduler = _load_scheduler(folder, index)
    return Bundle(family, found.backbone, found.encoders, tokenizers, found.vae, scheduler)


def _load_tokenizers(
    path: Path, family: ModelFamily, encoders: Sequence[Any]
) -> tuple[CLIPTokenizer, ...]:
    folders = [path / encoder.tokenizer for encoder in family.encoders]
    return tuple(_load_tokenizer(*pair) for pair in zip(folders, encoders, strict=True))


def _load_tokenizer(folder: Path, encoder: Any) -> CLIPTokenizer:
    """The tokenizer in `folder`, truncating prompts to the length of `encoder`."""
    tokenizer = load_clip_tokenizer(folder)
    if len(tokenizer) > encoder.config.vocab_size:
        raise DataError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, its text encoder has "
            f"{encoder.config.vocab_size}; they belong to different models"
        )
    return _with_length(tokenizer, encoder.config.max_position_embeddings)


def load_autoencoder(path: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """The autoencoder in folder `path`, or of single-file checkpoint `path`, in evaluation mode.

    Raises:
        DataError: it is missing, damaged, or not in safetensors.
    """
    if is_single_file(path):
        return _load_single_file(path, dtype).vae
    return _load_part(AutoencoderKL, path, torch_dtype=dtype).eval()


def _read_index(path: Path) -> tuple[dict[str, Any], ModelFamily]:
    file = path / "model_index.json"
    try:
        index = read_json(file)
    except FileNotFoundError as error:
        raise DataError(
            f"no model in {path}: {file.name} is missing; give a diffusers folder "
            "(`sarhpc fetch` downloads one, `sarhpc run` exports one)"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}); copy the model again") from error
    if not isinstance(index, dict):
        raise DataError(f"{file} is no JSON object; copy the model again")
    family = family_of_pipeline(str(index.get("_class_name")))
    if family is None or index["_class_name"] != family.pipeline:
        raise DataError(
            f"{path} holds a {index.get('_class_name')}, not a "
            f"{' or '.join(family.pipeline for family in FAMILIES)}; only models of the "
            f"{' and '.join(family.name for family in FAMILIES)} kinds are supported"
        )
    return index, family


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    if not folder.is_dir():
        raise DataError(f"model part {folder} is missing; copy the model again")
    _require_safetensors(folder)
    load: Callable[..., tuple[Any, dict[str, Any]]] = kind.from_pretrained
    try:
        part, info = load(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # damaged files end the libraries in any exception
        raise DataError(f"model part {folder} cannot be loaded ({error}); copy it again") from error
    # The libraries only warn about these and continue with random weights.
    absent_keys = sorted(info["missing_keys"]) + [str(k) for k in info.get("mismatched_keys", ())]
    if absent_keys:
        raise DataError(
            f"model part {folder} lacks {len(absent_keys)} weights, first {absent_keys[0]}; "
            "its config.json and its weights belong to different models"
        )
    return part


def _require_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(file.name for file in folder.glob("*.bin"))
    found = f"only {', '.join(others)}, which can run code when opened" if others else "no weights"
    raise DataError(f"model part {folder} has {found}; convert or copy it as safetensors")


def _load_scheduler(path: Path, index: dict[str, Any]) -> SchedulerMixin:
    named = index.get("scheduler")
    name = str(named[1]) if isinstance(named, list) and len(named) == 2 else ""
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise DataError(f"{path / 'model_index.json'} names no scheduler of diffusers: {name}")
    load: Callable[..., SchedulerMixin] = getattr(kind, "from_pretrained")  # noqa: B009
    try:
        return load(path / SCHEDULER, local_files_only=True)
    except Exception as error:  # as above
        raise DataError(f"scheduler in {path} cannot be loaded ({error}); copy it again") from error


def _with_length(tokenizer: CLIPTokenizer, positions: int) -> CLIPTokenizer:
    """A copy that truncates and pads prompts to `positions` tokens.

    Some published CLIP tokenizers declare 8192, and a pipeline would pad to that.
    """
    if tokenizer.model_max_length == positions:
        return tokenizer
    cut = copy.deepcopy(tokenizer)
    cut.model_max_length = positions
    return cut
