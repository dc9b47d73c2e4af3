"""Names and texts use the standard terms of the field.

The tables hold private words that were replaced once, so that they do not return.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

NAMES = {
    "Comeback": "RequeuePolicy",
    "Company": "RankGroup",
    "Conditions": "JobContext",
    "Course": "StageProgress, SubmissionPlan",
    "Growth": "LogFollower",
    "HANGS_S": "CHECK_TIMEOUT_S",
    "Judges": "CaptionEvaluator",
    "LITTER_AGE_S": "STALE_FILE_AGE_S",
    "Lesson": "TrainTask",
    "Litter": "Removable",
    "Made": "ShardResult",
    "Moves": "step hooks",
    "PATIENCE_S": "FAILURE_GRACE_S",
    "Patience": "GracefulStop",
    "Portion": "RankBatch",
    "Rehearsal": "FlopEstimate",
    "Remarks": "Warnings",
    "Shelf": "ShardRef",
    "Standing": "TrainState",
    "Surroundings": "TrainContext",
    "Taught": "FitResult",
    "Trouble": "NonFiniteStep",
    "_attached": "_find_attachment",
    "_bring_forward": "_run_stage",
    "_told": "_progress_note",
    "afterword": "requeue_reason_after_kill",
    "answers_within_s": "response_s",
    "appoint_judges": "make_evaluator",
    "comes_back": "requeue_reason",
    "communicator": "ranks",
    "find_litter": "find_removable",
    "first_folder": "existing_folder",
    "give_up": "should_abort",
    "give_up_reason": "abort_reason",
    "guarded": "run_check",
    "in_turn": "run_sequentially",
    "kept_steps": "checkpointed_step_times",
    "last_resort": "requeue_before_deadline",
    "last_trouble": "last_failure",
    "last_words": "log_tails",
    "lend_to_rank_0": "join_as_workers",
    "lend_workers": "join_cluster",
    "litter": "removable",
    "litter_lines": "removable_lines",
    "look_at_folder": "check_folder",
    "look_at_profile": "check_profile",
    "look_at_slurm": "check_slurm",
    "look_between_nodes": "check_between_nodes",
    "look_every_s": "poll_s",
    "look_offline": "check_offline",
    "may_pass": "is_transient",
    "on_dask": "run_on_dask",
    "out_of_time": "time_limit_reason",
    "painted": "images",
    "patience_s": "timeout_s",
    "remove_litter": "remove_files",
    "require_places": "require_inputs",
    "require_teachable": "require_images_at_tiling",
    "says": "message, problem, note",
    "spare_lasting_objects": "relax_gc",
    "spoilt": "poison_if_nonfinite",
    "standing_plan": "ensure_plan",
    "sweep": "remove_stale_files",
    "sweep_temporaries": "remove_stale_temporaries",
    "told": "message, reasons, document, settings",
    "troubles": "failure_lines",
    "without_clip": "refuse_clip",
    "work_here": "run_task",
    "work_through": "make_missing_shards",
}
"""Identifier -> what it is called now."""

TEXTS = {
    r"belongs? into": "must be inside",
    r"(images?|tiles?) of others": "third-party images",
    r"hangs on": "depends on",
    r"hears? SIG": "receives SIG",
    r"(left|leaves|leaving) no (last )?word": "wrote no end row",
    r"lies on disk": "is on disk",
    r"litter": "leftover files",
    r"mend(s|ed|ing)?": "fix, repair",
    r"not even save": "skip the final checkpoint",
    r"nothing below 0": "must be >= 0",
    r"Return if\b": "Raise X unless",
    r"(sweep|sweeps|swept|sweeping)": "remove",
    r"told": "reported, given, passed",
    r"wants? to (hear|know)": "requires",
    r"who would rather": "if you prefer",
    r"without a word": "without a message",
    r"lost touch": "lost the connection",
    r"whole line": "whole pipeline",
    r"(stays?|stay) away from": "is excluded from",
    r"submitted anew": "resubmitted",
    r"what (they|it) paints?": "the generated images",
    r"looked at": "measured, read, checked",
    r"way between": "interpolated",
    r"where (it|a run|they) stands?": "progress",
    r"(is|be) obeyed": "is followed",
}
"""Pattern of whole words, in comments, docstrings, messages and pages -> what to write."""

ALLOWED: dict[str, set[str]] = {
    "sarhpc/archive/procedural/landscape/landcover.py": {"Course"},  # of rivers and roads
    "sarhpc/stages/work/sharded.py": {
        "(sweep|sweeps|swept|sweeping)"
    },  # `swept=`, a key of log lines
}
"""File -> entries that mean something else there."""

PENDING: dict[str, set[str]] = {}
"""Path prefix -> entries still to be replaced there."""

SOURCES = sorted(
    path for package in ("hpc", "sarhpc", "tools") for path in (REPOSITORY / package).rglob("*.py")
)
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs" / "guide").glob("*.md")),
    *sorted((REPOSITORY / "slurm").rglob("*.*")),
    *sorted((REPOSITORY / "configs").rglob("*.yaml")),
    *sorted((REPOSITORY / "sarhpc").rglob("*.j2")),
    REPOSITORY / "Makefile",
]


def place(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def names_and_texts(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, text and whether it is an identifier, for every token that can hold a word."""
    if path.suffix != ".py":
        yield from ((number, line, False) for number, line in enumerate(lines_of(path), 1))
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string, True
        elif token.type in (tokenize.COMMENT, tokenize.STRING):
            for number, line in enumerate(token.string.splitlines(), token.start[0]):
                yield number, line, False


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def replaced_words(path: Path) -> Iterator[tuple[str, int, str]]:
    """Entry of a table, line, and what to write instead, for each occurrence in a file."""
    for number, text, is_name in names_and_texts(path):
        if is_name and (plain := text.lstrip("_")) in NAMES:
            yield plain, number, NAMES[plain]
        elif not is_name:
            for pattern, term in TEXTS.items():
                if re.search(rf"(?<![\w`.-])(?:{pattern})(?![\w`])", text, re.IGNORECASE):
                    yield pattern, number, term


def is_excepted(path: str, entry: str) -> bool:
    pending = (entries for prefix, entries in PENDING.items() if path.startswith(prefix))
    return entry in ALLOWED.get(path, ()) or any(entry in entries for entries in pending)


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=place)
def test_no_replaced_word_returns(path: Path) -> None:
    found = [
        f"{place(path)}:{line}: {entry!r}: write {term}"
        for entry, line, term in replaced_words(path)
        if not is_excepted(place(path), entry)
    ]
    assert found == []
