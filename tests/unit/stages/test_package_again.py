"""The card of a corpus that was evaluated, by this version and by those before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from line_runs import tiny_run

from hpc.errors import DataError, IncompleteError
from hpc.publish import publish_text
from hpc.store.ledger import Record
from hpc.store.plan import make_plan, publish_plan
from hpc.store.rundir import RunDir, now
from sarhpc.cli import main
from sarhpc.corpus.facts import Gate, Score
from sarhpc.stages.packaging import evaluated, package_again

FLOORS = {"raw": 0.5, "low": 0.4, "high": 0.6, "floor": 0.25, "ratio": 2.0, "null": None}
NULLS = {"raw": 0.5, "p_value": 0.02, "null_95": 0.3}
NO_VERDICT = {"raw": 0.5, "reason": "the scenes of the real tiles are not known"}
GATE = {"name": "w1_db", "text": "E3", "value": 0.7, "low": None, "high": 0.5, "verdict": "fail"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return tiny_run(tmp_path / "run", tmp_path / "model")


def seal_evaluation(run: RunDir, text: str) -> None:
    """Stand a finished `evaluate` in the run, which wrote this."""
    plan = make_plan("evaluate", [{}])
    publish_plan(plan, run.plan_file("evaluate"))
    path = run.stage("evaluate") / "evaluation.json"
    digest = publish_text(path, text)
    run.ledger("evaluate").publish(
        Record("000000", plan.id, str(path), 4, digest.bytes, digest.sha256, 0, "h", now(), now())
    )
    run.ledger("evaluate").seal(plan)


@pytest.mark.parametrize(
    ("measure", "against"),
    [
        (FLOORS, "2.00 times that of their halves"),
        ({**FLOORS, "null": {"p_value": 0.02, "null_95": 0.3}}, "p = 0.02, 95 % lie below 0.3"),
        (NULLS, "p = 0.02, 95 % lie below 0.3"),
        (NO_VERDICT, "the scenes of the real tiles are not known"),
    ],
)
def test_scores_of_each_version_of_the_evaluation_are_read(run, measure, against):
    assert evaluated(run) == ([], [])
    document = {"sets": {"this run": {"measures": {"E3_w1": measure}}}, "gates": [GATE]}
    seal_evaluation(run, json.dumps(document))
    assert evaluated(run) == (
        [Score("E3_w1", 0.5, against)],
        [Gate("E3", 0.7, "at most 0.5", "fail")],
    )


def test_gates_with_a_least_a_most_or_both_are_read(run):
    bounds = [(0.9, 1.1), (1.0, None), (None, 0.5)]
    gates = [{**GATE, "low": low, "high": high} for low, high in bounds]
    seal_evaluation(run, json.dumps({"sets": {"this run": {"measures": {}}}, "gates": gates}))
    texts = [gate.bounds for gate in evaluated(run)[1]]
    assert texts == ["0.9 to 1.1", "at least 1", "at most 0.5"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sets": {"this run": {"measures": {"a": 1}}}}'])
def test_an_evaluation_that_cannot_be_read_is_named(run, text):
    seal_evaluation(run, text)
    with pytest.raises(DataError, match=r"cannot read .*evaluation\.json"):
        evaluated(run)


def test_a_corpus_that_is_not_generated_cannot_be_packaged(run):
    with pytest.raises(IncompleteError, match=r"generate is not sealed .*sarhpc resume"):
        package_again(run)


@pytest.mark.parametrize(
    "words",
    [["package", "RUN"], ["export-corpus", "RUN", "OUT", "--layout", "imagefolder"]],
)
def test_verbs_of_a_corpus_that_is_not_generated_say_that_it_is_incomplete(
    run, tmp_path, capsys, words
):
    places = {"RUN": str(run.root), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) == IncompleteError.exit_code
    assert f"sarhpc resume {run.root}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
