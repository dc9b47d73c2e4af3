"""Real tiles after encoding and decoding by the model's autoencoder: the floor of what it makes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarhpc.evaluation.set_facts import AMPLITUDE, RAW_CODES
from sarhpc.shards.subset import spread

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import AutoencoderKL
    from numpy.typing import NDArray

    from sarhpc.measures.features import Features

log = logging.getLogger(__name__)

Place = tuple[Path, int]
"""Shard, and row in it."""


@dataclass(frozen=True)
class Reconstruction:
    """Measures of decoded tiles, which tiles they are, and what is to be said of them."""

    features: Features | None
    """None where there are fewer than four."""
    rows: NDArray[np.int64]
    """Numbers of the tiles in the places given."""
    note: str


def reconstruct_tiles(
    folder: Path,
    places: Sequence[Place],
    pixels: str,
    px: Sequence[int],
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Reconstruction:
    """Measures of real tiles after encoding and decoding, of as many as fit in `budget_s`.

    The job's GPU is used if it has one. The first tile is not counted; the second says how many
    there is time for, evenly from all.

    Args:
        folder: of the autoencoder.
        places: shard and row of each real tile.
        pixels: how they are measured.
        px: rows and columns that are measured.
        budget_s: most seconds; 0 takes none.
        clock: seconds.
    """
    import numpy as np
    import torch

    from sarhpc.diffusion.bundle import load_autoencoder
    from sarhpc.evaluation.config import MIN_TILES
    from sarhpc.measures.features import join, measure

    nothing = np.zeros(0, np.int64)
    if not budget_s:
        return Reconstruction(None, nothing, "The autoencoder is not measured: it has no time.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_autoencoder(folder).to(device)
    begun = clock()
    _decoded(model, places[0], pixels, px, 0)
    warm = clock()
    _decoded(model, places[0], pixels, px, 0)
    end = clock()
    each_s = max(end - warm, 1e-9)
    most = int((budget_s - (end - begun)) / each_s)
    where = "a GPU" if device.type == "cuda" else "the CPU"
    if most < MIN_TILES:
        return Reconstruction(None, nothing, _too_slow(each_s, budget_s, where))
    rows = np.array(spread(range(len(places)), most), np.int64)
    kept, measured = [], []
    for row in rows:
        try:
            tile = _decoded(model, places[row], pixels, px, int(row))
            measured.append(measure([tile]))
            kept.append(row)
        except ValueError as error:
            log.warning("decoded tile %d of %s: %s", places[row][1], places[row][0].name, error)
    if len(kept) < MIN_TILES:
        note = f"Of {len(rows)} decoded tiles {len(kept)} can be measured; they are left out."
        return Reconstruction(None, nothing, note)
    return Reconstruction(
        join(measured), np.array(kept), _note(len(kept), len(places), each_s, where)
    )


def _note(taken: int, of: int, each_s: float, where: str) -> str:
    part = f"all {of}" if taken == of else f"{taken} of {of}"
    return (
        f"The set “autoencoder” is {part} real tiles after encoding and decoding by the model's "
        f"autoencoder, on {where}: the floor of whatever is generated through it."
        + ("" if taken == of else f" A tile takes {each_s:.2g} s (evaluate.autoencoder_s).")
    )


def _too_slow(each_s: float, budget_s: float, where: str) -> str:
    return (
        f"The autoencoder is not measured: on {where} a tile takes {each_s:.2g} s, and fewer than "
        f"4 fit in evaluate.autoencoder_s={budget_s:g}. Give the stage a GPU, or more time."
    )


def _decoded(
    model: AutoencoderKL, place: Place, pixels: str, px: Sequence[int], seed: int
) -> NDArray[Any]:
    """A tile (H, W) after encoding and decoding, in the pixels that are measured."""
    import numpy as np

    from sarhpc.diffusion.autoencoder import reconstruct
    from sarhpc.diffusion.crops import as_gray8, as_input
    from sarhpc.evaluation.image_sets import ImageSet, read_images
    from sarhpc.evaluation.pixels import level_amplitude
    from sarhpc.shards.images import decode_gray8

    file, row = str(place[0]), place[1]
    shard = ImageSet(file, (file,), (1,))
    [image] = read_images(shard, file, [row], lambda _: ["sar.png"])
    picture = as_input(decode_gray8(image.members["sar.png"]))
    out: torch.Tensor = reconstruct(model, picture[None], seed)[0]
    if pixels == AMPLITUDE:
        level = (out.mean(0).double().numpy() + 1) / 2
        whole: NDArray[Any] = level_amplitude(level, image.meta)
    else:
        gray = as_gray8(out)
        whole = (
            gray
            if pixels == RAW_CODES or _is_linear(image.meta)
            else level_amplitude(gray / np.float32(255), image.meta)
        )
    first = [(side - want) // 2 for side, want in zip(whole.shape, px, strict=True)]
    return whole[first[0] : first[0] + px[0], first[1] : first[1] + px[1]]


def _is_linear(meta: Any) -> bool:
    from sarhpc.evaluation.set_facts import LINEAR_LAWS

    law = meta.get("normalisation")
    return not isinstance(law, dict) or law.get("mode") in LINEAR_LAWS
