"""Sections of the page that further measures bring: one module and one template for each.

A measure called `memory` has

- a block of JSON in the result, `ComparedSets.blocks["memory"]`, absent where it is not measured;
- `page_memory.py` with `section(block, folder)`, which returns the variables of its template:
  `block` is that of the result as plain values, of this version or an older one; `folder` is that
  of the evaluation, where the measure left its pictures and tables. What lies there may be gone.
- `page_memory.html.j2`: what stands below the heading, with headings from `<h3>` on, and the
  macros of `page_parts.html.j2` for figures, pictures and notes. Text is escaped by itself.
- a line in `SECTIONS` below.

`page_memory.py` may also have `sentence(block, judged)`: the result for the judged set in a
sentence, for the summary at the top of the page; empty where there is nothing to say.

A section that cannot be made says so in its place, and the rest of the page is as it would be.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SectionSpec:
    """One section, in the order of the page."""

    name: str
    """Of its block in the result, and of its module `page_<name>` and template."""
    title: str
    """Its heading."""


SECTIONS = (
    SectionSpec("classes", "Measures by class"),
    SectionSpec("features", "Distances between features (E9)"),
    SectionSpec("text", "Images and their captions (E10)"),
    SectionSpec("memory", "Copies and near copies (E11)"),
    SectionSpec("use", "Training on synthetic images (E12)"),
)


@dataclass(frozen=True)
class Section:
    """A section as it stands on the page."""

    name: str
    title: str
    body: str
    """HTML; empty where it cannot be made."""
    fault: str = ""
    """Why it cannot be made."""
    sentence: str = ""
    """What the summary says of it."""


def make_sections(
    blocks: Mapping[str, Mapping[str, Any]],
    folder: Path,
    environment: Environment,
    judged: str = "",
) -> Iterator[Section]:
    """Yield the section of each block that there is, in the order of `SECTIONS`.

    Args:
        blocks: result of each further measure, by name; plain values of JSON.
        folder: of the evaluation.
        environment: with the templates and filters of the pages.
        judged: name of the set that is held to the gates.
    """
    for spec in SECTIONS:
        if not blocks.get(spec.name):
            continue
        try:
            module = importlib.import_module(f"sarhpc.evaluation.page_{spec.name}")
            template = environment.get_template(f"page_{spec.name}.html.j2")
            body = template.render(module.section(blocks[spec.name], folder))
            stated = getattr(module, "sentence", _nothing)(blocks[spec.name], judged)
        # Whatever it is: no section may cost the reader the others.
        except Exception as error:
            log.warning("section=%s of the page cannot be made", spec.name, exc_info=True)
            yield Section(spec.name, spec.title, "", f"{type(error).__name__}: {error}")
        else:
            yield Section(spec.name, spec.title, body, sentence=stated)


def _nothing(block: Mapping[str, Any], judged: str) -> str:
    """The sentence of a section that has none."""
    return ""
