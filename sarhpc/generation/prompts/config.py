"""Configuration of a prompt table: a file or a grammar, and how its fields are covered."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class GrammarConfig:
    """Levels of each field; every combination that makes sense becomes prompts."""

    classes: list[str] = field(default_factory=list)
    """Land-cover classes: water, river, forest, field, crop, grass, bare soil, vineyard, town,
    industry, or names of `phrases`."""
    relations: list[str] = field(default_factory=list)
    """Relation to other classes: `none`; `crossed by` river, road or path; `beside` a class;
    `with` pond, lake, trees, wood, house, houses, village or clearing, each also with `in the
    middle`, `near range`, `far range`, `upper part` or `lower part`. Empty: none."""
    band: list[str] = field(default_factory=list)
    """Radar bands, for example X."""
    spacing_m: list[float] = field(default_factory=list)
    """Pixel spacings, m."""
    incidence_deg: list[float] = field(default_factory=list)
    """Incidence angles, degrees."""
    season: list[str] = field(default_factory=list)
    """Seasons: winter, spring, summer, autumn."""
    density: list[str] = field(default_factory=list)
    """Densities of forests and towns: dense, medium, open; other classes have none."""
    weights: dict[str, float] = field(default_factory=dict)
    """Level -> weight of its prompts where `coverage` is weighted; 1 for the others."""


@dataclass
class PromptTableConfig:
    """One table of prompts with labels, and how often each of them is generated."""

    file: str | None = None
    """Table: `.csv`, `.jsonl` or `.parquet` with a column `prompt`, or with the grammar's fields
    (`class`, `relation`, ...). Also read: `count` or `weight`, `seed`, `negative_prompt`; other
    columns are labels of the images."""
    grammar: GrammarConfig | None = None
    """Prompts from fields instead of a file."""
    phrases: dict[str, list[str]] = field(default_factory=dict)
    """Further classes, or other words for a known one: class -> descriptions, used in turn."""
    coverage: str = "weighted"
    """How often each row is used: `weighted` (by `count` or `weight`), `balanced` (levels of `by`
    equally often, alone and combined) or `latin_hypercube` (levels of each field of `by` equally
    often, combined at random)."""
    by: list[str] = field(default_factory=list)
    """Fields to cover, the most important first; empty: all fields of a grammar, or `class`."""
    max_per_prompt: int | None = None
    """Most images of one prompt; null: no limit."""
