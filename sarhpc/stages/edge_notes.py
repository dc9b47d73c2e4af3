"""How well the images of a corpus follow the sketches that steered them, for its report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.store.rundir import RunDir
from sarhpc.diffusion.config import LAYERS
from sarhpc.stages.config import RunConfig
from sarhpc.stages.exchanged import exchanged
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_IMAGES = 96
"""Images measured: 5 ms each of 128 px."""
_Z95 = 1.96
_LAYER = LAYERS["edges"]


def edge_notes(run: RunDir, config: RunConfig) -> list[str]:
    """A line on a corpus that sketches steered; none for any other."""
    from sarhpc.shards.images import decode_gray8
    from sarhpc.shards.reader import read_shard

    steer = None if config.generate is None else config.generate.steer
    if steer is None or all(each.layer != "edges" for each in (steer, *steer.further)):
        return []
    records = sealed_records(run, "generate")
    samples = (sample for record in records for sample in read_shard(Path(record.path)))
    steered = (sample for sample in samples if _LAYER in sample.members)
    pairs = [
        (decode_gray8(sample.members["sar.png"]), decode_gray8(sample.members[_LAYER]))
        for sample in itertools.islice(steered, MOST_IMAGES)
    ]
    return [edge_line(pairs)] if len(pairs) > 1 else []


def edge_line(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> str:
    """What images and their layers, in this order, say of how they go together."""
    from sarhpc.tiling.pairs.edge_fidelity import misplaced_edges

    own = _interval([misplaced_edges(image, layer) for image, layer in pairs])
    layers = [layer for _, layer in pairs]
    others = exchanged(layers, len(layers) // 2)
    line = (
        f"Edges of {len(pairs)} images by the sketches that steered them: 1 - AUC {own} with its "
        "95 % interval; "
    )
    if others is None:
        return f"{line}all have one sketch, so that there is none of others to compare with."
    other = _interval(
        [misplaced_edges(image, layer) for (image, _), layer in zip(pairs, others, strict=True)]
    )
    return f"{line}by the sketches of other images {other}, where chance is 0.5."


def _interval(values: Sequence[float]) -> str:
    import numpy as np

    found = np.array([value for value in values if np.isfinite(value)])
    if len(found) < 2:
        return "unknown"
    half = _Z95 * float(found.std(ddof=1)) / len(found) ** 0.5
    return f"{found.mean():.3f} ({found.mean() - half:.3f} to {found.mean() + half:.3f})"
