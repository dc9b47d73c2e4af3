"""Names and texts use the standard terms of the field.

The tables hold private words that were replaced once, so that they do not return.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_trees import REPOSITORY, place
from source_trees import SOURCES as PACKAGES

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
    r"somebody( else)?('s)?": "another user, a third party",
    r"not even save": "skip the final checkpoint",
    r"nothing below 0": "must be >= 0",
    r"Return if\b": "Raise X unless",
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
}
"""File -> entries that mean something else there."""

PENDING: dict[str, set[str]] = {}
"""Path prefix -> entries still to be replaced there."""

SOURCES = (*PACKAGES, *sorted((REPOSITORY / "tools").rglob("*.py")))
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


_TOKENS = re.compile(
    r"""
    (?P<text> \#[^\n]*
      | [rbfu]{0,2} (?: \"{3}.*?(?<!\\)\"{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ) )
    | (?P<name> [^\W\d]\w* )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""Comments, strings and names of Python: what `tokenize` finds, in a tenth of the time."""
_REPLACED = {
    pattern: re.compile(rf"(?<![\w`.-])(?:{pattern})(?![\w`])", re.IGNORECASE) for pattern in TEXTS
}
_ANY_REPLACED = re.compile("|".join(p.pattern for p in _REPLACED.values()), re.IGNORECASE)


def names_and_texts(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, text and whether it is an identifier, for every token that can hold a word."""
    text = path.read_text()
    if path.suffix != ".py":
        yield from ((number, line, False) for number, line in enumerate(text.splitlines(), 1))
        return
    for token in _TOKENS.finditer(text):
        is_name = token.lastgroup == "name"
        if is_name and token[0].lstrip("_") in NAMES:
            yield text.count("\n", 0, token.start()) + 1, token[0], True
        elif not is_name and _ANY_REPLACED.search(token[0]):
            first = text.count("\n", 0, token.start()) + 1
            yield from ((n, line, False) for n, line in enumerate(token[0].splitlines(), first))


def replaced_words(path: Path) -> Iterator[tuple[str, int, str]]:
    """Entry of a table, line, and what to write instead, for each occurrence in a file."""
    for number, text, is_name in names_and_texts(path):
        if is_name and (plain := text.lstrip("_")) in NAMES:
            yield plain, number, NAMES[plain]
        elif not is_name and _ANY_REPLACED.search(text):
            for pattern, term in TEXTS.items():
                if _REPLACED[pattern].search(text):
                    yield pattern, number, term


def is_excepted(path: str, entry: str) -> bool:
    pending = (entries for prefix, entries in PENDING.items() if path.startswith(prefix))
    return entry in ALLOWED.get(path, ()) or any(entry in entries for entries in pending)


def folder_of(path: Path) -> str:
    return "/".join(place(path).split("/")[:2]) if path.suffix == ".py" else "pages"


@pytest.mark.parametrize("folder", sorted({folder_of(path) for path in (*SOURCES, *PAGES)}))
def test_no_replaced_word_returns(folder: str) -> None:
    found = [
        f"{place(path)}:{line}: {entry!r}: write {term}"
        for path in (*SOURCES, *PAGES)
        if folder_of(path) == folder
        for entry, line, term in replaced_words(path)
        if not is_excepted(place(path), entry)
    ]
    assert found == []


def test_a_replaced_word_is_found_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text(
        '# it\'s "hangs on" nothing\n'
        "def litter(x: str = 'a \\' b') -> str:\n"
        '    """What is\n\n    told."""\n'
        "    return rf'swept {x}' + x.litter  # Company\n"
    )
    assert [(line, entry) for entry, line, _ in replaced_words(file)] == [
        (1, "hangs on"), (2, "litter"), (5, "told"),
        (6, "litter"),
    ]  # fmt: skip
