"""Two sets of images on disk compared outside a run: tables, numbers, gates and a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.errors import ConfigError, DataError, VerificationError
from hpc.publish import publish_json, publish_text
from sarhpc.evaluation.comparison_plan import ComparisonPlan, plan_comparison
from sarhpc.extras import is_installed
from sarhpc.shards.subset import spread
from sarhpc.stages.inputs.named_sets import named_set
from sarhpc.stages.work.measuring import measure_parts, parts_in, read_views
from sarhpc.stages.work.memory import with_memory

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.evaluation.report import Picture

SYNTHETIC = "synthetic"
NO_ORIENTATION = (
    "The look direction (E8) was not measured: it needs torch, pip install 'sarhpc[caption]'."
)


def evaluate_sets(
    real: Path,
    synthetic: Path,
    out: Path,
    config: EvaluateConfig,
    suites: Sequence[str] | None = None,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> ComparedSets:
    """The synthetic set against the real one; `out` gets tables, `evaluation.json`, `report.html`.

    Parts that `out` has tables of, of the same images, are not measured again.

    Args:
        real: a run, a stage of one, a folder of shards or images, or a tar.
        synthetic: the same.
        out: folder to write into.
        config: sizes, seeds and gates.
        suites: parts of the suite; None takes all.
        workers: processes that measure.
        report: is given a line on what is done, at most every 30 s.

    Raises:
        ConfigError: the sets cannot be compared, or the folder is one of them.
        VerificationError: a set has too few images, or some that cannot be read or measured.
    """
    from sarhpc.evaluation.compared import REAL, compare, faults_of, metrics_of
    from sarhpc.evaluation.config import check_config
    from sarhpc.stages.work.orientation import with_orientation

    check_config(config)
    metrics_of(suites)
    _require_apart(out, (real, synthetic))
    try:
        sets = {REAL: named_set(real, REAL), SYNTHETIC: named_set(synthetic, SYNTHETIC)}
        planned = plan_comparison(sets[REAL], {SYNTHETIC: sets[SYNTHETIC]}, config)
        measure_parts(parts_in(planned, out), workers, out, report)
        views = read_views(planned, out, config)
        faults = faults_of(views[0])
        if faults:
            named = "; ".join(faults).replace(" and are left out", "")
            raise VerificationError(f"{named}; repair them or take them out of the set")
        facts = {**planned.facts(), "real": str(real), SYNTHETIC: str(synthetic)}
        compared = compare(views, config, SYNTHETIC, facts, suites)
        if "orientation" in (suites or ()) or (not suites and is_installed("caption")):
            compared = with_orientation(compared, planned, views, config)
        elif not suites:
            compared = dataclasses.replace(compared, notes=(*compared.notes, NO_ORIENTATION))
            report(NO_ORIENTATION)
        both = sets[REAL], sets[SYNTHETIC]
        compared = with_memory(compared, planned, both, config, out, workers)
    except DataError as error:
        raise VerificationError(str(error)) from error
    publish_json(out / "evaluation.json", compared.to_json())
    _publish_page(out, planned, compared, config)
    return compared


def _require_apart(out: Path, sets: Sequence[Path]) -> None:
    for path in sets:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"--out {out} is inside {path}, which is only read; give another")


def _publish_page(
    out: Path, planned: ComparisonPlan, compared: ComparedSets, config: EvaluateConfig
) -> None:
    from hpc.config import to_yaml
    from sarhpc.evaluation.report import Report, render, to_json

    facts = compared.facts
    report = Report(
        name=f"{facts[SYNTHETIC]} against {facts['real']}",
        facts={
            "real": facts["real"],
            "synthetic": facts[SYNTHETIC],
            "pixels": planned.pixels,
            "size": f"{planned.px[0]} x {planned.px[1]} px",
            **{f"{name} tiles measured": str(count) for name, count in planned.drawn.items()},
        },
        config_yaml=to_yaml(config),
        stages=[],
        examples={name: list(_examples(planned, name, config.gallery)) for name in planned.drawn},
        evaluation=compared.evaluation,
        features=compared.measured,
        gates=compared.gates,
        notes=compared.notes,
        blocks=compared.blocks,
        folder=out,
    )
    publish_json(out / "report.json", to_json(report))
    publish_text(out / "report.html", render(report))


def _examples(planned: ComparisonPlan, name: str, count: int) -> Iterator[Picture]:
    """Some of the images of a set as they were measured, in 8 bits for display."""
    import numpy as np

    from sarhpc.evaluation.page import displayed
    from sarhpc.evaluation.report import Picture
    from sarhpc.stages.work.measuring import part_pixels

    places = [
        (part, number)
        for part in planned.parts
        if part["set"] == name
        for number in range(sum(len(rows) for _, rows, *_ in part["files"]))
    ]
    for part, number in spread(places, count):
        key, pixels = part_pixels(part, number)
        codes = pixels
        if pixels.dtype != np.uint8:
            codes = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
        yield Picture(displayed(codes, {}), key)
