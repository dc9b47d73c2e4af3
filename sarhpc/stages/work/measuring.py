"""Measures of parts of sets, each published as one table: shards of a stage, or parts of a job."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.errors import DataError, HpcError
from hpc.store.rundir import RunDir
from sarhpc.stages.work.use import USE, fit_one

if TYPE_CHECKING:
    from sarhpc.evaluation.comparison_plan import ComparisonPlan
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.image_sets import Choice, Image
    from sarhpc.evaluation.tables import MeasuredTile, TileMeasures

log = logging.getLogger(__name__)

Locate = Callable[[str], Path]
"""Path of a file as a plan holds it."""


PROGRESS_S = 30.0
TABLES = "tables"
"""Folder of the tables, one a part."""
MAPS = "maps"
"""Kind of a part of whose tiles maps of the ground are made, for E11, instead of measures."""


@dataclass(frozen=True)
class Part:
    """A part of a set that is measured by no shard of a stage."""

    id: str
    inputs: Mapping[str, Any]
    table: Path
    run: RunDir | None
    """Run whose plan names the files; None where they are paths."""


def parts_in(planned: ComparisonPlan, folder: Path, run: RunDir | None = None) -> list[Part]:
    """The parts of a comparison, with tables in `folder`."""
    return [
        Part(f"{number:06d}", inputs, folder / TABLES / f"{number:06d}.parquet", run)
        for number, inputs in enumerate(planned.parts)
    ]


def fits_in(
    fits: Sequence[Mapping[str, Any]], folder: Path, run: RunDir | None = None
) -> list[Part]:
    """The networks of E12 as parts, with what each publishes in `folder`."""
    return [
        Part(f"{USE}-{number:04d}", inputs, folder / USE / f"{number:04d}.json", run)
        for number, inputs in enumerate(fits)
    ]


def read_views(
    planned: ComparisonPlan, folder: Path, config: EvaluateConfig
) -> list[dict[str, TileMeasures]]:
    """Measures of the tiles of each set that are compared, by view, from the tables in `folder`.

    Raises:
        DataError: a table cannot be read, or too few tiles of a set can be measured.
    """
    from sarhpc.evaluation.compared import REAL, require_measured
    from sarhpc.evaluation.drawing import REAL_PER_SYNTHETIC
    from sarhpc.evaluation.tables import read_tables

    parts = parts_in(planned, folder)
    others = [count for name, count in planned.drawn.items() if name != REAL]
    limits = {REAL: REAL_PER_SYNTHETIC * min(max(others), config.tiles)}
    views = []
    for pixels, names in planned.views:
        measures = {}
        for name in (REAL, *names):
            tables = [
                part.table
                for part in parts
                if (part.inputs["set"], part.inputs["pixels"]) == (name, pixels)
            ]
            limit = limits.get(name, config.tiles) if config.all_tiles else None
            try:
                measures[name] = read_tables(tables, limit, by_group=name == REAL)
            except DataError as error:
                raise DataError(f"{name}: {error}") from error
            require_measured(name, measures[name])
        views.append(measures)
    return views


def measure_part(inputs: Mapping[str, Any], table: Path, locate: Locate = Path) -> int:
    """Publish the measures of a part at `table`, and return the number of images.

    A table of the same images, by their content, and of the same measures is kept as it is.

    Args:
        inputs: of the part: `set`, `pixels`, `px`, `scale`, and `files` with rows in each; its
            `kind`, where it is not measured by all measures.
        table: where to publish.
        locate: finds a file by its name in the inputs.

    Raises:
        DataError: a file is cut short or damaged, or an image cannot be decoded.
    """
    from sarhpc.evaluation.map_tables import write_maps
    from sarhpc.evaluation.tables import facts_of_table, write_table

    digest = _digest(inputs, locate)
    count = sum(len(rows) for _, rows, *_ in inputs["files"])
    if facts_of_table(table).get("input") == digest:
        log.info("kept=%s images=%d", table.name, count)
        return count
    write = write_maps if inputs.get("kind") == MAPS else write_table
    return write(table, _tiles(inputs, locate), {"input": digest, "set": inputs["set"]})


def images_of(
    inputs: Mapping[str, Any], locate: Locate, choose: Choice | None = None
) -> Iterator[tuple[str, Image]]:
    """Yield each image of a part with its file as the inputs name it.

    `choose` names the members that are read; None reads what is measured.
    """
    from sarhpc.evaluation.image_sets import ImageSet, read_images
    from sarhpc.evaluation.pixels import amplitude_member, code_member
    from sarhpc.evaluation.set_facts import AMPLITUDE

    if choose is None:
        choose = amplitude_member if inputs["pixels"] == AMPLITUDE else code_member
    for file, rows, *facts in inputs["files"]:
        path = str(locate(file))
        known = ImageSet(
            inputs["set"], (path,), (len(rows),), dict.fromkeys([path], *facts) if facts else {}
        )
        for image in read_images(known, path, rows, choose):
            yield file, image


def _tiles(inputs: Mapping[str, Any], locate: Locate) -> Iterator[MeasuredTile]:
    from sarhpc.evaluation.image_sets import group_of
    from sarhpc.evaluation.pixels import fault_of, measured_pixels
    from sarhpc.evaluation.tables import MeasuredTile

    for file, image in images_of(inputs, locate):
        pixels = measured_pixels(image, inputs["pixels"], inputs["px"], inputs["scale"])
        yield MeasuredTile(
            key=image.key,
            file=file,
            row=image.row,
            group=group_of(image.meta),
            split=str(image.meta.get("split") or "unknown"),
            pixels=pixels,
            fault=fault_of(pixels),
        )


def pixels_at(
    planned: ComparisonPlan,
    name: str,
    pixels: str,
    places: Sequence[tuple[str, int]],
    locate: Locate = Path,
) -> Iterator[Any]:
    """Yield the pixels (H, W) of tiles of a set by file and row, as they were measured."""
    held = {
        file: (part, rest)
        for part in planned.parts
        if (part["set"], part["pixels"]) == (name, pixels)
        for file, _, *rest in part["files"]
    }
    for file, row in places:
        part, rest = held[file]
        [tile] = _tiles({**part, "files": [[file, [row], *rest]]}, locate)
        yield tile.pixels


def part_pixels(inputs: Mapping[str, Any], number: int) -> tuple[str, Any]:
    """Key and pixels (H, W) of one image of a part whose files are paths."""
    left = number
    for file, rows, *rest in inputs["files"]:
        if left < len(rows):
            [tile] = _tiles({**inputs, "files": [[file, [rows[left]], *rest]]}, Path)
            return tile.key, tile.pixels
        left -= len(rows)
    raise IndexError(f"image {number} of a part of {number - left}")


def _digest(inputs: Mapping[str, Any], locate: Locate) -> str:
    """SHA-256 over the images of a part, how they are read, and the code of the measures."""
    digest = hashlib.sha256(_measures_digest().encode())
    digest.update(repr([inputs[name] for name in ("set", "pixels", "px", "scale")]).encode())
    for file, image in images_of(inputs, locate):
        digest.update(repr((image.key, file, image.row)).encode())
        digest.update(json.dumps(dict(image.meta), sort_keys=True).encode())
        for name in sorted(image.members):
            digest.update(image.members[name])
    return digest.hexdigest()


@functools.cache
def _measures_digest() -> str:
    """SHA-256 of the modules that measure: tables of other measures are not taken."""
    import sarhpc.measures

    [folder] = sarhpc.measures.__path__
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure_parts(
    parts: Sequence[Part],
    workers: int,
    directory: Path,
    report: Callable[[str], None] = log.info,
) -> None:
    """Measure parts outside a run: in this process, or on a Dask cluster of this machine.

    Args:
        parts: with the table of each; one that is there is kept.
        workers: processes.
        directory: for the files of the cluster.
        report: is given a line at most every 30 s.

    Raises:
        DataError: images of a part cannot be read; the other parts are measured nonetheless.
        HpcError: anything else, as it came.
    """
    failed: list[BaseException] = []
    last = time.monotonic()
    for number, (part, outcome) in enumerate(_outcomes(parts, workers, directory), 1):
        if isinstance(outcome, BaseException):
            failed.append(outcome)
            log.warning("part=%s failed: %s", part.id, outcome)
        if time.monotonic() - last >= PROGRESS_S:
            last = time.monotonic()
            report(f"measured parts={number}/{len(parts)}")
    if failed:
        first = failed[0]
        if not isinstance(first, DataError):
            raise first
        more = f" (and {len(failed) - 1} more parts failed)" if len(failed) > 1 else ""
        raise DataError(f"{first}{more}") from first


def _outcomes(
    parts: Sequence[Part], workers: int, directory: Path
) -> Iterator[tuple[Part, int | BaseException]]:
    workers = min(workers, len(parts))
    if workers < 2:
        for part in parts:
            try:
                yield part, measure_one(part)
            except (HpcError, OSError) as error:
                yield part, error
        return
    from hpc.cluster.dask import dask_cluster
    from hpc.cluster.dask_shards import run_shards

    with dask_cluster(directory / "dask", workers) as client:
        yield from run_shards(client, measure_one, parts, window=workers, retries=2)
    with contextlib.suppress(OSError):
        (directory / "dask").rmdir()


def measure_one(part: Part) -> int:
    """Measure one part, or train one network; the unit of work of a Dask worker."""
    if USE in part.inputs:
        return fit_one(part.inputs, part.table, part.run)
    return measure_part(part.inputs, part.table, Path if part.run is None else part.run.located)
