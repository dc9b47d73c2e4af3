"""Packaging a finished corpus again, with the scores that its evaluation gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc.documents import read_json
from hpc.errors import DataError
from hpc.store.rundir import RunDir
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.packaging import package_run
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.corpus.facts import Gate, Score
    from sarhpc.corpus.packaging import Corpus

CORPUS_SET = "this run"
"""Name of the run's own corpus among the sets of `evaluation.json`."""


def package_again(run: RunDir) -> Corpus:
    """Publish index, card and metadata of the corpus anew, over those that are there.

    Raises:
        HpcError: `generate` is not sealed.
        DataError: the evaluation cannot be read.
    """
    config = load_run_config(run)
    records = sealed_records(run, "generate")
    scores, gates = evaluated(run)
    return package_run(run, config, records, GENERATE.fingerprint(config), scores, gates)


def evaluated(run: RunDir) -> tuple[list[Score], list[Gate]]:
    """Distances of the corpus to real tiles, and its gates; empty before `evaluate` is sealed.

    Raises:
        DataError: `evaluation.json` cannot be read.
    """
    from sarhpc.corpus.facts import Score

    if not run.ledger("evaluate").sealed:
        return [], []
    path = run.stage("evaluate") / "evaluation.json"
    try:
        document = read_json(path)
        measures = document["sets"][CORPUS_SET]["measures"]
        scores = [
            Score(name, float(found["raw"]), _against(found))
            for name, found in sorted(measures.items())
        ]
        return scores, [_gate(found) for found in document.get("gates", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"cannot read {path} ({error!r}); evaluate the run again, or restore the file"
        ) from error


def _against(measure: dict[str, Any]) -> str:
    """How a distance stands against its null, or as versions before had it, against its floor."""
    null = measure if "p_value" in measure else measure.get("null") or {}
    if "p_value" in null:
        return f"p = {float(null['p_value']):.3g}, 95 % lie below {float(null['null_95']):.4g}"
    if measure.get("ratio") is not None:
        return f"{float(measure['ratio']):.2f} times that of their halves"
    return str(null.get("reason") or measure.get("reason") or "not known")


def _gate(found: dict[str, Any]) -> Gate:
    from sarhpc.corpus.facts import Gate
    from sarhpc.evaluation.gates import bounds_text

    bounds = bounds_text(found.get("low"), found.get("high"))
    value = found.get("value")
    return Gate(str(found["text"]), value, bounds, str(found["verdict"]))
