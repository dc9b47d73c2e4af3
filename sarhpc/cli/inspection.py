"""The verb `inspect`: a page on what shards hold, of a folder, of one shard, or of a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.documents import read_json
from hpc.errors import ConfigError, DataError
from hpc.publish import publish_text
from hpc.regular_files import files_under
from hpc.store.ledger import Record
from hpc.store.rundir import RunDir, open_run
from sarhpc.cli.verbs import Verbs, add_verb, existing_path, reading_finished_data
from sarhpc.shards.sample import SPLITS
from sarhpc.stages.caption import CAPTION
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.registry import line_of_stages
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.tile import SPLIT_FILE, TILE, WINDOW_FILE

if TYPE_CHECKING:
    from sarhpc.evaluation.inspection import Inspection
    from sarhpc.evaluation.pixel_survey import PixelSurvey
    from sarhpc.evaluation.survey import SetSurvey, ShardRef

REAL = {CAPTION.name: "samples", TILE.name: "tiles, without captions"}
"""Stage whose shards hold real samples -> name of the set; the first that has any is shown."""

SYNTHETIC = {GENERATE.name: "synthetic"}


def add_inspect(verbs: Verbs) -> None:
    """Add `inspect`."""
    inspect = add_verb(
        verbs,
        "inspect",
        "HTML summary of shards: tiles, captions, distributions, footprints, anomalies",
    )
    inspect.add_argument("shards", help="folder of shards, one shard, or a run directory")
    inspect.add_argument("--out", default="inspect.html", metavar="PAGE",
                         help="the page (default inspect.html here)")  # fmt: skip
    inspect.add_argument("--tiles", type=int, default=256, metavar="N",
                         help="tiles of each set that are measured (default 256)")  # fmt: skip
    inspect.set_defaults(handler=inspect_verb)


def inspect_verb(arguments: argparse.Namespace) -> int:
    """Write the page, and print how many tiles were measured and what looks wrong."""
    from sarhpc.evaluation.inspection import render_inspection

    if arguments.tiles < 1:
        raise ConfigError(f"--tiles {arguments.tiles}: must be >= 1")
    with reading_finished_data():
        inspection = inspect_path(Path(arguments.shards), arguments.tiles)
    out = Path(arguments.out)
    publish_text(out, render_inspection(inspection))
    for look in inspection.looks:
        survey = look.survey
        print(f"{survey.name}: {survey.samples} samples in {survey.shards} shards, pixels "
              f"measured on {look.tiles} tiles")  # fmt: skip
    lines = [line for look in inspection.looks for line in look.survey.warnings.lines()]
    for line in [*inspection.warnings, *lines]:
        print(f"warning: {line}")
    print(f"page: {out.resolve()}")
    return 0


def inspect_path(path: Path, tiles: int) -> Inspection:
    """What is found at `path`, ready to be rendered.

    Raises:
        ConfigError: nothing is there.
        DataError: there are no shards, or none that hold samples of this project.
    """
    existing_path(path, "a folder of shards, a shard, or a run")
    if (path / "run.json").is_file():
        return _inspect_run(open_run(path), tiles)
    return _inspect_folder(path.resolve(), tiles)


def _inspect_run(run: RunDir, tiles: int) -> Inspection:
    from sarhpc.evaluation.inspection import Inspection
    from sarhpc.stages.run_report import stage_line

    names = [stage.name for stage in line_of_stages(load_run_config(run))]
    records = {name: list(run.ledger(name).records().values()) for name in (*REAL, *SYNTHETIC)}
    real = [name for name in REAL if records[name]][:1]
    chosen = [*real, *(name for name in SYNTHETIC if records[name])]
    if not chosen:
        raise DataError(f"{run.root} has no shards yet; make some with `sarhpc run {run.quoted}`")
    set_names = REAL | SYNTHETIC
    sets = [(set_names[name], [_shard_ref(record) for record in records[name]]) for name in chosen]
    unsealed = [name for name in chosen if not run.ledger(name).sealed]
    return Inspection(
        title=run.name,
        looks=_looks(sets, tiles),
        stages=[line for n in names if (line := stage_line(run, n, unsealed=True)) is not None],
        notes=[
            f"Stage {name} is not finished: this page shows its shards so far." for name in unsealed
        ],
        warnings=[*_split_warnings(run), *_window_warnings(run)],
    )


def _split_warnings(run: RunDir) -> Iterator[str]:
    """Violations in the proof of the geographic split."""
    file = run.stage(TILE.name) / SPLIT_FILE
    if file.is_file():
        contested = read_json(file).get("proof", {}).get("contested_cells", 0)
        if contested:
            yield f"{contested} cells of the Earth are in more than one split ({file})"


def _window_warnings(run: RunDir) -> Iterator[str]:
    """Scenes that lie far outside the dB window of the archive."""
    file = run.stage(TILE.name) / WINDOW_FILE
    if not file.is_file():
        return
    try:
        outliers = dict(read_json(file)["outliers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{file} cannot be read ({error})"
        return
    for scene, share in outliers.items():
        yield (
            f"scene {scene} had no part in the dB window of the archive, as it lies far beyond all "
            f"others: {float(share):.0%} of its power is clipped ({file})"
        )


def _inspect_folder(path: Path, tiles: int) -> Inspection:
    from sarhpc.evaluation.inspection import Inspection
    from sarhpc.stages.run_report import stage_line

    files = [path] if path.is_file() else sorted(_tars(path))
    if not files:
        raise DataError(
            f"{path} holds no shards (.tar files); name a folder of shards, a shard, or a run. "
            "A run reads folders of pictures by imported.path (docs/foreign.md)"
        )
    run = _run_around(path)
    records = {} if run is None else _records_by_path(run)
    recorded = [file for file in files if file in records]
    stages = {records[file][0] for file in recorded}
    notes = []
    if recorded and len(recorded) < len(files):
        notes.append(f"{len(files) - len(recorded)} shards without a record are ignored.")
    shown = recorded or files
    sets: dict[str, list[ShardRef]] = {}
    for file in shown:
        sets.setdefault(_set_of(file, path), []).append(_shard_ref_of(file, records))
    return Inspection(
        title=path.name,
        looks=_looks(sorted(sets.items()), tiles),
        stages=[]
        if run is None
        else [line for name in sorted(stages) if (line := stage_line(run, name, unsealed=True))],
        notes=notes,
    )


def _tars(folder: Path) -> Iterator[Path]:
    return (f for f in files_under(folder) if f.suffix == ".tar" and f.is_file())


def _run_around(path: Path) -> RunDir | None:
    """The run whose directory contains `path`."""
    return next((RunDir(p) for p in path.parents if (p / "run.json").is_file()), None)


def _records_by_path(run: RunDir) -> dict[Path, tuple[str, Record]]:
    names = [stage.name for stage in line_of_stages(load_run_config(run))]
    return {
        Path(record.path): (name, record)
        for name in names
        for record in run.ledger(name).records().values()
    }


def _set_of(file: Path, root: Path) -> str:
    """Name of the set of a shard: its folder below `root`, without that of the split."""
    if file == root:
        return file.name
    parts = list(file.parent.relative_to(root).parts)
    if parts and parts[-1] in SPLITS:
        parts.pop()
    return "/".join(parts) or root.name


def _shard_ref(record: Record) -> ShardRef:
    from sarhpc.evaluation.survey import ShardRef

    return ShardRef(Path(record.path), record.samples, record.bytes)


def _shard_ref_of(file: Path, records: dict[Path, tuple[str, Record]]) -> ShardRef:
    from sarhpc.evaluation.survey import ShardRef

    return _shard_ref(records[file][1]) if file in records else ShardRef(file)


def _looks(sets: Sequence[tuple[str, Sequence[ShardRef]]], tiles: int) -> list[PixelSurvey]:
    from sarhpc.evaluation.pixel_survey import survey_pixels
    from sarhpc.evaluation.survey import survey_set
    from sarhpc.shards.radiometry import master_amplitude
    from sarhpc.stages.inputs.prompts import land_cover

    looks = []
    for name, shards in sets:
        survey = survey_set(name, shards, land_cover, tiles)
        _require_samples(survey)
        looks.append(survey_pixels(survey, master_amplitude))
    return looks


def _require_samples(survey: SetSurvey) -> None:
    if survey.shards == 0:
        raise DataError("; ".join(survey.warnings.lines()))
    if survey.samples and "sar.png" not in survey.members.counts:
        held = ", ".join(name for name, _ in survey.members.ranked(5))
        raise DataError(
            f"{survey.name}: none of {survey.samples} samples has a member sar.png (there are "
            f"{held}): shards of another kind; a run reads them by imported.path (docs/foreign.md)"
        )
