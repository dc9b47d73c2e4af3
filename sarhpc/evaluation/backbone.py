"""Features of tiles by a network from a local path, and how a tile becomes its input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpc.documents import read_json
from hpc.errors import ConfigError, HpcError
from hpc.publish import digest_file
from sarhpc.evaluation.feature_config import (
    AUTO,
    CROP,
    DB,
    INCEPTION,
    TORCHSCRIPT,
    TRANSFORMERS,
    FeaturesConfig,
)
from sarhpc.measures.features import amplitude

if TYPE_CHECKING:
    import torch

KEY = "evaluate.features.backbone"
_CLIP = ("clip", "clip_vision_model")


@dataclass(frozen=True)
class BackboneInput:
    """How a tile of one channel becomes the input of the network."""

    pixels: str
    """`codes`: amplitude of 0 to full scale; `db`: level between two bounds."""
    db: tuple[float, float] | None
    fit: str
    """`crop`, `resize`, or `inside` where the network resizes by itself."""
    px: int | None
    """Side; None takes the whole tile."""
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    top: float = 1.0
    """Value of full scale before mean and standard deviation."""


@dataclass(frozen=True)
class Backbone:
    """A network that is loaded, and what is recorded of it."""

    path: str
    kind: str
    sha256: str
    """Over its configuration and weights."""
    width: int
    input: BackboneInput
    model: Callable[[torch.Tensor], torch.Tensor]
    device: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result."""
        facts = ("path", "kind", "sha256", "width")
        return {**{name: getattr(self, name) for name in facts}, "input": asdict(self.input)}

    def identity(self) -> str:
        """What features depend on, as text: weights, input and width; not the path."""
        facts = {name: value for name, value in self.to_json().items() if name != "path"}
        return json.dumps(facts, sort_keys=True)


def load_backbone(cfg: FeaturesConfig, tile_px: Sequence[int]) -> Backbone:
    """The network of the configuration, tried on one empty tile.

    Args:
        cfg: with a `backbone`.
        tile_px: rows and columns of the tiles.

    Raises:
        ConfigError: it cannot be loaded, tiles of this size are no input of it, or it has another
            width than the configuration says.
    """
    path = Path(str(cfg.backbone)).expanduser()
    kind = _kind(path, cfg.kind)
    try:
        model, given = _transformers(path, cfg) if kind == TRANSFORMERS else _script(path, kind)
    except HpcError:
        raise
    # Loaders of other packages raise whatever the file makes of them.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{KEY}={path} cannot be loaded as {kind} ({type(error).__name__}: {reason}); name a "
            "folder with config.json and model.safetensors, or a TorchScript file"
        ) from error
    wanted = _input(cfg, kind, given)
    _require_size(wanted, tile_px, path)
    backbone = Backbone(str(path), kind, _digest(path), 0, wanted, model, _device())
    return _tried(backbone, cfg.width, tile_px)


def features_of(backbone: Backbone, tiles: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Features (N, width) of tiles of one size.

    Args:
        backbone: the network.
        tiles: (H, W) amplitude relative to full scale, or 8-bit codes.
    """
    import torch

    batch = torch.stack([_prepared(tile, backbone.input) for tile in tiles])
    with torch.inference_mode():
        found = backbone.model(batch.to(backbone.device)).float().cpu()
    if found.ndim != 2:
        found = found.flatten(1)
    values: NDArray[np.float32] = found.numpy()
    return values


def _prepared(tile: NDArray[Any], wanted: BackboneInput) -> torch.Tensor:
    """(C, H, W) input of one tile."""
    import torch
    from torch.nn.functional import interpolate

    level = amplitude(tile).astype(np.float32)
    if wanted.db is not None:
        low, high = wanted.db
        decibels = 20 * np.log10(np.maximum(level, np.float32(1e-10)))
        level = ((decibels - low) / (high - low)).astype(np.float32)
    level = np.clip(level, 0.0, 1.0).astype(np.float32)
    if wanted.px and wanted.fit == CROP:
        row, column = ((side - wanted.px) // 2 for side in level.shape)
        level = level[row : row + wanted.px, column : column + wanted.px]
    image = torch.from_numpy(np.ascontiguousarray(level))[None]
    if wanted.px and wanted.fit != CROP and image.shape[1:] != (wanted.px, wanted.px):
        size = (wanted.px, wanted.px)
        image = interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    image = wanted.top * image.repeat(wanted.channels, 1, 1)
    if wanted.mean is not None and wanted.std is not None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (wanted.mean, wanted.std))
        image = (image - mean) / std
    return image


def _kind(path: Path, kind: str) -> str:
    if not path.exists():
        raise ConfigError(
            f"{KEY}={path} does not exist; give the path of a folder or of a TorchScript file on "
            "this machine, as nothing is fetched by jobs"
        )
    if kind == AUTO:
        return TRANSFORMERS if path.is_dir() else TORCHSCRIPT
    if (kind == TRANSFORMERS) != path.is_dir():
        wanted = "folder" if kind == TRANSFORMERS else "file"
        raise ConfigError(f"{KEY}={path} is no {wanted}, which kind={kind} needs")
    return kind


def _script(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    import torch

    module = torch.jit.load(str(path), map_location=_device())  # type: ignore[no-untyped-call]
    module.eval()
    if kind == INCEPTION:
        return lambda batch: module(batch, return_features=True), {"fit": "inside", "top": 255.0}
    return module, {}


def _transformers(path: Path, cfg: FeaturesConfig) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    known = AutoConfig.from_pretrained(path, local_files_only=True)
    clip = known.model_type in _CLIP
    of = CLIPVisionModelWithProjection if clip else AutoModel
    vision = getattr(known, "vision_config", known)
    if clip and hasattr(known, "projection_dim"):
        # The library takes the width from the part on pictures, which need not name it.
        vision.projection_dim = known.projection_dim
    with _quiet():
        loaded, report = of.from_pretrained(
            path,
            config=vision if clip else known,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ConfigError(
            f"{KEY}={path}: {len(missing)} weights of the network are not in its files "
            f"({', '.join(missing[:3])}, ...), which would be random; fetch the folder again"
        )
    model = loaded.eval().to(_device())
    facts = _preprocessing(path, getattr(vision, "image_size", None))
    patch = getattr(vision, "patch_size", None)
    side = cfg.px or facts.get("px")
    if isinstance(patch, int) and side and side % patch:
        raise ConfigError(f"evaluate.features.px={side}: {path} takes multiples of {patch} px")
    if clip:
        return lambda x: model(x, interpolate_pos_encoding=True).image_embeds, facts
    return lambda x: _pooled(model(x)), facts


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting the text part of a CLIP as weights that are not expected."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    shown = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _pooled(found: Any) -> Any:
    pooled = getattr(found, "pooler_output", None)
    return found.last_hidden_state.mean(1) if pooled is None else pooled


def _preprocessing(path: Path, image_size: Any) -> dict[str, Any]:
    """Side, mean and standard deviation that the folder names."""
    file = path / "preprocessor_config.json"
    facts = read_json(file) if file.is_file() else {}
    size = facts.get("crop_size") if facts.get("do_center_crop") else facts.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    found: dict[str, Any] = {"px": size if isinstance(size, int) else image_size}
    if facts.get("do_normalize", True) and "image_mean" in facts:
        found |= {"mean": tuple(facts["image_mean"]), "std": tuple(facts["image_std"])}
    return found


def _input(cfg: FeaturesConfig, kind: str, given: dict[str, Any]) -> BackboneInput:
    own = cfg.mean is not None and cfg.std is not None
    side = cfg.px or given.get("px")
    return BackboneInput(
        pixels=cfg.pixels,
        db=(cfg.db[0], cfg.db[1]) if cfg.pixels == DB else None,
        fit=given.get("fit", cfg.fit),
        px=None if kind == INCEPTION else side,
        channels=cfg.channels,
        mean=tuple(cfg.mean or ()) if own else given.get("mean"),
        std=tuple(cfg.std or ()) if own else given.get("std"),
        top=given.get("top", 1.0),
    )


def _require_size(wanted: BackboneInput, tile_px: Sequence[int], path: Path) -> None:
    if wanted.fit == CROP and wanted.px and min(tile_px) < wanted.px:
        raise ConfigError(
            f"{KEY}={path} takes {wanted.px} x {wanted.px} px, and the tiles have "
            f"{' x '.join(map(str, tile_px))}: give evaluate.features.px, at most "
            f"{min(tile_px)}, or evaluate.features.fit=resize, which enlarges them"
        )


def _tried(backbone: Backbone, width: int | None, tile_px: Sequence[int]) -> Backbone:
    # A ramp: a network that divides by the contrast of its input has a value.
    ramp = np.linspace(0.1, 0.9, int(np.prod(tile_px)), dtype=np.float32).reshape(tuple(tile_px))
    try:
        found = features_of(backbone, [ramp, ramp])
    except Exception as error:
        reason = " ".join(str(error).split())[-300:]
        raise ConfigError(
            f"{KEY}={backbone.path} takes no tile of {tile_px[0]} x {tile_px[1]} px "
            f"({type(error).__name__}: {reason}); see evaluate.features.px, channels and kind"
        ) from error
    if len(found) != 2 or not np.isfinite(found).all():
        raise ConfigError(f"{KEY}={backbone.path} gives no finite vector for each tile")
    if width is not None and found.shape[1] != width:
        raise ConfigError(
            f"{KEY}={backbone.path} has {found.shape[1]} features, and evaluate.features.width is "
            f"{width}: name the network that was meant, or its width"
        )
    return replace(backbone, width=int(found.shape[1]))


def _digest(path: Path) -> str:
    if path.is_file():
        return digest_file(path).sha256
    files = [path / "config.json", *sorted(path.glob("*.safetensors"))]
    return hashlib.sha256("".join(digest_file(file).sha256 for file in files).encode()).hexdigest()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
