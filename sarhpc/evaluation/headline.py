"""The summary at the top of the page: requested, produced, verdict, cost and folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sarhpc.evaluation.gates import FAIL, PASS, GateResult, bounds_text
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
    reasons: list[str]


def judge_gates(
    gates: Sequence[GateResult], measures: Mapping[str, Verdict | NoVerdict]
) -> Judgement:
    """The verdict on the judged set, of its gates and its distances.

    Args:
        gates: of the set.
        measures: its distances to the real tiles, by name.
    """
    reasons = [*(_missed(gate) for gate in gates if gate.verdict != PASS), *_near(measures)]
    if not gates:
        return Judgement(FAIR, "No gates were set", reasons)
    counts = Counter(gate.verdict for gate in gates)
    if counts[PASS] == len(gates):
        text = "Passes its gate" if len(gates) == 1 else f"Passes all {len(gates)} gates"
        return Judgement(GOOD, text, reasons)
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


def _missed(gate: GateResult) -> str:
    """A gate that is not passed, with its value and bounds."""
    if gate.value is None:
        return f"{gate.text}: cannot be decided."
    return f"{gate.text}: {gate.value:.3g}, allowed {bounds_text(gate.low, gate.high)}."


def _near(measures: Mapping[str, Verdict | NoVerdict]) -> Iterator[str]:
    found = list(measures.values())
    if any(isinstance(one, NoVerdict) for one in found):
        yield "Distances have no verdict: real tiles are of too few scenes, or of unknown ones."
    elif found:
        alike = sum(grade_of(one)[0] == GOOD for one in found)
        yield (
            f"{alike} of {len(found)} distances are within what real tiles of other scenes differ "
            "by."
        )
