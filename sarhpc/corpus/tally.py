"""Counts and common parameters of a corpus, gathered row by row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc.errors import VerificationError

COMMON = (
    "width_px", "height_px", "scheduler", "steps", "guidance", "guidance_rescale", "dtype",
    "negative_prompt", "pixel_m", "band", "polarization", "incidence_deg", "range_direction",
    "generator", "steered_layer",
)  # fmt: skip
"""Parameters that card and metadata state where all images agree on them."""

SETTINGS = (
    "incidence_deg", "band", "pixel_m", "resolution_m", "looks", "noise_db", "speckle_draw",
)  # fmt: skip
"""Columns by which the images of a layout may differ."""

NO_TARGET = ("none", "no", "False", "0")
"""Values of the label `target` of an image without one, beside an empty one."""


@dataclass
class Tally:
    """What is counted while the rows of an index pass by."""

    samples: int = 0
    image_bytes: int = 0
    cut: int = 0
    """Images whose prompts the model did not read to the end."""
    near_duplicates: int = 0
    """Images that repeat another one."""
    layouts: set[bytes] = field(default_factory=set)
    """Layouts of a sweep."""
    sensors: dict[str, Counter[Any]] = field(default_factory=dict)
    """Images of each value of a setting of a sweep."""
    even: int = 0
    """Images with homogeneous areas."""
    splits: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    pairs: dict[str, set[bool]] = field(default_factory=dict)
    """For each pair, whether there are images with a target, and without."""
    _values: dict[str, Any] = field(default_factory=dict)
    _mixed: set[str] = field(default_factory=set)
    _prompts: set[bytes] = field(default_factory=set)

    @property
    def prompts(self) -> int:
        """Number of distinct prompts."""
        return len(self._prompts)

    @property
    def whole_pairs(self) -> int:
        """Number of pairs that have an image with the target and one without."""
        return sum(len(found) == 2 for found in self.pairs.values())

    def common(self, name: str) -> Any:
        """Value of a parameter of `COMMON` that all images share; None where they do not."""
        return None if name in self._mixed else self._values.get(name)

    def counting(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the rows as they are, and count them.

        Raises:
            VerificationError: keys do not increase: the same sample is in two shards.
        """
        previous = ""
        for row in rows:
            if row["key"] <= previous:
                raise VerificationError(
                    f"key {row['key']} of {row['shard']} is in another shard too: "
                    "shard numbers repeat."
                )
            previous = row["key"]
            self._count(row)
            yield row

    def _count(self, row: Mapping[str, Any]) -> None:
        self.samples += 1
        self.image_bytes += row["size"]
        self.cut += row["prompt_tokens_cut"] > 0
        self.near_duplicates += row.get("near_duplicate_of") is not None
        self.splits[row["split"]] += 1
        self.even += row.get("homogeneous_areas") is not None
        for column, counter in (("label", self.labels), ("verdict", self.verdicts)):
            if row[column] is not None:
                counter[row[column]] += 1
        if row.get("layout") is not None:
            self._count_setting(row)
        if row["pair_id"] is not None:
            shown = row["target"] not in (None, *NO_TARGET)
            self.pairs.setdefault(row["pair_id"], set()).add(shown)
        # Eight bytes instead of the text: a million prompts take tens of MB.
        self._prompts.add(hashlib.blake2b(row["prompt"].encode(), digest_size=8).digest())
        for name in COMMON:
            if self.samples == 1:
                self._values[name] = row[name]
            elif self._values[name] != row[name]:
                self._mixed.add(name)

    def _count_setting(self, row: Mapping[str, Any]) -> None:
        self.layouts.add(hashlib.blake2b(row["layout"].encode(), digest_size=8).digest())
        for name in SETTINGS:
            self.sensors.setdefault(name, Counter())[row[name]] += 1
