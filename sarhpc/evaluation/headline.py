"""What stands first on the page: what was asked, what came, is it good, the cost, the places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sarhpc.evaluation.gates import FAIL, PASS, GateResult
from sarhpc.measures.nulls import NoVerdict, Verdict

GOOD, FAIR, BAD = "good", "fair", "bad"


@dataclass(frozen=True)
class Headline:
    """The lines of the summary, in words, but for the verdict, which follows from the numbers."""

    asked: str
    came: str
    cost: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    """What lies where."""


@dataclass(frozen=True)
class Judgement:
    """A verdict in a few words, and what it rests on."""

    grade: str
    """`good`, `fair` or `bad`."""
    text: str
    reasons: tuple[str, ...]


def judge_gates(
    gates: Sequence[GateResult], measures: Mapping[str, Verdict | NoVerdict]
) -> Judgement:
    """The verdict on the judged set, of its gates and its distances.

    Args:
        gates: of the set.
        measures: its distances to the real tiles, by name.
    """
    reasons = tuple(line for line in (_failed(gates), _near(measures)) if line)
    if not gates:
        return Judgement(FAIR, "No gates were set", reasons)
    counts = Counter(gate.verdict for gate in gates)
    if counts[PASS] == len(gates):
        return Judgement(GOOD, f"Passes all {len(gates)} gates", reasons)
    if counts[FAIL]:
        return Judgement(BAD, f"Fails {counts[FAIL]} of {len(gates)} gates", reasons)
    undecided = len(gates) - counts[PASS]
    return Judgement(FAIR, f"{undecided} of {len(gates)} gates cannot be decided", reasons)


def grade_of(found: Verdict | NoVerdict) -> tuple[str, str]:
    """Grade of a distance, and the word for it."""
    if isinstance(found, NoVerdict):
        return "", "no verdict"
    if found.p_value > 0.05:
        return GOOD, "as real"
    return (FAIR, "near") if found.raw < 2 * found.null_95 else (BAD, "far")


def _failed(gates: Sequence[GateResult]) -> str:
    named = [f"{gate.name} ({gate.verdict})" for gate in gates if gate.verdict != PASS]
    return f"Not passed: {', '.join(named)}." if named else ""


def _near(measures: Mapping[str, Verdict | NoVerdict]) -> str:
    found = list(measures.values())
    if not found:
        return ""
    if reasons := [one.reason for one in found if isinstance(one, NoVerdict)]:
        return f"Distances have no verdict: {reasons[0]}."
    alike = sum(grade_of(one)[0] == GOOD for one in found)
    return (
        f"{alike} of {len(found)} distances are within what real tiles of other scenes differ by."
    )
