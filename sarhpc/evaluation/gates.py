"""Gates: what a corpus is held to, each with its value, its bounds and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sarhpc.evaluation.config import GatesConfig
from sarhpc.measures.distances import autocorrelation, looks, uniform
from sarhpc.measures.features import Features
from sarhpc.measures.levels import level_spread_db
from sarhpc.measures.nulls import NoVerdict, Verdict

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"


@dataclass(frozen=True)
class GateResult:
    """One gate of one set."""

    name: str
    """Of the setting in `evaluate.gates`."""
    text: str
    value: float | None
    """None where it is undecided."""
    low: float | None
    high: float | None
    verdict: str
    """`pass`, `fail` or `undecided`, which does not pass."""
    reason: str = ""
    """Why it is undecided, or what fails."""


def check_gates(
    config: GatesConfig,
    synthetic: Features,
    real: Features,
    verdicts: Mapping[str, Verdict | NoVerdict],
    unmeasurable: float,
) -> list[GateResult]:
    """The gates of a synthetic set against the real one, without those that are left out.

    Args:
        config: the bounds.
        synthetic: measures of the tiles of the set.
        real: measures of the real tiles.
        verdicts: distances of the set, by name.
        unmeasurable: share of its images that cannot be measured.
    """
    return list(_results(config, synthetic, real, verdicts, unmeasurable))


def passed(results: Sequence[GateResult]) -> bool:
    """Whether every gate passes; one that is undecided does not."""
    return all(result.verdict == PASS for result in results)


def line_of(result: GateResult) -> str:
    """The gate as a line: verdict, value and bounds."""
    value = "no value" if result.value is None else f"{result.value:.3g}"
    why = f": {result.reason}" if result.reason else ""
    bounds = bounds_text(result.low, result.high)
    return f"gate {result.name} {result.verdict}: {result.text} {value} ({bounds}){why}"


def bounds_text(low: float | None, high: float | None) -> str:
    """What a gate allows, in words."""
    if high is None:
        return f"at least {low:g}"
    return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"


def manifest_gate(config: GatesConfig, manifests: Mapping[str, int]) -> list[GateResult]:
    """The gate on what generated images say of their origin; none for third-party images.

    Args:
        config: the bounds.
        manifests: counts of the set, as in `SetFacts`.
    """
    images = manifests.get("images", 0)
    if config.manifest is None or not images:
        return []
    share = manifests.get("complete", 0) / images
    lacking = [name for name in manifests if name not in ("images", "complete")]
    reason = f"some lack {', '.join(sorted(lacking))}" if lacking else ""
    return [_at_least("manifest", "share of images with a complete manifest", share,
                      config.manifest, reason)]  # fmt: skip


_NO_RATIO = "networks recognise no class of real images from real labels"


def use_gates(config: GatesConfig, block: Mapping[str, Any]) -> list[GateResult]:
    """The gates of E12, from its block; undecided where it has no verdict.

    Args:
        config: the bounds.
        block: `use` of the result.
    """
    reason, gains = block["reason"], block.get("gains", [])
    ratio = (block.get("ratio") or {}).get("value")
    gain = min(gains, key=lambda one: one["share"])["value"] if gains else None
    no_ratio = reason or block.get("ratio_reason", "") or ("" if ratio is not None else _NO_RATIO)
    asked = (
        ("use_ratio", "E12 score of synthetic / of real training images", ratio,
         config.use_ratio, no_ratio),
        ("use_gain", "E12 gain beside the smallest share of real labels", gain,
         config.use_gain, reason),
    )  # fmt: skip
    return [
        _at_least(name, text, value, bound, "")
        if value is not None and not why
        else GateResult(name, text, None, bound, None, UNDECIDED, why)
        for name, text, value, bound, why in asked
        if bound is not None
    ]


def _at_least(name: str, text: str, value: float, bound: float, reason: str) -> GateResult:
    verdict = PASS if value >= bound else FAIL
    return GateResult(name, text, float(value), bound, None, verdict, reason)


def _results(
    config: GatesConfig,
    synthetic: Features,
    real: Features,
    verdicts: Mapping[str, Verdict | NoVerdict],
    unmeasurable: float,
) -> Iterator[GateResult]:
    ours, theirs = uniform(synthetic), uniform(real)
    if config.enl_ratio is not None:
        ratio = looks(synthetic, ours) / looks(real, theirs)
        yield _bounded("enl_ratio", "E1 ENL mode, synthetic / real", ratio, config.enl_ratio)
    if config.level_spread_ratio is not None:
        yield _level_spread(config.level_spread_ratio, synthetic, real)
    if config.w1_db is not None:
        yield _beyond_null(config.w1_db, verdicts["E3_w1"])
    if config.acf_lag1 is not None:
        differences = autocorrelation(synthetic, ours) - autocorrelation(real, theirs)
        largest = float(np.abs(differences[:, 0]).max())
        text = "E4 autocorrelation at lag 1, largest difference"
        yield _bounded("acf_lag1", text, largest, [config.acf_lag1])
    if config.lsd_db is not None:
        # As the table of distances has it: against the reference tiles of the null.
        lsd = verdicts["E5_lsd"].raw
        yield _bounded("lsd_db", "E5 log-spectral distance, dB", lsd, [config.lsd_db])
    if config.unmeasurable is not None:
        text = "share of images that cannot be measured"
        yield _bounded("unmeasurable", text, unmeasurable, [config.unmeasurable])


def memorised_gate(bound: float, block: Mapping[str, Any]) -> GateResult:
    """The gate on copies of training tiles, of the block `memory` of a result."""
    text = "E11 share of images that repeat training tiles, beyond false alarms"
    if "left_out" in block:
        return GateResult("memorised", text, None, None, bound, UNDECIDED, block["left_out"])
    beyond = max(block["memorised"]["share"] - block["false_alarms"], 0.0)
    return _bounded("memorised", text, beyond, [bound])


def _bounded(name: str, text: str, value: float, bounds: Sequence[float]) -> GateResult:
    low, high = (None, bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
    if not np.isfinite(value):
        return GateResult(name, text, None, low, high, UNDECIDED, "its value is not finite")
    inside = value <= high and (low is None or value >= low)
    return GateResult(name, text, float(value), low, high, PASS if inside else FAIL)


def _level_spread(bounds: Sequence[float], synthetic: Features, real: Features) -> GateResult:
    text = "E3 spread of mean levels, synthetic / real"
    ours, theirs = (level_spread_db(one.mean_db, uniform(one)) for one in (synthetic, real))
    if theirs <= 0:
        why = "all real tiles have one level"
        return GateResult("level_spread_ratio", text, None, bounds[0], bounds[1], UNDECIDED, why)
    return _bounded("level_spread_ratio", text, ours / theirs, bounds)


def _beyond_null(bound: float, verdict: Verdict | NoVerdict) -> GateResult:
    text = "E3 Wasserstein-1 of levels beyond the null's median, dB"
    if isinstance(verdict, NoVerdict):
        return GateResult("w1_db", text, None, None, bound, UNDECIDED, verdict.reason)
    return _bounded("w1_db", text, verdict.raw - verdict.null_median, [bound])
