"""Packaging a finished corpus again, with the scores that its evaluation gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc.documents import parse_json
from hpc.store.rundir import RunDir
from sarhpc.stages.evaluate import SYNTHETIC
from sarhpc.stages.generate import GENERATE
from sarhpc.stages.run_config import load_run_config
from sarhpc.stages.work.packaging import package_run
from sarhpc.stages.work.sharded import sealed_records

if TYPE_CHECKING:
    from sarhpc.corpus.facts import Score
    from sarhpc.corpus.packaging import Corpus


def package_again(run: RunDir) -> Corpus:
    """Publish index, card and metadata of the corpus anew, over those that are there.

    Raises:
        HpcError: `generate` is not sealed.
    """
    config = load_run_config(run)
    records = sealed_records(run, "generate")
    return package_run(run, config, records, GENERATE.fingerprint(config), evaluated_scores(run))


def evaluated_scores(run: RunDir) -> list[Score]:
    """Distances of the corpus to real tiles; empty before `evaluate` is sealed."""
    from sarhpc.corpus.facts import Score

    if not run.ledger("evaluate").sealed:
        return []
    document = parse_json((run.stage("evaluate") / "evaluation.json").read_bytes())
    measures = document["sets"][SYNTHETIC]["measures"]
    return [
        Score(name, float(found["raw"]), found.get("ratio"))
        for name, found in sorted(measures.items())
    ]
