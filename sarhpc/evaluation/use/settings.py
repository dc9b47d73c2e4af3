"""What each network of E12 learns from: the list of fits, and the shares that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sarhpc.evaluation.use.config import UseConfig
from sarhpc.evaluation.use.split import UnusableSetsError, UseSplit, labels_of_share

REAL, MIXED, ONLY_SYNTHETIC = "real", "mixed", "synthetic"
SHUFFLED, SHUFFLED_SYNTHETIC = "real, labels shuffled", "synthetic, labels shuffled"
FROM_REAL = (REAL, MIXED, SHUFFLED)
FROM_SYNTHETIC = (MIXED, ONLY_SYNTHETIC, SHUFFLED_SYNTHETIC)
CONTROLS = (SHUFFLED, SHUFFLED_SYNTHETIC)


@dataclass(frozen=True)
class FitSettings:
    """One network: what it learns from, and its seed."""

    setting: str
    share: float
    """Of the labels of the real training images; 0 where it gets none."""
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, the inputs of a part."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FitSettings:
        """The settings with these values."""
        return cls(values["setting"], values["share"], values["seed"])


def shares_left_out(config: UseConfig, split: UseSplit) -> dict[float, str]:
    """Shares of too few labels, and why."""
    least, found = max(len(split.classes), 2), {}
    for share in sorted(config.shares):
        labels = labels_of_share(share, len(split.train))
        if labels < least:
            what = f"the {least} classes" if split.classes else f"{least}"
            found[share] = (
                f"{share:.3g} of {len(split.train)} real labels is {labels}, fewer than {what}"
            )
    return found


def fits_of(config: UseConfig, split: UseSplit) -> list[FitSettings]:
    """Every network, those of most labels first, so that the last to begin end soon.

    Raises:
        UnusableSetsError: every share has fewer labels than there are classes.
    """
    left_out = shares_left_out(config, split)
    shares = sorted({*config.shares} - {*left_out}, reverse=True)
    if not shares:
        raise UnusableSetsError(
            f"{'; '.join(left_out.values())}: label more real images, or give larger "
            "evaluate.use.shares"
        )
    alike = [(setting, share) for share in shares for setting in (MIXED, REAL)]
    others = [(ONLY_SYNTHETIC, 0.0), (SHUFFLED, shares[0]), (SHUFFLED_SYNTHETIC, 0.0)]
    return [
        FitSettings(setting, share, seed)
        for setting, share in [*alike, *others]
        for seed in range(config.seeds)
    ]
