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
        f"Gate of single images: {gate.accepted:,} of {gate.planned:,} planned images{left}; "
        f"{gate.quarantined:,} of {gate.draws:,} draws quarantined ({share:.1%}){why}. Limits "
        f"from {gate.tiles:,} real tiles ({', '.join(gate.splits)}) that reject {gate.rate:.2%}"
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
