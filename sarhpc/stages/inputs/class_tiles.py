"""Real tiles of known class that limits on the class of images are from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError
from sarhpc.generation.config import OtherClassConfig
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.real_tiles import even_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.shards.contract import PixelContract
    from sarhpc.shards.sample import Sample

log = logging.getLogger(__name__)

KEY = "generate.gate.other_class"
INSTEAD = f"or set {KEY}=null"
LEAST_TILES = 9
"""Fewest real tiles of a class with a limit: one in ten is refused at most."""


@dataclass(frozen=True)
class LabelledTile:
    """A real tile, its middle as large as the images, and the class that its caption names."""

    codes: NDArray[np.uint8]
    caption: str
    name: str
    group: str


def labelled_tiles(
    cfg: OtherClassConfig,
    contract: PixelContract | None,
    shards: Sequence[Path],
    config: RunConfig,
    phrases: Mapping[str, Sequence[str]],
) -> list[LabelledTile]:
    """Real tiles of two classes or more, enough of each.

    Args:
        cfg: of this part of the gate.
        contract: what pixels of the model mean.
        shards: of the tiles that the other limits are from.
        config: of the run.
        phrases: class -> phrases that name it.

    Raises:
        ConfigError: there are too few of them, of other pixels or smaller than the images.
        DataError: a shard is damaged.
    """
    if cfg.shards is not None:
        shards = sorted(Path(cfg.shards).rglob("*.tar"))
        if not shards:
            raise ConfigError(
                f"{KEY}: no shards below {KEY}.shards={cfg.shards}. Name a folder of shards of "
                f"captioned real tiles, {INSTEAD}"
            )
        _require_same_pixels(shards, contract)
    samples = even_samples(shards, cfg.tiles, ("sar.png", "txt", "meta.json"))
    found = [tile for tile in (_labelled(s, config, phrases) for s in samples) if tile is not None]
    counts = Counter(tile.name for tile in found)
    enough = [name for name, count in counts.items() if count >= LEAST_TILES]
    said = ", ".join(f"{name} {counts[name]}" for name in phrases)
    if len(enough) < 2:
        raise ConfigError(
            f"{KEY}: of {len(samples)} real tiles captions name {said}, and {LEAST_TILES} tiles "
            f"of two classes are needed. Give more tiles ({KEY}.tiles), captioned tiles of these "
            f"classes ({KEY}.shards), the phrases that captions have ({KEY}.classes), {INSTEAD}"
        )
    if len(enough) < len(phrases):
        log.warning("%s: images of classes of fewer than %d real tiles are not judged: %s",
                    KEY, LEAST_TILES, said)  # fmt: skip
    return [tile for tile in found if tile.name in enough]


def _require_same_pixels(shards: Sequence[Path], contract: PixelContract | None) -> None:
    from sarhpc.shards.contract import differences
    from sarhpc.shards.tile_contract import contract_of_shards

    found = [] if contract is None else differences(contract, contract_of_shards(shards))
    if found:
        raise ConfigError(
            f"{KEY}: pixels of the model mean something else than those of the real tiles: "
            f"{'; '.join(found)}. Name tiles as the model makes them ({KEY}.shards), {INSTEAD}"
        )


def _labelled(
    sample: Sample, config: RunConfig, phrases: Mapping[str, Sequence[str]]
) -> LabelledTile | None:
    """A real tile, its middle as large as the images; None where its caption names no class."""
    from sarhpc.evaluation.caption_content import caption_of, class_of
    from sarhpc.evaluation.image_sets import Image, group_of
    from sarhpc.shards.images import decode_gray8
    from sarhpc.shards.sample import decode_meta

    if "sar.png" not in sample.members:
        raise DataError(f"sample {sample.key} of the real tiles of {KEY} has no sar.png")
    meta = decode_meta(sample.members.get("meta.json", b"{}"), sample.key)
    caption = caption_of(Image(sample.key, sample.members, meta, "", 0))
    name = None if caption is None else class_of(caption, phrases)
    if caption is None or name is None:
        return None
    codes = _middle(decode_gray8(sample.members["sar.png"]), config)
    return LabelledTile(codes, caption, name, group_of(meta))


def _middle(codes: NDArray[np.uint8], config: RunConfig) -> NDArray[np.uint8]:
    from sarhpc.generation.copies import middle

    assert config.generate is not None
    rows, columns = codes.shape
    wanted = config.generate.height_px or rows, config.generate.width_px or columns
    if wanted[0] > rows or wanted[1] > columns:
        raise ConfigError(
            f"{KEY}: images of {wanted[0]} x {wanted[1]} px are larger than real tiles of {rows} x"
            f" {columns} px, and a CLIP would see them at another scale: name tiles as large "
            f"({KEY}.shards), {INSTEAD}"
        )
    return middle(codes, wanted)
