"""METEOR, by the Java program its authors publish (Denkowski & Lavie 2014)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence

from hpc.errors import DataError
from sarhpc.captioning.metrics import tokenize


def missing_meteor() -> str | None:
    """Why METEOR cannot run on this machine; None where it can."""
    if shutil.which("java") is None:
        return "no Java on this machine"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "pycocoevalcap is not installed (the extra `meteor`)"
    return None


def meteor(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of captions against one or more references each, over the corpus (0..1).

    Raises:
        DataError: the program ended before it had scored them.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    said = {row: [_words(text)] for row, text in enumerate(hypotheses)}
    wanted = {row: [_words(text) for text in texts] for row, texts in enumerate(references)}
    scorer = Meteor()
    try:
        score, _ = scorer.compute_score(wanted, said)
    except (OSError, ValueError) as error:
        # It keeps its lock when it fails, and would then wait for it forever when closed.
        if scorer.lock.locked():
            scorer.lock.release()
        raise DataError(f"METEOR ended early ({error}): does `java -version` work?") from error
    return float(score)


def _words(text: str) -> str:
    return " ".join(tokenize(text))
