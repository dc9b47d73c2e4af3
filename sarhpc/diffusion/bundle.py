"""A Stable Diffusion bundle: U-Net, text encoders, autoencoder, tokenizers and noise schedule.

Two kinds: SD 1.5 with one text encoder, and SDXL with two and the micro-conditioning on sizes. On
disk it is a diffusers folder that `DiffusionPipeline.from_pretrained(path)` loads, weights in
safetensors only.
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
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    SchedulerMixin,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from hpc.errors import ConfigError, DataError
from hpc.publish import publishing_directory
from sarhpc.diffusion.architecture import new_scheduler, new_unet, require_sense, text_config
from sarhpc.diffusion.autoencoder import new_autoencoder
from sarhpc.diffusion.config import VARIANTS, BundleConfig
from sarhpc.diffusion.single_file import is_single_file, read_single_file, shapes_beside
from sarhpc.diffusion.tokenizer import load_clip_tokenizer

_CONTROL, _XL_CONTROL = StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline


@dataclass(frozen=True)
class Bundle:
    """The parts of a Stable Diffusion model; SDXL if it has the second encoder and tokenizer.

    With a ControlNet it is steered by a layer of the tile.
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    scheduler: SchedulerMixin
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    controlnet: ControlNetModel | None = None

    @property
    def is_xl(self) -> bool:
        """Whether it is of the SDXL kind."""
        return self.text_encoder_2 is not None

    @property
    def models(self) -> dict[str, Any]:
        """The modules that can be trained, by the name of their folder."""
        named = {"unet": self.unet, "text_encoder": self.text_encoder}
        others = {"text_encoder_2": self.text_encoder_2, "controlnet": self.controlnet}
        return {**named, **{part: model for part, model in others.items() if model is not None}}

    @property
    def tokenizers(self) -> tuple[CLIPTokenizer, ...]:
        """The tokenizer of each text encoder, in order."""
        return (self.tokenizer,) if self.tokenizer_2 is None else (self.tokenizer, self.tokenizer_2)

    @property
    def tile_px(self) -> int:
        """Side of the tiles the U-Net is made for, px."""
        reduction: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.unet.config.sample_size) * reduction

    def pipeline(self) -> Any:
        """The diffusers pipeline over these very modules, without safety checker or watermark."""
        parts = {**self.models, "vae": self.vae, "tokenizer": self.tokenizer}
        if self.is_xl:
            # Dropped captions are trained as the empty prompt, so that is what an absent negative
            # prompt must mean, not zeros in place of its embedding.
            kind = _XL_CONTROL if self.controlnet is not None else StableDiffusionXLPipeline
            return kind(
                **parts,
                scheduler=self.scheduler,
                tokenizer_2=self.tokenizer_2,
                force_zeros_for_empty_prompt=False,
                add_watermarker=False,
            )
        plain = _CONTROL if self.controlnet is not None else StableDiffusionPipeline
        return plain(
            **parts,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def new_bundle(
    cfg: BundleConfig,
    tokenizer: CLIPTokenizer,
    seed: int = 0,
    vae: AutoencoderKL | None = None,
) -> Bundle:
    """An untrained bundle of the shapes in `cfg`, the same for the same seed.

    A trained autoencoder is taken as it is, in place of a new one of shape `cfg.vae`. With
    `cfg.text_2` it is of the SDXL kind, and both text encoders read the one vocabulary.

    Raises:
        ConfigError: the shapes do not fit together.
    """
    tokenizer = _with_length(tokenizer, cfg.text.positions)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text_encoder = CLIPTextModel(text_config(cfg.text, len(tokenizer), tokenizer))
            unet = new_unet(cfg)
            second = _second_text(cfg, tokenizer)
        vae = vae or new_autoencoder(cfg.vae, seed)
    except ValueError as error:
        raise ConfigError(f"the shapes of the bundle do not fit together: {error}") from error
    parts = (unet, text_encoder.eval(), vae)
    return Bundle(*parts, tokenizer, new_scheduler(cfg.scheduler), **second)


def _second_text(cfg: BundleConfig, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    if cfg.text_2 is None:
        return {}
    tokenizer_2 = _with_length(tokenizer, cfg.text_2.positions)
    encoder = CLIPTextModelWithProjection(text_config(cfg.text_2, len(tokenizer_2), tokenizer_2))
    return {"text_encoder_2": encoder.eval(), "tokenizer_2": tokenizer_2}


def with_schedule(
    bundle: Bundle, prediction_type: str | None, zero_terminal_snr: bool = False
) -> Bundle:
    """`bundle` whose U-Net is to predict `prediction_type` (None: as it does), weights untouched.

    Zero terminal SNR rescales the betas by algorithm 1 of Lin et al. (arXiv:2305.08891) and samples
    at trailing timesteps. The first steps of a fine-tune then teach the U-Net its new answer.

    Raises:
        ConfigError: zero terminal SNR without v-prediction, or an unknown prediction.
    """
    kind = prediction_type or str(bundle.scheduler.config.get("prediction_type", "epsilon"))
    if kind not in ("epsilon", "v_prediction"):
        raise ConfigError(f"prediction_type {kind!r} is not one of epsilon, v_prediction")
    require_sense(kind, zero_terminal_snr)
    if prediction_type is None and not zero_terminal_snr:
        return bundle
    changes: dict[str, Any] = {"prediction_type": kind}
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    # Not every scheduler knows how to rescale; DDIM does, and any other can be made of its config.
    scheduler = DDIMScheduler.from_config(bundle.scheduler.config, **changes)
    return replace(bundle, scheduler=scheduler)


def save_bundle(
    bundle: Bundle,
    path: Path,
    dtype: torch.dtype | None = None,
    variants: Sequence[str] = (),
) -> None:
    """Publish `bundle` as diffusers folder `path`, weights cast to `dtype` when given.

    With `variants`, keys of `VARIANTS`, the folder has the weights in these types too, which
    `from_pretrained(path, variant=...)` takes. The bundle itself keeps its precision.
    """
    with publishing_directory(path) as staging:
        _as_type(bundle, dtype).pipeline().save_pretrained(staging, safe_serialization=True)
        for variant in variants:
            _save_variant(bundle, staging, variant)
        for config in staging.rglob("config.json"):
            _forget_origin(config)
        for weights in staging.rglob("*.safetensors"):
            # The library writes them for their owner alone; the config beside them is not.
            weights.chmod(0o644)


def _as_type(bundle: Bundle, dtype: torch.dtype | None) -> Bundle:
    modules = {**bundle.models, "vae": bundle.vae}
    return replace(bundle, **{name: _cast(module, dtype) for name, module in modules.items()})


def _save_variant(bundle: Bundle, folder: Path, variant: str) -> None:
    """Put the weights in one more type beside those in `folder`, whose configurations stay."""
    aside = folder / f".{variant}"
    cast = _as_type(bundle, getattr(torch, VARIANTS[variant]))
    cast.pipeline().save_pretrained(aside, safe_serialization=True, variant=variant)
    for weights in aside.rglob(f"*.{variant}*.safetensors"):
        weights.rename(folder / weights.relative_to(aside))
    shutil.rmtree(aside)


def _cast(module: Any, dtype: torch.dtype | None) -> Any:
    if dtype is None or module.dtype == dtype:
        return module
    # The plain torch cast: the libraries' own warn about modules there are none of.
    return nn.Module.to(copy.deepcopy(module), dtype=dtype)


def _forget_origin(config: Path) -> None:
    """Take out the path the part was loaded from: equal models are equal bytes."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_bundle(path: Path, dtype: torch.dtype = torch.float32) -> Bundle:
    """The bundle in diffusers folder `path`, every part in evaluation mode and of `dtype`.

    Or that of the checkpoint in one file `path`, see `single_file`. Nothing is fetched: the folder
    must be complete. The tokenizer cuts and pads prompts to what the text encoder can read,
    whatever its own files say.

    Raises:
        DataError: a part is missing, torn, of another architecture, or not in safetensors.
    """
    if is_single_file(path):
        return _load_single_file(path, dtype)
    index = _read_index(path)
    unet = _load_part(UNet2DConditionModel, path / "unet", torch_dtype=dtype)
    vae = _load_part(AutoencoderKL, path / "vae", torch_dtype=dtype)
    text_encoder, tokenizer = _load_text(CLIPTextModel, path, "", dtype)
    second: dict[str, Any] = {}
    if index["_class_name"] == _XL:
        encoder, second_tokenizer = _load_text(CLIPTextModelWithProjection, path, "_2", dtype)
        second = {"text_encoder_2": encoder, "tokenizer_2": second_tokenizer}
    scheduler = _load_scheduler(path, index)
    return Bundle(unet.eval(), text_encoder, vae.eval(), tokenizer, scheduler, **second)


def _load_single_file(file: Path, dtype: torch.dtype) -> Bundle:
    folder = shapes_beside(file)
    index = _read_index(folder)
    found = read_single_file(file, is_xl=index["_class_name"] == _XL, dtype=dtype)
    second: dict[str, Any] = {}
    if found.text_encoder_2 is not None:
        tokenizer_2 = _load_tokenizer(folder / "tokenizer_2", found.text_encoder_2)
        second = {"text_encoder_2": found.text_encoder_2, "tokenizer_2": tokenizer_2}
    tokenizer = _load_tokenizer(folder / "tokenizer", found.text_encoder)
    parts = (found.unet, found.text_encoder, found.vae)
    return Bundle(*parts, tokenizer, _load_scheduler(folder, index), **second)


def _load_text(kind: Any, path: Path, suffix: str, dtype: torch.dtype) -> tuple[Any, CLIPTokenizer]:
    """A text encoder in evaluation mode, and its tokenizer."""
    encoder = _load_part(kind, path / f"text_encoder{suffix}", dtype=dtype).eval()
    return encoder, _load_tokenizer(path / f"tokenizer{suffix}", encoder)


def _load_tokenizer(folder: Path, encoder: Any) -> CLIPTokenizer:
    """The tokenizer in `folder`, cutting prompts to what `encoder` reads."""
    tokenizer = load_clip_tokenizer(folder)
    if len(tokenizer) > encoder.config.vocab_size:
        raise DataError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, its text encoder knows "
            f"{encoder.config.vocab_size}; they belong to different models"
        )
    return _with_length(tokenizer, encoder.config.max_position_embeddings)


def load_autoencoder(path: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """The autoencoder in diffusers folder `path`, in evaluation mode.

    Or that of the checkpoint in one file `path`.

    Raises:
        DataError: it is missing, torn, or not in safetensors.
    """
    if is_single_file(path):
        return _load_single_file(path, dtype).vae
    return _load_part(AutoencoderKL, path, torch_dtype=dtype).eval()


def _read_index(path: Path) -> dict[str, Any]:
    file = path / "model_index.json"
    try:
        index: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise DataError(
            f"no model in {path}: {file.name} is missing; give a diffusers folder "
            "(`sarhpc fetch` brings one, `sarhpc run` exports one)"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}); copy the model again") from error
    if index.get("_class_name") not in (_SD, _XL):
        raise DataError(
            f"{path} holds a {index.get('_class_name')}, not a {_SD} or {_XL}; "
            "only models of the SD 1.5 and SDXL kinds are understood"
        )
    return index


_SD, _XL = StableDiffusionPipeline.__name__, StableDiffusionXLPipeline.__name__
_TORN = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


def _load_part(kind: Any, folder: Path, **options: Any) -> Any:
    if not folder.is_dir():
        raise DataError(f"model part {folder} is missing; copy the model again")
    _require_safetensors(folder)
    load: Callable[..., tuple[Any, dict[str, Any]]] = kind.from_pretrained
    try:
        part, info = load(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except _TORN as error:
        raise DataError(f"model part {folder} cannot be loaded ({error}); copy it again") from error
    # The libraries only warn about these and go on with random weights.
    lacking = sorted(info["missing_keys"]) + [str(k) for k in info.get("mismatched_keys", ())]
    if lacking:
        raise DataError(
            f"model part {folder} lacks {len(lacking)} weights, first {lacking[0]}; "
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
    name = str((index.get("scheduler") or [None, None])[1])
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise DataError(f"{path / 'model_index.json'} names no scheduler of diffusers: {name}")
    load: Callable[..., SchedulerMixin] = getattr(kind, "from_pretrained")  # noqa: B009
    try:
        return load(path / "scheduler", local_files_only=True)
    except _TORN as error:
        raise DataError(f"scheduler in {path} cannot be loaded ({error}); copy it again") from error


def _with_length(tokenizer: CLIPTokenizer, positions: int) -> CLIPTokenizer:
    """A copy that cuts and pads prompts to `positions` tokens.

    Some published CLIP tokenizers say 8192, and a pipeline would pad to that.
    """
    if tokenizer.model_max_length == positions:
        return tokenizer
    cut = copy.deepcopy(tokenizer)
    cut.model_max_length = positions
    return cut
