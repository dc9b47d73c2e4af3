"""Tiles of an archive, cut on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarhpc.api.runs import Run, run_and_config
from sarhpc.api.settings import Settings, overrides


@dataclass(frozen=True)
class Tiles:
    """Tiles that were cut: shards in one folder per split."""

    run: Run
    """The run that holds them; `run.submit()` goes on from here."""
    folder: Path
    samples: int
    splits: Mapping[str, int]
    """Number of tiles of each split."""
    rejected: Mapping[str, int]
    """Number of tiles that were left out, by reason."""


def cut_tiles(
    archive: str | Path | Any,
    out: str | Path,
    settings: Settings | None = None,
    *,
    workers: int = 1,
) -> Tiles:
    """The scenes of an archive cut into tiles, by the stage `tile` of the run `out`.

    The same call goes on after an interruption, and returns at once when all are cut.

    Args:
        archive: a catalogue, `SCHEME:REST` of a plug-in, or what `open_archive` gave for a
            catalogue.
        out: run directory, new or the same again.
        settings: of the run, such as `{"tile.tile_px": 256, "tile.pixel_m": 0.5}`.
        workers: processes that cut. With more than one a script needs `if __name__ == "__main__":`
            around what it does, as for any process pool.

    Raises:
        ConfigError: there is no such archive, or a setting is wrong.
        DataError: no scene can be tiled.
    """
    from hpc.job.pipeline import JobContext, run_stage
    from hpc.store.rundir import open_run
    from sarhpc.stages.registry import stage_named
    from sarhpc.stages.settings import require_inputs, require_present, require_settings
    from sarhpc.stages.spec import pass_all
    from sarhpc.stages.work.sharded import sealed_records

    uri = str(getattr(archive, "path", archive))
    if Path(uri).exists():
        uri = str(Path(uri).absolute())
    words = [f"archive.uri={uri}", *overrides(settings), f"cluster.workers={workers}"]
    previewed, config = run_and_config(out, None, words)
    pass_all(
        lambda: require_inputs(previewed, config, ["tile"]),
        lambda: require_settings(config, ["tile"]),
        lambda: require_present(previewed, config, ["tile"]),
    )
    created = Run.create(out, settings=words)
    run = open_run(created.root)
    run_stage(run, stage_named(config, "tile"), context=JobContext(sequential=workers == 1))
    splits: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for record in sealed_records(run, "tile"):
        splits[str(record.detail["split"])] += record.samples
        rejected.update(record.rejected)
    folder = created.results().tiles
    assert folder is not None, "the stage is sealed"
    return Tiles(created, folder, splits.total(), dict(splits), dict(rejected))
