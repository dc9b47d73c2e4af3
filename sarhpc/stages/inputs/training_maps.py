"""Maps of the tiles that a model was trained on: made when a gate on copies is planned."""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import ConfigError, DataError, VerificationError
from hpc.publish import publishing
from hpc.store.rundir import RunDir
from sarhpc.generation.config import CopiesConfig
from sarhpc.shards.subset import spread
from sarhpc.stages.config import RunConfig
from sarhpc.stages.inputs.prompts import sample_shards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sarhpc.generation.copies import CopyGate, PlannedCopies
    from sarhpc.shards.contract import PixelContract

log = logging.getLogger(__name__)

_KEY = "generate.gate.memorised"
_INSTEAD = f"or set {_KEY}=null"


def plan_copies(
    run: RunDir, config: RunConfig, cfg: CopiesConfig, contract: PixelContract | None
) -> PlannedCopies:
    """The limit on copies; publishes the training maps in the directory of the stage.

    Raises:
        ConfigError: there are no training tiles, too few, of too few scenes, of other pixels or
            too small.
        DataError: a shard of them is damaged.
    """
    from sarhpc.generation.copies import PlannedCopies
    from sarhpc.measures.ground_maps import most_shift_cells
    from sarhpc.measures.map_search import MapIndex
    from sarhpc.measures.memorisation import group_numbers, limit_of_index

    shards = training_shards(run, cfg)
    _require_same_pixels(shards, contract)
    law = None if contract is None else contract.law
    log.info("stage=generate gate: mapping at most %d training tiles", cfg.tiles)
    training, groups, px = _mapped(shards, cfg.tiles, config, law)
    index = MapIndex(training["map"], most_shift_cells(px), group_numbers(groups))
    try:
        limit = limit_of_index(index, groups)
    except ValueError as error:
        raise ConfigError(
            f"{_KEY} cannot take a limit from {len(training)} training tiles of "
            f"{len({*groups})} flight lines or scenes: {error}. Name more ({_KEY}.shards), "
            f"{_INSTEAD}"
        ) from error
    return PlannedCopies(_publish(run, training), limit, cfg.false_alarms, px, index.most_shift)


def training_shards(run: RunDir, cfg: CopiesConfig) -> list[Path]:
    """Shards of the tiles that the model was trained on.

    Raises:
        ConfigError: there are none, or some are not there any more.
    """
    if cfg.shards is not None:
        shards = sorted(Path(cfg.shards).rglob("*.tar"))
        where = f"no shards below {_KEY}.shards={cfg.shards}"
    elif not run.ledger("caption").sealed:
        shards, where = [], "the run has no captioned tiles"
    else:
        shards, where = sample_shards(run, ["train"]), "the run has no tiles of train"
    missing = [path for path in shards if not path.is_file()]
    if missing:
        where = f"{len(missing)} of {len(shards)} shards are not there any more, as {missing[0]}"
    if missing or not shards:
        raise ConfigError(
            f"{_KEY} has no training tiles to tell copies of: {where}. Name a folder of their "
            f"shards ({_KEY}.shards), {_INSTEAD}"
        )
    return shards


def _require_same_pixels(shards: Sequence[Path], contract: PixelContract | None) -> None:
    from sarhpc.shards.contract import differences
    from sarhpc.shards.tile_contract import contract_of_shards

    found = [] if contract is None else differences(contract, contract_of_shards(shards))
    if found:
        raise ConfigError(
            f"{_KEY}: pixels of the model mean something else than those of the training tiles: "
            f"{'; '.join(found)}. Name the tiles that it was trained on ({_KEY}.shards), {_INSTEAD}"
        )


def _mapped(
    shards: Sequence[Path], most: int, config: RunConfig, law: Any
) -> tuple[NDArray[np.void], list[str], tuple[int, int]]:
    """Maps, groups, and rows and columns that are compared."""
    import numpy as np

    from sarhpc.generation.copies import TRAINING_MAP, middle
    from sarhpc.generation.judged_pixels import judged_pixels
    from sarhpc.measures.ground_maps import ground_map

    rows: list[Any] = []
    groups: list[str] = []
    px: tuple[int, int] = (0, 0)
    for key, group, tile in _tiles(shards, most):
        px = px if any(px) else _compared(tile.shape, config)
        try:
            rows.append((key.encode(), ground_map(judged_pixels(middle(tile, px), law))))
        except ValueError as error:
            raise ConfigError(f"{_KEY}: training tile {key}: {error}; {_INSTEAD[3:]}") from error
        groups.append(group)
    return np.array(rows, TRAINING_MAP), groups, px


def _compared(shape: tuple[int, ...], config: RunConfig) -> tuple[int, int]:
    assert config.generate is not None
    wanted = config.generate.height_px or shape[0], config.generate.width_px or shape[1]
    if wanted[0] > shape[0] or wanted[1] > shape[1]:
        raise ConfigError(
            f"{_KEY}: images of {wanted[0]} x {wanted[1]} px are larger than training tiles of "
            f"{shape[0]} x {shape[1]} px: generate images as large, {_INSTEAD}"
        )
    return wanted


def _tiles(shards: Sequence[Path], most: int) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Yield key, group and codes of at most `most` tiles, evenly from first to last, one a time."""
    from sarhpc.evaluation.image_sets import group_of
    from sarhpc.shards.images import decode_gray8
    from sarhpc.shards.reader import ShardIndex
    from sarhpc.shards.sample import decode_meta
    from sarhpc.shards.tar import read_exactly

    counts = [len(ShardIndex.scan(path)) for path in shards]
    wanted, seen = collections.deque(spread(range(sum(counts)), most)), 0
    for path, size in zip(shards, counts, strict=True):
        index = ShardIndex.scan(path)
        with path.open("rb") as file:
            while wanted and wanted[0] < seen + size:
                row = wanted.popleft() - seen
                places, key = index.members(row), index.key(row)
                if "sar.png" not in places:
                    raise DataError(f"sample {key} of {path} has no sar.png")
                codes = decode_gray8(read_exactly(file, places["sar.png"], path))
                meta = {}
                if "meta.json" in places:
                    meta = decode_meta(read_exactly(file, places["meta.json"], path), key, path)
                yield key, group_of(meta), codes
        seen += size


def _publish(run: RunDir, training: NDArray[np.void]) -> str:
    import numpy as np

    digest = hashlib.sha256(np.ascontiguousarray(training).tobytes()).hexdigest()
    with publishing(_file(run, digest)) as file:
        np.save(file, training, allow_pickle=False)
    return digest


def _file(run: RunDir, digest: str) -> Path:
    return run.stage("generate") / f"training-maps-{digest[:12]}.npy"


def copy_gate(run: RunDir, planned: PlannedCopies) -> CopyGate:
    """What tells copies in this process, read once.

    Raises:
        VerificationError: the file of training maps is missing, or another one.
    """
    return _loaded(_file(run, planned.sha256), planned)


@functools.lru_cache(maxsize=1)
def _loaded(path: Path, planned: PlannedCopies) -> CopyGate:
    import numpy as np

    from sarhpc.generation.copies import TRAINING_MAP, CopyGate

    try:
        training = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise VerificationError(
            f"maps of the training tiles cannot be read from {path} ({error}): restore it"
        ) from error
    held = hashlib.sha256(training).hexdigest() if training.dtype == TRAINING_MAP else ""
    if held != planned.sha256:
        raise VerificationError(f"{path} holds other maps than were planned: restore it")
    return CopyGate(planned, training)
