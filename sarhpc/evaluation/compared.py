"""Sets compared from the tables of their tiles: evaluation, gates, and what is said of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from hpc.errors import ConfigError, DataError
from sarhpc.evaluation.config import MIN_TILES, EvaluateConfig
from sarhpc.evaluation.gates import (
    GateResult,
    check_gates,
    manifest_gate,
    passed,
    use_gates,
)
from sarhpc.evaluation.suite import Evaluation, evaluate_features
from sarhpc.evaluation.tables import TileMeasures
from sarhpc.measures.distances import DISTANCES
from sarhpc.measures.features import Features

REAL = "real"
SUITES: Mapping[str, tuple[str, ...]] = {
    "radiometry": ("E3",),
    "speckle": ("E1", "E2", "E4"),
    "spectrum": ("E5",),
    "texture": ("E6",),
    "orientation": ("E8",),
    "features": ("E9",),
    "memory": ("E11",),
    "use": ("E12",),
    "text": ("E10",),
}
"""Name of a part of the suite -> its measures."""
NAMED_FAULTS = 5
"""Images that cannot be measured and are named one by one."""


@dataclass(frozen=True)
class ComparedSets:
    """The result of an evaluation."""

    evaluation: Evaluation
    gates: tuple[GateResult, ...]
    notes: tuple[str, ...]
    measured: Mapping[str, Features]
    """Measures of the tiles of each set, for figures."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How they are compared: pixels, sizes, splits."""
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Result of each further measure, by name (`page_sections.SECTIONS`): plain values of JSON."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `evaluation.json`."""
        return {
            **self.evaluation.to_json(),
            **self.facts,
            **self.blocks,
            "notes": list(self.notes),
            "gates": [asdict(gate) for gate in self.gates],
            "gates_passed": passed(self.gates),
        }


def metrics_of(suites: Sequence[str] | None) -> list[str]:
    """Names of the distances of these parts of the suite; of all without any.

    Raises:
        ConfigError: there is no part of a name.
    """
    unknown = [name for name in suites or () if name not in SUITES]
    if unknown:
        near = [one for name in unknown for one in get_close_matches(name, SUITES, n=1)]
        hint = f"did you mean {', '.join(near)}? There" if near else "there"
        raise ConfigError(
            f"no part {', '.join(map(repr, unknown))} of the suite; {hint} are {', '.join(SUITES)}"
        )
    wanted = {prefix for name in suites or SUITES for prefix in SUITES[name]}
    return [name for name in DISTANCES if not suites or name.split("_")[0] in wanted]


def compare(
    views: Sequence[Mapping[str, TileMeasures]],
    config: EvaluateConfig,
    judged: str,
    facts: Mapping[str, Any],
    suites: Sequence[str] | None = None,
) -> ComparedSets:
    """Every set against the real tiles; the gates of the set `judged`.

    Args:
        views: sets by name, `real` and others measured in the same pixels; `judged` is in the
            first one, and of sets that are in several the first counts.
        config: sizes, seeds and gates.
        judged: the set that is held to the gates.
        facts: how they are compared, with `notes`.
        suites: parts of the suite; None takes all.

    Raises:
        ConfigError: no part of the suite has such a name.
        DataError: a set has too few tiles.
    """
    metrics = metrics_of(suites)
    found = [_evaluated(view, config) for view in reversed(views)]
    evaluation = replace(
        found[-1],
        sets={name: one for each in found for name, one in each.sets.items()},
        better={pair: shares for each in found for pair, shares in each.better.items()},
    )
    sets = {name: one for view in reversed(views) for name, one in view.items()}
    tiles = sets[judged]
    gates = check_gates(
        config.gates,
        tiles.features,
        sets[REAL].features,
        evaluation.sets[judged].measures,
        len(tiles.faults) / tiles.measured,
    )
    gates += manifest_gate(config.gates, facts.get("manifests", {}))
    notes = dict.fromkeys(note for view in views for note in _fault_notes(view))
    left_out = {name: dict(one.faults) for name, one in sets.items() if one.faults}
    measured = {name: one.features for name, one in sets.items()}
    return ComparedSets(
        evaluation=_only(evaluation, metrics),
        gates=tuple(gate for gate in gates if _is_asked(gate, metrics)),
        notes=(*facts["notes"], *notes),
        measured=measured,
        facts={**facts, "left_out": left_out},
    )


def _evaluated(view: Mapping[str, TileMeasures], config: EvaluateConfig) -> Evaluation:
    groups = view[REAL].groups
    measured = {name: one.features for name, one in view.items()}
    return evaluate_features(measured, config, groups if any(groups) else None)


def _is_asked(gate: GateResult, metrics: Collection[str]) -> bool:
    """Whether a gate is on one of these distances, or on none in particular."""
    measure = gate.text.split()[0]
    prefixes = {name.split("_")[0] for name in metrics}
    return measure in prefixes or all(measure not in part for part in SUITES.values())


def with_copies(
    of: ComparedSets, name: str, copies: Features, real: TileMeasures, rows: Any,
    config: EvaluateConfig, notes: Collection[str],
) -> ComparedSets:  # fmt: skip
    """The same with a set of copies of real tiles, those at `rows`."""
    groups = [real.groups[row] for row in rows]
    originals = real.features.subset(rows)
    found = evaluate_features(
        {REAL: originals, name: copies}, config, groups if any(groups) else None, [name]
    )
    sets = {**of.evaluation.sets, name: found.sets[name]}
    evaluation = replace(of.evaluation, sets=sets)
    return replace(
        of,
        evaluation=evaluation,
        measured={**of.measured, name: copies},
        notes=(*of.notes, *notes),
    )


def with_use(
    of: ComparedSets, block: Mapping[str, Any], lines: Collection[str], config: EvaluateConfig
) -> ComparedSets:
    """The same with the block of E12, its lines as notes, and its gates."""
    return replace(
        of,
        blocks={**of.blocks, "use": block},
        notes=(*of.notes, *lines),
        gates=(*of.gates, *use_gates(config.gates, block)),
    )


def require_measured(name: str, measures: TileMeasures) -> None:
    """Raise DataError unless enough tiles of a set can be measured.

    Raises:
        DataError: there are too few.
    """
    if len(measures.features) < MIN_TILES:
        why = "; ".join(_fault_notes({name: measures}))
        raise DataError(
            f"{len(measures.features)} images of {name} can be measured, and an evaluation needs "
            f"{MIN_TILES}" + (f": {why}" if why else "")
        )


def faults_of(measures: Mapping[str, TileMeasures]) -> list[str]:
    """Each set with images that cannot be measured, and the first of them, as lines."""
    return list(_fault_notes(measures))


def _fault_notes(measures: Mapping[str, TileMeasures]) -> list[str]:
    lines = []
    for name, one in measures.items():
        if one.faults:
            named = [f"{key} ({fault})" for key, fault in one.faults[:NAMED_FAULTS]]
            more = "" if len(one.faults) <= NAMED_FAULTS else ", ..."
            lines.append(
                f"{len(one.faults)} of {one.measured} images of {name} cannot be measured and are "
                f"left out: {', '.join(named)}{more}"
            )
    return lines


def _only(evaluation: Evaluation, metrics: Sequence[str]) -> Evaluation:
    """The evaluation with the distances of `metrics` alone."""
    sets = {
        name: replace(one, measures={m: v for m, v in one.measures.items() if m in metrics})
        for name, one in evaluation.sets.items()
    }
    better = {
        pair: {metric: value for metric, value in shares.items() if metric in metrics}
        for pair, shares in evaluation.better.items()
    }
    return replace(evaluation, sets=sets, better=better)
