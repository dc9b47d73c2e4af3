"""E11 of sets that are compared: maps of all their tiles, copies among them, and pictures of pairs.

What cannot be searched is left out with the reason, and the rest of the evaluation goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError
from hpc.publish import publish_bytes
from sarhpc.extras import require_extra
from sarhpc.shards.subset import spread
from sarhpc.stages.work.leaving_out import leaving_out
from sarhpc.stages.work.measuring import MAPS, Part, measure_parts, pixels_at

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hpc.store.rundir import RunDir
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig, MemoryConfig
    from sarhpc.evaluation.image_sets import ImageSet
    from sarhpc.evaluation.map_tables import MappedTiles
    from sarhpc.evaluation.memory import Copies

log = logging.getLogger(__name__)

BLOCK = "memory"
"""Name of the block in the result, and of the folder of its tables and pictures."""
PART_IMAGES = 1024
"""Tiles of a table of maps: 2 MB."""
GIB = 2**30


def require_shards(cfg: MemoryConfig | None) -> None:
    """Raise ConfigError unless the training shards that are named are there.

    Raises:
        ConfigError: the folder does not exist.
        MissingExtraError: Faiss is asked for and not installed.
    """
    if cfg is not None and cfg.approximate:
        require_extra("search", "evaluate.memory.approximate")
    if cfg is None or cfg.shards is None or _shards(cfg.shards).exists():
        return
    raise ConfigError(
        f"evaluate.memory.shards={cfg.shards} does not exist; name the folder of the shards that "
        "the model was trained on, or null for split train of the real set"
    )


def with_memory(
    compared: ComparedSets,
    planned: ComparisonPlan,
    sets: tuple[ImageSet, ImageSet],
    config: EvaluateConfig,
    folder: Path,
    workers: int = 1,
    run: RunDir | None = None,
) -> ComparedSets:
    """The same with copies in the judged set, in a block, a note and a gate.

    Args:
        compared: the sets as they are compared.
        planned: how.
        sets: the real set, and the one that is judged.
        config: of the evaluation.
        folder: for tables and pictures.
        workers: processes that read tiles, and threads that search.
        run: whose plan names files; None where they are paths.
    """
    from sarhpc.evaluation.gates import memorised_gate

    cfg = config.memory
    if cfg is None:
        return compared
    block: dict[str, Any] = {}
    with leaving_out(lambda why: block.update(left_out=why)):
        block |= _search(planned, sets, config, cfg, folder / BLOCK, workers, run).block
    if "left_out" in block:
        log.warning("E11, left out: %s", block["left_out"])
    gates = [*compared.gates]
    if config.gates.memorised is not None:
        gates.append(memorised_gate(config.gates.memorised, block))
    return dataclasses.replace(
        compared,
        blocks={**compared.blocks, BLOCK: block},
        gates=tuple(gates),
        notes=(*compared.notes, note_of(block)),
    )


def note_of(block: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    if "left_out" in block:
        return f"Copies of training tiles (E11) were not looked for: {block['left_out']}"
    found = block["memorised"]
    return (
        f"Copies of training tiles (E11): {found['count']:,} of {found['of']:,} images "
        f"({found['share']:.2%}, 95 % interval {found['low']:.2%} to {found['high']:.2%}) by a "
        f"limit that {block['false_alarms']:.2%} of other images exceed.{_of_even_ground(block)}"
    )


def _of_even_ground(block: Mapping[str, Any]) -> str:
    even = block.get("even")
    if not even or not even["count"]:
        return ""
    return (
        f" {even['share']:.2%} of the images show ground so even (below {even['below_db']:.2g} dB) "
        "that copies can hardly be distinguished from other ground."
    )


def _search(
    planned: ComparisonPlan,
    sets: tuple[ImageSet, ImageSet],
    config: EvaluateConfig,
    cfg: MemoryConfig,
    folder: Path,
    workers: int,
    run: RunDir | None,
) -> Copies:
    from sarhpc.evaluation.compared import REAL
    from sarhpc.evaluation.memory import Asked, find_copies
    from sarhpc.measures.ground_maps import SIDE, most_shift_cells

    training, corpus = _training(sets[0], cfg), sets[1]
    wanted = _plan(training, corpus, config, cfg, one_law=run is not None)
    _require_large(wanted.px)
    name = wanted.views[0][1][0]
    _require_memory(wanted.drawn[REAL], min(wanted.drawn[name], cfg.images), cfg)
    of_set = {
        one: _parts(one, [p for p in wanted.parts if p["set"] == one], folder)
        for one in (REAL, name)
    }
    held_out = []
    if "train" not in planned.splits or len(planned.splits) > 1:
        same = [p for p in planned.parts if p["set"] == REAL and tuple(p["px"]) == wanted.px]
        held_out = _parts(
            "held-out", [p for p in same if p["pixels"] == planned.pixels], folder, run
        )
    parts = [*of_set[REAL], *of_set[name], *held_out]
    measure_parts(parts, workers, folder)
    tiles = {one: _read(parts) for one, parts in of_set.items()}
    copies = find_copies(
        _at_most(tiles[name], cfg.images),
        tiles[REAL],
        _apart(_read(held_out), tiles[REAL]) if held_out else None,
        Asked(
            cfg.false_alarms,
            most_shift_cells(wanted.px),
            (wanted.px[0] // SIDE, wanted.px[1] // SIDE),
            cfg.pairs,
            workers,
            cfg.approximate,
        ),
    )
    pictures = [
        _publish_pair(folder, number, wanted, (name, ours), (REAL, theirs), pair)
        for number, ((ours, theirs), pair) in enumerate(
            zip(copies.pairs, copies.block["pairs"], strict=True)
        )
    ]
    pairs = [
        {**pair, "picture": picture}
        for pair, picture in zip(copies.block["pairs"], pictures, strict=True)
    ]
    block = {**copies.block, "pairs": pairs, "px": list(wanted.px), "training": training.name}
    return dataclasses.replace(copies, block=block)


def _training(real: ImageSet, cfg: MemoryConfig) -> ImageSet:
    """The tiles that the model was trained on, or all real ones, of which `train` is taken.

    Raises:
        DataError: the folder holds none.
    """
    from sarhpc.evaluation.image_sets import list_images

    return real if cfg.shards is None else list_images(_shards(cfg.shards))


def _shards(name: str) -> Path:
    from sarhpc.stages.inputs.paths import expanded

    return Path(expanded(name))


def _plan(
    training: ImageSet, corpus: ImageSet, config: EvaluateConfig, cfg: MemoryConfig, one_law: bool
) -> ComparisonPlan:
    """The plan of maps: every tile of split `train`, and every image.

    Raises:
        ConfigError: the images mean something else than the tiles.
        DataError: tiles or images are missing or damaged.
    """
    from sarhpc.evaluation.comparison_plan import plan_comparison

    missing = [file for file in training.files if not Path(file).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(training.files)} shards of training tiles are not there any "
            f"more, such as {missing[0]}: restore them, or name a copy (evaluate.memory.shards)"
        )
    wanted = dataclasses.replace(config, all_tiles=True, real_splits=["train"])
    planned = plan_comparison(training, {"corpus": corpus}, wanted, one_law=one_law)
    splits = {*planned.splits} - {"unknown"}
    if splits and "train" not in splits:
        raise DataError(
            f"{training.name} has tiles of {', '.join(sorted(splits))}, and none of train: name "
            "the shards that the model was trained on (evaluate.memory.shards)"
        )
    return planned


def _require_large(px: tuple[int, int]) -> None:
    from sarhpc.measures.ground_maps import LEAST_PX

    if min(px) < LEAST_PX:
        raise ConfigError(
            f"images are {px[0]} x {px[1]} px, and copies are found in {LEAST_PX} x {LEAST_PX} px "
            "or more: give larger tiles, or leave it out (evaluate.memory=null)"
        )


def _require_memory(training: int, images: int, cfg: MemoryConfig) -> None:
    """Raise ConfigError where the maps take more memory than is allowed.

    Raises:
        ConfigError: they do; the message has what they take.
    """
    from sarhpc.evaluation.memory import memory_bytes

    needed = memory_bytes(training, images, cfg.approximate) / GIB
    if needed > cfg.gib:
        raise ConfigError(
            f"maps of {training:,} training tiles and {images:,} images take {needed:.1f} GiB of "
            f"memory, evaluate.memory.gib allows {cfg.gib:g}: allow more, or look at fewer images "
            "(evaluate.memory.images) or tiles (evaluate.memory.shards)"
        )


def _parts(
    name: str, parts: Sequence[Mapping[str, Any]], folder: Path, run: RunDir | None = None
) -> list[Part]:
    """Parts of a set in tables of about a thousand tiles."""
    groups: list[list[Mapping[str, Any]]] = []
    room = 0
    for part in parts:
        count = sum(len(rows) for _, rows, *_ in part["files"])
        if not groups or room < count:
            groups.append([])
            room = PART_IMAGES
        groups[-1].append(part)
        room -= count
    return [
        Part(
            f"{name}-{number:06d}",
            {**group[0], "kind": MAPS, "files": [file for part in group for file in part["files"]]},
            folder / f"{name}-{number:06d}.parquet",
            run,
        )
        for number, group in enumerate(groups)
    ]


def _read(parts: Sequence[Part]) -> MappedTiles:
    from sarhpc.evaluation.map_tables import read_maps

    return read_maps([part.table for part in parts])


def _at_most(tiles: MappedTiles, most: int) -> MappedTiles:
    import numpy as np

    if len(tiles) <= most:
        return tiles  # not copied
    return tiles.subset(np.array(spread(range(len(tiles)), most), np.int64))


def _apart(held_out: MappedTiles, training: MappedTiles) -> MappedTiles:
    """The held-out tiles that are no training tiles and of no scene of one."""
    import numpy as np

    known = {*training.groups} - {""}
    keys = {*training.keys}
    return held_out.subset(
        np.array(
            [
                number
                for number, (key, group) in enumerate(
                    zip(held_out.keys, held_out.groups, strict=True)
                )
                # Keys count from 0 in every set: they say something of unknown scenes only.
                if group not in known and (group or key not in keys)
            ],
            np.int64,
        )
    )


def _publish_pair(
    folder: Path,
    number: int,
    planned: ComparisonPlan,
    ours: tuple[str, tuple[str, int]],
    theirs: tuple[str, tuple[str, int]],
    pair: Mapping[str, Any],
) -> str:
    """Publish an image beside its nearest training tile, as it lies; the name of the file.

    The name follows from the content, so that a page of before keeps its pictures.
    """
    import numpy as np

    from sarhpc.shards.images import encode_gray8

    found = []
    for name, place in (ours, theirs):
        [pixels] = pixels_at(planned, name, planned.pixels, [place])
        found.append(_shown(pixels))
    gap = np.full((found[0].shape[0], 4), 255, np.uint8)
    data = encode_gray8(np.concatenate([found[0], gap, found[1]], axis=1))
    name = f"pair-{number:02d}-{hashlib.sha256(data).hexdigest()[:8]}.png"
    publish_bytes(folder / name, data)
    return name


def _shown(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Amplitude or codes (H, W) in 8 bits, with the square-root stretch, up to their 99.9 %."""
    import numpy as np

    values = np.nan_to_num(np.asarray(pixels, np.float64))
    top = max(float(np.percentile(values, 99.9)), 1e-12)
    return np.asarray(np.rint(255 * np.sqrt(np.clip(values / top, 0, 1))), np.uint8)
