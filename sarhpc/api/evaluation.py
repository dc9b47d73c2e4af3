"""Two sets of images compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.config import loads
from hpc.errors import ConfigError
from sarhpc.api.settings import Settings, overrides
from sarhpc.cli.verbs import existing_path

if TYPE_CHECKING:
    from sarhpc.evaluation.compared import ComparedSets

OUT = "evaluation"
"""Folder of the result, here."""
_SETS = "a folder of shards or images, a tar, or a run"


def evaluate(
    real: str | Path,
    synthetic: str | Path,
    out: str | Path = OUT,
    settings: Settings | None = None,
    *,
    suites: str | Sequence[str] | None = None,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> ComparedSets:
    """Distances of a synthetic set from a real one, with nulls and gates, as `sarhpc evaluate`.

    The folder `out` gets `evaluation.json`, `report.html` and the measures of each tile.

    Args:
        real: a folder of shards or images, a tar, a run, or a stage of one.
        synthetic: likewise.
        out: folder to write into.
        settings: of `evaluate`, such as `{"tiles": 1000, "gates.lsd_db": 3}`; also with
            `evaluate.` before each.
        suites: `radiometry`, `speckle`, `spectrum`, `texture`, `orientation`, `features`,
            `text`, `memory`, `use`, also as one string with commas; None takes all, the last
            three only where their settings ask.
        workers: processes that measure. With more than one a script needs
            `if __name__ == "__main__":` around what it does, as for any process pool.
        report: is given a line now and then on long work.

    Raises:
        ConfigError: a set is not there, a setting is wrong, or the sets cannot be compared.
        VerificationError: a set has too few images, or some that cannot be read.
    """
    from sarhpc.evaluation.config import EvaluateConfig
    from sarhpc.stages.number_ranges import require_in_range
    from sarhpc.stages.two_sets import evaluate_sets

    # Messages and pages name settings as a run has them.
    words = [word.removeprefix("evaluate.") for word in overrides(settings)]
    config = loads(EvaluateConfig, "", words)
    require_in_range("evaluate", config)
    if isinstance(suites, str):
        suites = list(dict.fromkeys(name.strip() for name in suites.split(",")))
    if workers < 1:
        raise ConfigError(f"{workers} workers: give at least 1")
    sets = existing_path(real, _SETS), existing_path(synthetic, _SETS)
    return evaluate_sets(*sets, Path(out), config, suites, workers, report)
