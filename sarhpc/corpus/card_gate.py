"""What card and report say of the gate that each image was held to."""

from __future__ import annotations

from sarhpc.corpus.duplicates import MOST_COMPARED
from sarhpc.corpus.facts import ImageGateFacts
from sarhpc.corpus.tally import Tally


def gate_line(gate: ImageGateFacts) -> str:
    """The gate in a sentence: planned against accepted, and what was quarantined by reason."""
    unmet = gate.planned - gate.accepted
    share = gate.quarantined / max(gate.draws, 1)
    reasons = sorted(gate.reasons.items(), key=lambda item: (-item[1], item[0]))
    why = f": {', '.join(f'{name} {count:,}' for name, count in reasons)}" if reasons else ""
    left = f", {unmet:,} left out after the last draw" if unmet else ""
    return (
        f"Gate of single images: {gate.accepted:,} of {gate.planned:,} planned {gate.counted}"
        f"{left}; "
        f"{gate.quarantined:,} of {gate.draws:,} draws quarantined ({share:.1%}){why}. Limits "
        f"from {gate.tiles:,} real tiles ({', '.join(gate.splits)}) that reject {gate.rate:.2%}"
        f"{_classes(gate)}"
    )


def _classes(gate: ImageGateFacts) -> str:
    """How images were held against the class of their prompt, to follow the limits."""
    if gate.classes is None:
        return ""
    names, found = gate.classes["classes"], gate.classes["balanced_accuracy"]
    shares = sorted({one["false_rejects"] for one in names.values()})
    share = " to ".join(f"{value:.2%}" for value in dict.fromkeys((shares[0], shares[-1])))
    return (
        f"; {gate.classes['judged']:,} draws held against the class of their prompt "
        f"({', '.join(names)}) by {gate.classes['model']}, which takes {share} of real tiles of a "
        f"class for another one (balanced accuracy {found['value']:.2f}, {found['low']:.2f} to "
        f"{found['high']:.2f})"
    )


def gate_text(gate: ImageGateFacts, tally: Tally) -> str:
    """The section of the card about the gate."""
    most = f" the first {MOST_COMPARED:,}" if tally.samples > MOST_COMPARED else ""
    flagged = (
        f"Images that repeat another one of{most or ' the corpus'} are flagged in the index "
        f"(`near_duplicate_of`): {tally.near_duplicates:,}."
    )
    how = (
        "A quarantined image was drawn again with another seed (`draw` in the index). An image may "
        "have several reasons."
    )
    return f"{gate_line(gate)}.\n\n{how} {flagged}"
