"""What an evaluation measures: images that are drawn, how they are read, and in which parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sarhpc.evaluation.compared import REAL
from sarhpc.evaluation.config import MIN_TILES, EvaluateConfig
from sarhpc.evaluation.drawing import (
    Drawn,
    draw_evenly,
    draw_real,
    drawn_facts,
    parts_of,
    require_images,
)
from sarhpc.evaluation.image_sets import (
    ImageSet,
    folders_below,
    read_images,
    split_of_folders,
)
from sarhpc.evaluation.pixels import (
    amplitude_member,
    code_member,
    mean_3_sigma,
    picture_format,
)
from sarhpc.evaluation.set_facts import (
    AMPLITUDE,
    PIXELS,
    Comparison,
    SetFacts,
    comparison_of,
    facts_of,
)
from sarhpc.shards.subset import spread

SCALED_BY = 32
"""Images by whose mean and standard deviation amplitude of an unknown unit is scaled."""


@dataclass(frozen=True)
class ComparisonPlan:
    """How sets are compared, and the inputs of the parts that are measured."""

    views: tuple[tuple[str, tuple[str, ...]], ...]
    """Pixels, and the sets that are measured in them and held against real tiles in the same: the
    first one has the set that is judged. A second one holds sets that have 8 bits only."""
    px: tuple[int, int]
    notes: tuple[str, ...]
    splits: Mapping[str, int]
    """Real tiles by the split that they are from."""
    drawn: Mapping[str, int]
    """Images of each set that are measured."""
    parts: tuple[Mapping[str, Any], ...]
    """See `measure_part`."""
    manifests: Mapping[str, int] = field(default_factory=dict)
    """Of the set that is judged, as in `SetFacts`."""

    @property
    def pixels(self) -> str:
        """Pixels of the set that is judged."""
        return self.views[0][0]

    def facts(self) -> dict[str, Any]:
        """What the result says of it, and a plan holds: all but the parts."""
        facts = {name: value for name, value in asdict(self).items() if name != "parts"}
        return {"pixels": self.pixels, **facts}

    @classmethod
    def of_facts(
        cls, facts: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
    ) -> ComparisonPlan:
        """The plan of these facts and parts."""
        px, notes = tuple(facts["px"]), tuple(facts["notes"])
        views = tuple((pixels, tuple(names)) for pixels, names in facts["views"])
        return cls(
            views, px, notes, facts["splits"], facts["drawn"], tuple(parts),
            facts.get("manifests", {}),
        )  # fmt: skip


def plan_comparison(
    real: ImageSet,
    others: Mapping[str, ImageSet],
    config: EvaluateConfig,
    one_law: bool = False,
) -> ComparisonPlan:
    """Draw the images of each set, check that they can be compared, and plan the parts.

    Args:
        real: the reference.
        others: sets by the name of their column; the first one is judged.
        config: how many, and of which splits.
        one_law: whether the others are of models trained on the real images, and so their codes of
            the same law.

    Raises:
        ConfigError: the sets cannot be compared, and why.
        DataError: a set has too few images, or one that cannot be read.
    """
    limit = None if config.all_tiles else config.tiles
    drawn = {name: draw_evenly(images, limit) for name, images in others.items()}
    for one in drawn.values():
        require_images(one, MIN_TILES)
    most = max(min(len(one), config.tiles) for one in drawn.values())
    drawn = {REAL: draw_real(real, most, config.real_splits, config.all_tiles), **drawn}
    require_images(drawn[REAL], MIN_TILES)
    facts = {name: facts_of_drawn(one) for name, one in drawn.items()}
    compared = {name: comparison_of(facts[REAL], facts[name], one_law) for name in others}
    px = (
        min(one.px[0] for one in compared.values()),
        min(one.px[1] for one in compared.values()),
    )
    views = _views(compared)
    parts = []
    for pixels, names in views:
        scales = amplitude_scales(drawn, facts, pixels, [compared[name] for name in names])
        parts += [
            {"set": name, "pixels": pixels, "px": list(px), "scale": scales[name], "files": files}
            for name in (REAL, *names)
            for files in parts_of(drawn[name])
        ]
    notes = [*_split_notes(facts[REAL], config, drawn[REAL]), *_role_notes(facts)]
    notes += dict.fromkeys(note for one in compared.values() for note in one.notes)
    counts = {name: len(one) for name, one in drawn.items()}
    judged = facts[next(iter(others))]
    return ComparisonPlan(
        views, px, tuple(notes), facts[REAL].splits, counts, tuple(parts), judged.manifests
    )


def _views(compared: Mapping[str, Comparison]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sets by pixels: those of the judged set, and worse ones of others with it beside them."""
    judged, *_ = compared
    main = PIXELS.index(compared[judged].pixels)
    views = []
    for number, pixels in enumerate(PIXELS[main:]):
        best = PIXELS[: main + 1] if not number else (pixels,)
        names = [name for name, one in compared.items() if one.pixels in best]
        if names:
            views.append((pixels, tuple(dict.fromkeys([judged, *names]))))
    return tuple(views)


def facts_of_drawn(drawn: Drawn) -> SetFacts:
    """Facts on the drawn images of a set; the size is that of the first."""
    file, rows = drawn.places[0]
    [first] = read_images(drawn.images, file, rows[:1], code_member)
    px, sixteen = picture_format(first)
    return facts_of(drawn.images.name, drawn_facts(drawn), px, sixteen)


def amplitude_scales(
    drawn: Mapping[str, Drawn],
    facts: Mapping[str, SetFacts],
    pixels: str,
    compared: Sequence[Comparison],
) -> dict[str, float | None]:
    """Amplitude that becomes 1 in each set; None where it is relative to a full scale already."""
    if pixels != AMPLITUDE:
        return {n: None if facts[n].has_codes else _mean_3_sigma(one) for n, one in drawn.items()}
    if all(one.common_scale for one in compared):
        scale = None if facts[REAL].full_scale else _mean_3_sigma(drawn[REAL])
        return dict.fromkeys(drawn, scale)
    return {name: _mean_3_sigma(one) for name, one in drawn.items()}


def _mean_3_sigma(drawn: Drawn) -> float:
    """Mean + 3 standard deviations of the amplitude of some of the images."""
    places = [(file, row) for file, rows in drawn.places for row in rows]
    images = (
        image
        for file, row in spread(places, SCALED_BY)
        for image in read_images(drawn.images, file, [row], amplitude_member)
    )
    return mean_3_sigma(images)


def _split_notes(facts: SetFacts, config: EvaluateConfig, drawn: Drawn) -> Iterator[str]:
    splits = {name: count for name, count in facts.splits.items() if name != "unknown"}
    named = {split_of_folders(folders_below(drawn.images, file)) for file, _ in drawn.places} - {""}
    if not splits and named:
        yield (
            f"Folders of real images name splits: {', '.join(sorted(named))}. E12 learns and tests "
            "by them; the other measures take images of all."
        )
        return
    if not splits:
        yield "Real tiles name no split: whether the model was trained on them is not known."
        return
    yield "Real tiles are from: " + ", ".join(f"{n} ({c})" for n, c in sorted(splits.items())) + "."
    if "train" in splits:
        wanted = " or ".join(config.real_splits)
        yield (
            f"Real tiles of split train are the reference, as there are none of {wanted}: the "
            "model may have learned from them, and a set that repeats them looks better than it is."
        )


def _role_notes(facts: Mapping[str, SetFacts]) -> Iterator[str]:
    if facts[REAL].synthetic:
        yield f"{facts[REAL].synthetic} images of {facts[REAL].name} say that they are synthetic."
    if not facts[REAL].groups:
        yield (
            f"{facts[REAL].name} names neither flight lines nor scenes: there is no null, and no "
            "verdict. Tiles of this project name them; rows of metadata.jsonl may by `scene_id`."
        )
